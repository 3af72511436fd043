"""Settings: what is refused, and what a refusal says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from backend.settings import SECTIONS, Settings, SettingsError, load_settings
from pipeline.config.derived import CLUSTER_FIXED
from pipeline.config.settings import COMPOSE_IMAGES, DECISIVE, PLACED, needed_secrets, variables
from tests.certificates import certificates
from tests.project import NAME

BACKEND = Path(__file__).parents[2] / "backend"
CANARY = "canary-Zq8"
# No value of these may be printed; they are good enough to start production.
PRODUCTION = {"ENVIRONMENT": "production", **{name: f"{CANARY}-{name}-0123456789" for name in needed_secrets()}}

Problems: TypeAlias = Callable[..., list[str]]


@pytest.fixture(name="problems")
def _problems(tmp_path: Path) -> Problems:
    def load(**environ: str) -> list[str]:
        try:
            load_settings(environ, secrets_dir=tmp_path)
        except SettingsError as error:
            return error.problems
        return []

    return load


def _marked(mark: str) -> set[str]:
    return {name for name, field in Settings.model_fields.items() if mark in dict(field.json_schema_extra or {})}  # type: ignore[arg-type]


def _named(problems: list[str]) -> list[str]:
    return [problem.partition(":")[0] for problem in problems]


class TestSchema:
    def test_has_each_setting_that_a_deploy_sets(self) -> None:
        """A service of one's own may have any others, but these reach it, and it has to honour them."""
        placed = {*PLACED, *DECISIVE, *(name for name, _, _ in CLUSTER_FIXED)} - {one.name for one in COMPOSE_IMAGES}
        assert placed <= {one.name for one in variables()}

    def test_every_field_says_what_it_means(self) -> None:
        """Each field has one line of description, and a section that exists."""
        for name, field in Settings.model_fields.items():
            assert field.description, name
            assert "\n" not in field.description
            assert isinstance(field.json_schema_extra, dict)
            assert field.json_schema_extra["section"] in SECTIONS

    def test_has_a_default_for_what_is_no_secret(self) -> None:
        """A process must be able to start without it; what must be there outside development is a secret."""
        assert not any(field.is_required() for field in Settings.model_fields.values())
        assert _marked("generate") <= _marked("needed") <= {one.name.lower() for one in variables() if one.secret}

    def test_importing_settings_imports_no_framework(self) -> None:
        """The pipeline imports the settings alone: neither FastAPI nor a database driver comes along."""
        code = "import sys, backend.settings; print(*{'fastapi', 'starlette', 'asyncpg', 'redis'} & set(sys.modules))"
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert run.stdout.strip() == ""

    def test_has_no_setting_that_nothing_reads(self) -> None:
        """The service reads each, or it is marked as read outside of it."""
        paths = [path for path in BACKEND.rglob("*.py") if path.name != "settings.py"]
        read = set(re.findall(r"settings\.([a-z_]+)", "".join(path.read_text("utf-8") for path in paths)))
        assert set(Settings.model_fields) - read == _marked("outside")


class TestSources:
    def test_development_needs_nothing(self, problems: Problems) -> None:
        """With no variable at all the service starts for development."""
        assert problems() == []

    def test_empty_counts_as_unset(self, tmp_path: Path) -> None:
        """An empty value is no value: the default holds."""
        settings = load_settings({"BACKEND_PORT": "", "SERVICE_TOKEN": " "}, secrets_dir=tmp_path)
        assert (settings.backend_port, settings.service_token) == (8000, None)

    @pytest.mark.parametrize("by_name", [True, False])
    def test_a_secret_comes_from_a_file(self, tmp_path: Path, *, by_name: bool) -> None:
        """NAME_FILE names a file, or the file NAME lies among the secrets; white space at its end is not the secret."""
        file = tmp_path / ("anywhere" if by_name else "SERVICE_TOKEN")
        file.write_text("s3cret-of-a-file \n")
        settings = load_settings({"SERVICE_TOKEN_FILE": str(file)} if by_name else {}, secrets_dir=tmp_path)
        assert settings.service_token is not None
        assert settings.service_token.get_secret_value() == "s3cret-of-a-file"

    def test_the_variable_wins_over_the_mounted_file(self, tmp_path: Path) -> None:
        """A variable that is set says more than a file that happens to be mounted."""
        (tmp_path / "SERVICE_TOKEN").write_text("from-the-file")
        settings = load_settings({"SERVICE_TOKEN": "from-the-variable"}, secrets_dir=tmp_path)
        assert settings.service_token is not None
        assert settings.service_token.get_secret_value() == "from-the-variable"

    def test_an_unreadable_or_doubled_file_is_a_problem(self, problems: Problems) -> None:
        """A file that is not there, and a secret that is given twice, are said by name."""
        found = problems(SERVICE_TOKEN_FILE="/nowhere", REDIS_PASSWORD="x", REDIS_PASSWORD_FILE="/nowhere")
        assert sorted(_named(found)) == ["REDIS_PASSWORD", "SERVICE_TOKEN"]

    def test_sections_leave_unrelated_secrets_alone(self, tmp_path: Path) -> None:
        """A migration in production needs the database's variables and no others."""
        environ = {
            "ENVIRONMENT": "production",
            "POSTGRES_PASSWORD": PRODUCTION["POSTGRES_PASSWORD"],
            "BACKEND_PORT": "x",
        }
        assert load_settings(environ, sections=["database"], secrets_dir=tmp_path).postgres_user == NAME


class TestProblems:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("BACKEND_PORT", "eighty"),
            ("BACKEND_PORT", "70000"),
            ("METRICS_PORT", "8000"),
            ("DEBUG", "perhaps"),
            ("ENVIRONMENT", "test"),
            ("LOG_LEVEL", "loud"),
            ("RELEASE", "two words"),
            ("CORS_ORIGINS", "*"),
            ("CORS_ORIGINS", "https://a.example, https://b.example/path"),
            ("DATABASE_URL", f"mysql://u:{CANARY}@h/d"),
            ("DATABASE_URL", f"postgresql://u:{CANARY}@h:{CANARY}/d"),
            ("REDIS_URL", f"redis://[{CANARY}"),
            ("DATABASE_URL", f"postgresql://u:{CANARY}@h1:5432,h2:70000/d"),
            ("DATABASE_URL", f"postgresql://u:x@{CANARY}@h/d"),
            ("DATABASE_URL", f"postgresql://u:x#{CANARY}@h/d"),
            ("MIGRATION_DATABASE_URL", f"mysql://u:{CANARY}@h/d"),
            ("DATABASE_URL", f"postgresql://u:{CANARY}@h:{CANARY},h2/d"),
            ("DATABASE_URL", f"postgresql://u:p@h/d?password={CANARY}&sslmode={CANARY}"),
            ("REDIS_URL", f"redis://h?db={CANARY}"),
            ("TRUSTED_PROXIES", "the edge"),
            ("JWT_SECRET_KEY", CANARY * 3),
            ("JWT_SECRET_KEY_PREVIOUS", CANARY * 3),
            ("JWT_ALGORITHM", "none"),
            ("JWT_EXPIRE_MINUTES", "0"),
            ("JWT_REFRESH_DAYS", "0"),
            ("ANONYMOUS_READ", "perhaps"),
            ("FRONTEND_URL", "localhost:8080"),
            ("FRONTEND_URL", "https://app.example.org/page"),
            ("FRONTEND_URL", "*"),
            ("DRAIN_SECONDS", "-1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://u:{CANARY}@collector"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://collector/otlp?token={CANARY}"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "10"),
        ],
    )
    def test_a_wrong_value_is_one_line_without_the_value(self, problems: Problems, name: str, value: str) -> None:
        """A wrong value in any environment gives one line that starts with its name and does not quote it."""
        (problem,) = problems(**{name: value})
        assert problem.startswith(f"{name}: ")
        assert CANARY not in problem
        assert "\n" not in problem

    @pytest.mark.parametrize(
        ("url", "named"),
        [
            ("postgresql://h/d?connect_timeout=0", "connect_timeout"),
            ("postgresql://h/d?channel_binding=require", "channel_binding"),
            ("postgresql://h/d?pgbouncer=true", "pgbouncer"),
            ("postgresql://h/d?schema=public", "schema"),
            ("postgresql://h/d?connection_limit=5", "connection_limit"),
            ("postgresql://h/d?sslmode=bogus", "sslmode"),
            ("postgresql://h/d?sslmode=verify-full&sslrootcert=system", "sslrootcert"),
            ("postgresql://h/d?sslcert=/nowhere/a.pem", "sslcert"),
            ("postgresql://h/d?target_session_attrs=best", "target_session_attrs"),
            ("postgresql:///d?host=h1,h2&port=1,2,3", "port"),
            ("postgresql://h1:5432,/d", "hosts"),
            ("redis://h1,h2", "several hosts"),
            ("redis://h/0?timeout=5", "timeout"),
            ("redis://h/0?ssl_cert_reqs=none", "ssl_cert_reqs"),
            ("redis://h?db=first", "db"),
            ("rediss://h?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs"),
            ("rediss://h?ssl_cert_reqs=perhaps", "ssl_cert_reqs"),
        ],
    )
    def test_a_url_that_could_never_connect_is_refused_by_what_is_wrong(
        self, problems: Problems, url: str, named: str
    ) -> None:
        """The parameter that the driver does not know, or whose value it does not understand, is named."""
        variable = "REDIS_URL" if url.startswith("redis") else "DATABASE_URL"
        (problem,) = problems(**{variable: url})
        assert problem.startswith(f"{variable}: ")
        assert named in problem

    @pytest.mark.needs("openssl")  # makes certificates
    def test_a_url_may_have_what_the_driver_knows(self, problems: Problems, tmp_path: Path) -> None:
        """Certificates, a Unix socket, options, several hosts: none is a problem."""
        ca = certificates(tmp_path)
        for url in (
            f"postgresql://u:p@h:5432/d?sslmode=verify-full&sslrootcert={ca}",
            "postgresql://u@/d?host=/run/postgresql&application_name=a&options=-c%20jit%3Doff",
            "postgresql+asyncpg://h/d?sslmode=require&target_session_attrs=read-write",
            "postgres://u:p@h1:5433,[::1]:5434,h3/d?connect_timeout=10&target_session_attrs=primary",
            "postgresql:///d?host=h1,h2&port=5433,5434",
        ):
            assert problems(DATABASE_URL=url) == []
        for url in (f"rediss://:p@h:6380/0?ssl_ca_certs={ca}", "unix:///run/redis.sock?db=1", "redis://h/0?protocol=3"):
            assert problems(REDIS_URL=url) == []

    def test_production_starts_with_good_secrets(self, problems: Problems) -> None:
        """Good secrets are no problem."""
        assert problems(**PRODUCTION) == []

    @pytest.mark.parametrize(
        ("wrong", "names"),
        [
            ({"DEBUG": "true"}, ["DEBUG"]),
            ({"SERVICE_TOKEN": "Change_This_in_production"}, ["SERVICE_TOKEN"]),
            ({"SERVICE_TOKEN": "short"}, ["SERVICE_TOKEN"]),
            ({"SERVICE_TOKEN_PREVIOUS": "short"}, ["SERVICE_TOKEN_PREVIOUS"]),
            ({"SERVICE_TOKEN_PREVIOUS": PRODUCTION["SERVICE_TOKEN"]}, ["SERVICE_TOKEN_PREVIOUS"]),
            ({"JWT_SECRET_KEY": ""}, ["JWT_SECRET_KEY"]),
            ({"JWT_SECRET_KEY_PREVIOUS": PRODUCTION["JWT_SECRET_KEY"]}, ["JWT_SECRET_KEY_PREVIOUS"]),
            ({"FRONTEND_URL": "http://localhost:8080"}, ["FRONTEND_URL"]),
            ({"SERVICE_TOKEN": "abababababababababab"}, ["SERVICE_TOKEN"]),
            ({"REDIS_PASSWORD": PRODUCTION["POSTGRES_PASSWORD"]}, ["REDIS_PASSWORD"]),
            ({"POSTGRES_OWNER": "board"}, ["POSTGRES_OWNER_PASSWORD"]),
            ({"POSTGRES_OWNER_PASSWORD": PRODUCTION["POSTGRES_PASSWORD"]}, ["POSTGRES_OWNER_PASSWORD"]),
            ({"POSTGRES_OWNER": NAME, "POSTGRES_OWNER_PASSWORD": f"{CANARY}-owner-0123456789"}, ["POSTGRES_OWNER"]),
            ({"DATABASE_URL": "postgresql://u:change_this@h/d"}, ["DATABASE_URL"]),
            ({"REDIS_URL": f"redis://:{PRODUCTION['SERVICE_TOKEN']}@h"}, ["SERVICE_TOKEN"]),
            (dict.fromkeys(PRODUCTION, "") | {"ENVIRONMENT": "staging"}, sorted(PRODUCTION.keys() - {"ENVIRONMENT"})),
        ],
    )
    def test_production_refuses(self, problems: Problems, wrong: dict[str, str], names: list[str]) -> None:
        """Debugging, placeholders, short, repetitive, reused and missing secrets are refused, each by its name."""
        found = problems(**{**PRODUCTION, **wrong})
        assert sorted(_named(found)) == names
        assert CANARY not in "".join(found)

    @pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
    def test_a_key_is_as_long_as_its_hash(self, problems: Problems, algorithm: str, least: int) -> None:
        """Development included: whoever guesses the key signs in as anybody."""
        key = "0123456789" * 7
        given = {"JWT_ALGORITHM": algorithm}
        assert problems(**given, JWT_SECRET_KEY=key[:least]) == []
        (problem,) = problems(**given, JWT_SECRET_KEY=key[: least - 1])
        assert problem.startswith(f"JWT_SECRET_KEY: is shorter than the {least} bytes of {algorithm}; make one with ")

    def test_the_page_is_by_https_outside_development(self, problems: Problems) -> None:
        """There it may be left out, too; in development it may be anything."""
        for url in ("", "https://app.example.org", "https://app.example.org:8443/"):
            assert problems(**PRODUCTION, FRONTEND_URL=url) == []
        assert problems(FRONTEND_URL="http://localhost:8080") == []

    def test_a_url_overrides_what_it_replaces(self, problems: Problems) -> None:
        """With DATABASE_URL and REDIS_URL their single variables are not needed, and not judged."""
        urls = {
            "DATABASE_URL": "postgresql://u@h/d",
            "REDIS_URL": "redis://h",
            "POSTGRES_PASSWORD": "",
            "REDIS_PASSWORD": "",
        }
        assert problems(**{**PRODUCTION, **urls}) == []

    def test_all_problems_come_at_once(self, problems: Problems) -> None:
        """Fields that are malformed and rules that are broken are told in one go."""
        found = problems(**{**PRODUCTION, "BACKEND_PORT": "x", "DEBUG": "true", "SERVICE_TOKEN": "short"})
        assert sorted(_named(found)) == ["BACKEND_PORT", "DEBUG", "SERVICE_TOKEN"]


class TestStart:
    def test_bad_settings_end_the_start_with_2_and_lines(self, tmp_path: Path) -> None:
        """`python -m backend` prints one line for each problem and nothing else: no traceback, no secret."""
        environ = {**PRODUCTION, "BACKEND_PORT": "x", "DEBUG": "true", "DATABASE_URL": f"ftp://u:{CANARY}@h/d"}
        run = subprocess.run(
            [sys.executable, "-m", "backend"], env=environ, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stdout) == (2, "")
        assert sorted(_named(run.stderr.splitlines())) == ["BACKEND_PORT", "DATABASE_URL", "DEBUG"]
        assert CANARY not in run.stderr
