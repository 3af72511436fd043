"""`.env`, as it is made, read and checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from pipeline.config.settings import (
    COMPOSE_IMAGES,
    DECISIVE,
    MONITORING,
    OWNER_PASSWORD,
    RETIRED,
    backup_settings,
    backup_variables,
    check_values,
    edge_port,
    env_text,
    fill_env,
    grace_seconds,
    monitoring_settings,
    overridden,
    read_env,
    read_values,
    release_settings,
    set_in_env,
    split_secrets,
    variables,
)
from pipeline.errors import UsageError
from tests.project import NAME

NAMES = {one.name for one in [*variables(), *COMPOSE_IMAGES, *MONITORING, *backup_variables()]}
GENERATED = {one.name for one in variables() if one.generate}
# What a service of one's own may need besides: `nox -s init` leaves the value to people.
GIVEN = {one.name: f"{one.name.lower()}-of-somebody-else" for one in variables() if one.needed and not one.generate}


class TestGrace:
    def test_follows_from_the_drain_and_the_longest_request(self) -> None:
        """What a release does not say is the default."""
        base = {"DRAIN_SECONDS": "2", "REQUEST_TIMEOUT_SECONDS": "30"}
        assert grace_seconds(base) == 42
        assert grace_seconds({**base, "DRAIN_SECONDS": "60.5"}) == 101
        assert grace_seconds({**base, "REQUEST_TIMEOUT_SECONDS": "120"}) == 132
        assert grace_seconds({**base, "DRAIN_SECONDS": "soon"}) == 40  # the plan refuses it
        assert grace_seconds({}) == grace_seconds({one.name: one.default for one in variables()})


class TestFillEnv:
    def test_makes_a_file_that_is_ours_alone_and_valid(self, tmp_path: Path) -> None:
        """A new .env has mode 0600, every variable, real secrets, and no problem."""
        added = fill_env(tmp_path)
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
        assert set(added) == NAMES == set(dotenv_values(tmp_path / ".env"))
        assert check_values(tmp_path, read_values(tmp_path, GIVEN)) == []

    def test_takes_from_the_environment_what_decides_where_the_data_is(self, tmp_path: Path) -> None:
        """A job that sets these from its first deploy on finds the same data in its second; nothing else is taken."""
        given = {name: f"registry.example.org:5000/{name.lower()}@sha256:0" for name in DECISIVE}
        fill_env(tmp_path, {**given, "LOG_LEVEL": "DEBUG", "SERVICE_TOKEN": "mine"})
        written = dotenv_values(tmp_path / ".env")
        assert {name: written[name] for name in DECISIVE} == given
        assert (written["LOG_LEVEL"], written["SERVICE_TOKEN"] == "mine") == ("INFO", False)

    @pytest.mark.parametrize("value", ["Not A Name", "a#b", "${HOME}", "it's", "a\nSERVICE_TOKEN=mine", ""])
    def test_takes_no_value_that_another_reader_would_take_apart(self, tmp_path: Path, value: str) -> None:
        """The default is in the file, which the plan then tells from the environment."""
        fill_env(tmp_path, {"PROJECT_NAME": value})
        assert dotenv_values(tmp_path / ".env")["PROJECT_NAME"] == NAME
        assert check_values(tmp_path, read_values(tmp_path, GIVEN), {}) == []

    def test_makes_every_secret_anew(self, tmp_path: Path) -> None:
        """Two files share no secret, and no two secrets of a file are the same."""
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        found = []
        for folder in (tmp_path / "a", tmp_path / "b"):
            fill_env(folder)
            found += [value for name, value in dotenv_values(folder / ".env").items() if name in GENERATED]
        assert len(set(found)) == 2 * len(GENERATED)

    def test_never_touches_an_existing_value(self, tmp_path: Path) -> None:
        """What is there stays to the letter, comments included; only what is missing is added."""
        before = "# mine\nSERVICE_TOKEN=my own token of some length\nLOG_LEVEL=\n"
        (tmp_path / ".env").write_text(before)
        added = fill_env(tmp_path)
        after = (tmp_path / ".env").read_text()
        assert after.startswith(before)
        assert not {"SERVICE_TOKEN", "LOG_LEVEL"} & set(added)
        assert fill_env(tmp_path) == []

    def test_closes_a_file_that_others_could_read(self, tmp_path: Path) -> None:
        """An .env that was made by hand with 0644 is closed."""
        (tmp_path / ".env").write_text("")
        (tmp_path / ".env").chmod(0o644)
        fill_env(tmp_path)
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


class TestMonitoringSettings:
    def test_reach_no_replica(self, tmp_path: Path) -> None:
        """They are not among what a release is told; a secret of theirs may come from a file."""
        (tmp_path / "hook").write_text("https://alerts.example.org\n")
        values = {"ALERT_WEBHOOK_URL_FILE": str(tmp_path / "hook"), "PROMETHEUS_PORT": "9191", "LOG_LEVEL": "INFO"}
        assert split_secrets(values) == ({"LOG_LEVEL": "INFO"}, {})
        assert release_settings(values) == {"LOG_LEVEL": "INFO"}
        read = monitoring_settings(values)
        assert (read["ALERT_WEBHOOK_URL"], read["PROMETHEUS_PORT"]) == ("https://alerts.example.org", "9191")
        assert (read["GRAFANA_PORT"], read["COMPOSE_PROFILES"]) == ("3001", "")


class TestSetInEnv:
    @pytest.mark.parametrize("value", ["plain", "a b'c", '$HOME ${X} "#\\\\n\\'])
    def test_replaces_a_value_to_the_letter(self, tmp_path: Path, value: str) -> None:
        """Whatever is in it; other lines stay, and so does who may read the file."""
        fill_env(tmp_path, {})
        before = dotenv_values(tmp_path / ".env", interpolate=False)
        assert set_in_env(tmp_path, {"SERVICE_TOKEN": value, "LOG_LEVEL": "INFO"}) == ["SERVICE_TOKEN"]
        assert read_env(tmp_path)[0] == {**before, "SERVICE_TOKEN": value}
        assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
        assert set_in_env(tmp_path, {"SERVICE_TOKEN": value}) == []


class TestReadValues:
    def test_takes_the_environment_over_the_file(self, tmp_path: Path) -> None:
        """The environment wins over .env, an empty value is unset, and foreign names are left alone."""
        (tmp_path / ".env").write_text("LOG_LEVEL=INFO\nEDGE_PORT=8080\nPROJECT_NAME=\n")
        values = read_values(tmp_path, {"LOG_LEVEL": "DEBUG", "PATH": "/bin", "SERVICE_TOKEN_FILE": "/x"})
        assert values == {"LOG_LEVEL": "DEBUG", "EDGE_PORT": "8080", "SERVICE_TOKEN_FILE": "/x"}

    def test_takes_the_profiles_of_compose_from_the_file_alone(self, tmp_path: Path) -> None:
        """In a shell they may be meant for another project."""
        (tmp_path / ".env").write_text("COMPOSE_PROFILES=monitoring\n")
        assert read_values(tmp_path, {"COMPOSE_PROFILES": "debug"}) == {"COMPOSE_PROFILES": "monitoring"}
        (tmp_path / ".env").unlink()
        assert read_values(tmp_path, {"COMPOSE_PROFILES": "debug"}) == {}

    def test_takes_what_decides_where_the_data_is_from_the_file_alone(self, tmp_path: Path) -> None:
        """Else the second shell would look at another database; without a file there is only the environment."""
        environ = dict.fromkeys(DECISIVE, "other")
        assert read_values(tmp_path, environ) == environ
        (tmp_path / ".env").write_text("PROJECT_NAME=shop\nPOSTGRES_IMAGE=mirror.example.org/postgres:18\n")
        assert read_values(tmp_path, environ) == {
            "PROJECT_NAME": "shop",
            "POSTGRES_IMAGE": "mirror.example.org/postgres:18",
        }

    def test_names_a_file_in_another_encoding(self, tmp_path: Path) -> None:
        """A line and no traceback, and without the file's content."""
        (tmp_path / ".env").write_bytes("PROJECT_NAME=für uns\n".encode("latin-1"))
        with pytest.raises(UsageError, match=r"^\.env: not UTF-8 \(byte 14\): save it as UTF-8$"):
            read_values(tmp_path, {})

    def test_names_what_is_no_file(self, tmp_path: Path) -> None:
        """A folder (Docker makes one for a missing mount) is not taken for an empty file."""
        (tmp_path / ".env").mkdir()
        with pytest.raises(UsageError, match=r"^\.env: cannot be read \(Is a directory\)"):
            read_values(tmp_path, {})


class TestCheckValues:
    def test_names_a_line_that_says_nothing(self, tmp_path: Path) -> None:
        """What cannot be read is not passed over: it may be the setting that somebody meant."""
        fill_env(tmp_path)
        before = (tmp_path / ".env").read_text()
        (tmp_path / ".env").write_text(f"LOG_LEVEL: canary\n{before}")
        assert check_values(tmp_path, read_values(tmp_path, GIVEN)) == [
            ".env: line 1 is not NAME=VALUE: fix it, or put # before it"
        ]

    @pytest.mark.parametrize("name", sorted(RETIRED))
    def test_let_a_retired_setting_be(self, name: str, tmp_path: Path) -> None:
        """An older `.env` has it, and it never had an effect; not even a bad value of it is refused."""
        assert name not in NAMES
        fill_env(tmp_path)
        with (tmp_path / ".env").open("a") as file:
            file.write(f"{name}=x\n")
        assert check_values(tmp_path, read_values(tmp_path, GIVEN)) == []

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("SERVICE_TOKEN=change_this_service_token", "SERVICE_TOKEN: is still the placeholder"),
            ("SERVICE_TOKEN=canary", "SERVICE_TOKEN: is shorter than 16 characters"),
            ("EDGE_PORT=many", "EDGE_PORT: "),
            ("SERVICE_TOKN=x", "unknown variable SERVICE_TOKN"),
        ],
    )
    def test_names_what_is_wrong_but_never_the_value(self, tmp_path: Path, line: str, message: str) -> None:
        """One line for the wrong variable, development or not; its value is not in it."""
        name, value = line.split("=")
        fill_env(tmp_path)
        kept = [row for row in (tmp_path / ".env").read_text().splitlines() if not row.startswith(f"{name}=")]
        (tmp_path / ".env").write_text("\n".join([*kept, line]) + "\n")
        (problem,) = check_values(tmp_path, read_values(tmp_path, GIVEN))
        assert problem.startswith(".env: ")
        assert message in problem
        assert value == "x" or value not in problem

    def test_blames_the_command_for_the_secrets_that_came_from_it(self, tmp_path: Path) -> None:
        """And `.env` for the rest."""
        fill_env(tmp_path)
        values = {**read_values(tmp_path, GIVEN), "SERVICE_TOKEN": "canary", "EDGE_PORT": "many"}
        problems = check_values(tmp_path, values, {}, source="secrets (`sops`)")
        assert [line.partition(": ")[0] for line in sorted(problems)] == [".env", "secrets (`sops`)"]

    def test_blames_the_environment_for_what_came_from_it(self, tmp_path: Path) -> None:
        """Nobody should look for it in the file."""
        fill_env(tmp_path)
        environ = {**GIVEN, "EDGE_PORT": "many"}
        [problem] = check_values(tmp_path, read_values(tmp_path, environ), environ)
        assert problem.startswith("the environment: EDGE_PORT: ")

    def test_lets_the_images_of_compose_pass(self, tmp_path: Path) -> None:
        """They are no settings of the service, and still `.env` is where they stand."""
        fill_env(tmp_path)
        with (tmp_path / ".env").open("a") as file:
            file.write("POSTGRES_IMAGE=mirror.example.org/postgres:18\nREDIS_IMAGE=mirror.example.org/redis:8\n")
        assert check_values(tmp_path, read_values(tmp_path, GIVEN), {}) == []


class TestOverridden:
    def test_says_what_one_shell_would_ship(self, tmp_path: Path) -> None:
        """A setting of one person's shell goes live: each has a line, with both values."""
        fill_env(tmp_path, {})
        assert overridden(tmp_path, {"ENVIRONMENT": "production", "LOG_LEVEL": "INFO", "PATH": "/bin"}) == {
            "ENVIRONMENT": "ENVIRONMENT: the environment has `production`, where .env has `development`, and wins:"
            " unset it, or write it to .env"
        }

    def test_never_shows_a_secret(self, tmp_path: Path) -> None:
        """The line says that there is another one."""
        fill_env(tmp_path, {})
        secret = next(variable.name for variable in variables() if variable.generate)
        [line] = overridden(tmp_path, {secret: "canary-canary-canary"}).values()
        assert line.startswith(f"{secret}: the environment has another one than .env, and wins")
        same = dotenv_values(tmp_path / ".env", interpolate=False)[secret] or ""
        assert overridden(tmp_path, {secret: same}) == {}

    def test_leaves_alone_what_the_environment_cannot_set(self, tmp_path: Path) -> None:
        """A name that decides where the data is does not win; without an `.env`, nothing is overridden."""
        assert overridden(tmp_path, {"LOG_LEVEL": "DEBUG"}) == {}
        fill_env(tmp_path, {})
        assert overridden(tmp_path, dict.fromkeys(DECISIVE, "elsewhere")) == {}


class TestEdgePort:
    @pytest.mark.parametrize(
        ("value", "port"), [("8181", 8181), ("", 8080), ("99999", 8080), ("0", 8080), ("²", 8080), ("-4", 8080)]
    )
    def test_is_a_port_whatever_was_written(self, value: str, port: int) -> None:
        """What is wrong is said by `check_values`, so `status` and `down` go on with the default."""
        assert edge_port({"EDGE_PORT": value}) == port


class TestFreshSecrets:
    def test_suit_each_algorithm(self, tmp_path: Path) -> None:
        """A key that `nox -s init` made need not be made anew for a longer hash; http is fine in development."""
        fill_env(tmp_path)
        for name in ("HS256", "HS384", "HS512"):
            environ = {**GIVEN, "JWT_ALGORITHM": name, "FRONTEND_URL": "http://localhost:8080"}
            assert check_values(tmp_path, read_values(tmp_path, environ)) == []

    def test_come_to_an_installation_from_before_them(self, tmp_path: Path) -> None:
        """Its deploy names what is missing and the command, which leaves everything else as it is."""
        fill_env(tmp_path)
        path = tmp_path / ".env"
        path.write_text(re.sub(r"(?m)^JWT_SECRET_KEY.*\n", "", path.read_text()))
        (problem,) = check_values(tmp_path, read_values(tmp_path, GIVEN))
        assert "JWT_SECRET_KEY: is missing; `nox -s init` makes one" in problem
        assert fill_env(tmp_path) == ["JWT_SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS"]
        assert check_values(tmp_path, read_values(tmp_path, GIVEN)) == []


class TestSplitSecrets:
    def test_keeps_secrets_apart_and_reads_their_files(self, tmp_path: Path) -> None:
        """What may be shown is on one side; a secret given as a file is read, without its newline."""
        (tmp_path / "token").write_text("t0ken\n")
        plain, secret = split_secrets(
            {"LOG_LEVEL": "INFO", "SERVICE_TOKEN_FILE": str(tmp_path / "token"), "POSTGRES_PASSWORD": "p"}
        )
        assert (plain, secret) == ({"LOG_LEVEL": "INFO"}, {"SERVICE_TOKEN": "t0ken", "POSTGRES_PASSWORD": "p"})

    def test_of_backups_are_no_replica_s(self, tmp_path: Path) -> None:
        """They are apart, with their secrets from files, and are no part of a release."""
        (tmp_path / "key").write_text("KEY:SECRET\n")
        own = {"BACKUP_KEEP": "3d", "BACKUP_ADDRESS_SECRET_FILE": str(tmp_path / "key"), "BACKUP_IDENTITY": "i"}
        values = {"LOG_LEVEL": "INFO", "SERVICE_TOKEN": "t", **own}
        assert split_secrets(values) == ({"LOG_LEVEL": "INFO"}, {"SERVICE_TOKEN": "t"})
        assert release_settings(values) == {"LOG_LEVEL": "INFO"}
        assert backup_settings(values) == {
            "BACKUP_KEEP": "3d",
            "BACKUP_ADDRESS_SECRET": "KEY:SECRET",
            "BACKUP_IDENTITY": "i",
        }

    def test_of_backups_are_checked(self, tmp_path: Path) -> None:
        """As the service's are."""
        fill_env(tmp_path)
        values = {**read_values(tmp_path, GIVEN), "BACKUP_KEEP": "forever"}
        assert [problem.partition(": must")[0] for problem in check_values(tmp_path, values)] == [".env: BACKUP_KEEP"]

    def test_name_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        """By its variable; that of a URL is refused by the plan, and nobody reads it."""
        with pytest.raises(UsageError, match=r"^SERVICE_TOKEN_FILE: its file cannot be read \(No such file"):
            split_secrets({"SERVICE_TOKEN_FILE": str(tmp_path / "nothing")})
        urls = {"DATABASE_URL_FILE": str(tmp_path / "nothing"), "REDIS_URL_FILE": str(tmp_path / "nothing")}
        assert split_secrets(urls) == ({}, {})


class TestEnvText:
    def test_show_no_secret(self) -> None:
        """The example holds placeholders for exactly the secrets that are generated, the owner's among them."""
        example = {
            line.split("=")[0]: line.split("=")[1] for line in env_text().splitlines() if line and line[0] != "#"
        }
        assert {name for name, value in example.items() if value.startswith("change_this")} == {
            *GENERATED,
            OWNER_PASSWORD,
        }
