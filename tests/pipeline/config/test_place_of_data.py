"""A database that is named in vain, and a shell that says another one than `.env`."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.place_of_data import settings_problems, shell_problems, unused_stores
from pipeline.config.settings import DECISIVE, fill_env, read_values
from tests.project import NAME

RUNS = "compose runs a {store} of its own"
URL = "postgresql://shop:canary@db.example.org/shop"


class TestUnusedStores:
    @pytest.mark.parametrize(
        ("name", "value", "store"),
        [
            ("DATABASE_URL", URL, "PostgreSQL"),
            ("DATABASE_URL_FILE", "/run/canary", "PostgreSQL"),
            ("POSTGRES_HOST", "canary.example.org", "PostgreSQL"),
            ("REDIS_URL", "rediss://:canary@cache.example.org", "Redis"),
            ("REDIS_URL_FILE", "/run/canary", "Redis"),
            ("REDIS_HOST", "canary.example.org", "Redis"),
        ],
    )
    def test_names_what_would_be_named_in_vain_and_never_its_value(self, name: str, value: str, store: str) -> None:
        """The line has the name, what is used instead, and the fix; a URL may hold a password."""
        assert unused_stores({name: value}, RUNS, environ={}) == [
            f"{name}: compose runs a {store} of its own and would not use it: take {name} out of .env"
        ]

    def test_says_where_the_name_is_to_be_taken_out(self) -> None:
        """The environment wins over `.env`, and so it is the one to mend."""
        [line] = unused_stores({"DATABASE_URL": URL}, RUNS, environ={"DATABASE_URL": URL})
        assert line.endswith(": unset DATABASE_URL in the environment")

    def test_lets_an_env_pass_that_init_wrote(self, tmp_path: Path) -> None:
        """Each name is in it, with its default; the ports are those of compose's debug profile."""
        fill_env(tmp_path, {})
        values = read_values(tmp_path, {"POSTGRES_PORT": "5433", "REDIS_PORT": "6380", "REDIS_URL": " "})
        assert unused_stores(values, RUNS, environ={}) == []

    def test_lets_the_name_pass_of_what_is_used(self) -> None:
        """It is not named in vain."""
        assert unused_stores({"POSTGRES_HOST": "postgres"}, RUNS, placed={"POSTGRES_HOST": "postgres"}) == []
        assert unused_stores({"POSTGRES_HOST": "postgres"}, RUNS, placed={"POSTGRES_HOST": "db.example.org"}) != []


class TestSettingsProblems:
    def test_have_one_line_for_each_name(self, tmp_path: Path) -> None:
        """A URL that has to go is not mended first; anything else that is wrong is said, too."""
        fill_env(tmp_path, {})
        values = {**read_values(tmp_path, {}), "DATABASE_URL": URL, "REDIS_URL_FILE": "/nonexistent", "EDGE_PORT": "no"}
        lines = settings_problems(tmp_path, values, RUNS)
        wrong = ["EDGE_PORT", "DATABASE_URL", "REDIS_URL_FILE"]  # a secret of the team's may be missing, too
        named = [line.removeprefix(".env: ").partition(":")[0] for line in lines]
        assert [name for name in named if name in wrong] == wrong


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with an `.env` as it is made, and a docker-compose.yml that names its images."""
    fill_env(tmp_path, {})
    images = "image: ${POSTGRES_IMAGE:-postgres:18}\nimage: ${REDIS_IMAGE:-redis:8@sha256:0}\n"
    (tmp_path / "docker-compose.yml").write_text(images)
    return tmp_path


class TestShellProblems:
    @pytest.mark.parametrize("name", DECISIVE)
    def test_names_both_values_where_the_shell_says_another(self, name: str, root: Path) -> None:
        """They are no secrets, and who reads the line has to choose."""
        (root / ".env").write_text(f"{name}=mine\n")
        assert shell_problems(root, {name: "other"}) == [
            f"{name}: the environment says `other`, .env says `mine`: put it in .env, or unset it"
        ]

    @pytest.mark.parametrize(
        ("name", "default"),
        [("POSTGRES_DB", NAME), ("POSTGRES_IMAGE", "postgres:18"), ("REDIS_IMAGE", "redis:8@sha256:0")],
    )
    def test_compares_with_the_default_where_env_says_nothing(self, name: str, default: str, root: Path) -> None:
        """That of the schema, or of docker-compose.yml: it is what the next shell would get."""
        (root / ".env").write_text(f"{name}=\n" if name == "REDIS_IMAGE" else "")
        assert shell_problems(root, {name: default}) == []
        [line] = shell_problems(root, {name: "other"})
        assert line.startswith(f"{name}: the environment says `other`, .env says nothing, which is `{default}`: ")

    def test_lets_the_same_value_and_an_empty_one_pass(self, root: Path) -> None:
        """Empty is unset, and what does not decide where data is may come from anywhere."""
        assert shell_problems(root, {"PROJECT_NAME": NAME, "POSTGRES_DB": "", "LOG_LEVEL": "DEBUG"}) == []

    def test_has_nothing_to_say_before_there_is_an_env(self, tmp_path: Path) -> None:
        """The first deploy takes these names from the environment."""
        assert shell_problems(tmp_path, {"PROJECT_NAME": "other"}) == []
