"""docs/12-recipes.md does what it says; tests/deploy/test_recipes.py ships the result."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from pydantic import SecretStr

from backend.database import Database
from backend.metrics import Metrics
from backend.settings import load_settings
from pipeline.config.secrets import SECRET_FILES
from tests.backend.servers import Postgres, postgres
from tests.notes import replace_module
from tests.recipes import RECIPES, Monitor, follow, monitor

TOKEN = "a-token-that-the-monitor-knows"
PERIOD_SECONDS = 0.02
MADE = {".env.example", "docs/settings.md", "docker-compose.yml", "k8s/base/backend.yaml", "k8s/base/settings.env"}


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the pipeline in `root`."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)


def stale(root: Path) -> set[str]:
    """Return the files that `nox -s lint` says do not agree with the settings."""
    checked = run(root, "settings")
    found = set(re.findall(r"(\S+) does not agree with backend/settings\.py", checked.stderr))
    assert checked.returncode == (1 if found else 0), checked.stderr
    return found


@pytest.fixture(name="copy")
def _copy(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "copy"))


class TestASetting:
    def test_is_in_every_file_after_one_command(self, copy: Path) -> None:
        """Lint names each file that lacks it until `nox -s settings -- --write` ran; `init` adds its line to `.env`."""
        assert run(copy, "init").returncode == 0
        before = dotenv_values(copy / ".env")
        follow(copy, "A setting")
        assert stale(copy) == MADE - {"k8s/base/backend.yaml"}
        assert run(copy, "settings", "--write").returncode == 0
        assert stale(copy) == set()
        assert run(copy, "init").returncode == 0
        assert dotenv_values(copy / ".env") == {**before, "PULSE_URL": "", "PULSE_SECONDS": "60.0"}

        compose = yaml.safe_load((copy / "docker-compose.yml").read_text("utf-8"))
        assert compose["services"]["backend"]["environment"]["PULSE_SECONDS"] == "${PULSE_SECONDS:-60.0}"
        assert dotenv_values(copy / "k8s/base/settings.env")["PULSE_SECONDS"] == "60.0"


class TestASecret:
    def test_is_in_every_file_after_one_command(self, copy: Path) -> None:
        """Of Compose and Kubernetes; its line in `.env` is for people to fill in."""
        follow(copy, "A secret")
        assert stale(copy) == MADE - {"k8s/base/settings.env"}
        assert run(copy, "settings", "--write").returncode == 0
        assert stale(copy) == set()
        assert run(copy, "init").returncode == 0
        assert dotenv_values(copy / ".env")["PULSE_TOKEN"] == ""

        compose = yaml.safe_load((copy / "docker-compose.yml").read_text("utf-8"))
        assert "PULSE_TOKEN" in compose["services"]["backend"]["secrets"]
        assert compose["secrets"]["PULSE_TOKEN"] == {"file": f"{SECRET_FILES}/PULSE_TOKEN"}
        assert (copy / ".slipway/compose/secrets/PULSE_TOKEN").exists()
        base = (copy / "k8s/base/backend.yaml").read_text("utf-8")
        assert re.search(r"- secret: \{name: \S+, items: \[\{key: PULSE_TOKEN, path: PULSE_TOKEN\}\]\}", base)

    def test_is_demanded_by_the_plan(self, copy: Path) -> None:
        """Before anything is touched, by its name, with the place and the command."""
        assert run(copy, "init").returncode == 0  # with a free port: the service itself may run here, on the usual one
        follow(copy, "A secret")
        refused = run(copy, "deploy", "--dry-run")
        assert refused.returncode == 2, refused.stderr
        [line] = [line for line in refused.stderr.splitlines() if "PULSE_TOKEN" in line]
        assert ".env: PULSE_TOKEN: is missing; `nox -s init` adds its line to .env, for you to fill in" in line
        assert not (copy / ".slipway/local/artifacts").exists()

    def test_may_be_empty_in_development_alone(self, copy: Path) -> None:
        """A migration reads the database's settings and no others: it does not ask for it."""
        follow(copy, "A secret")
        code = """if True:
            from backend.settings import SettingsError, load_settings
            from pipeline.config.settings import needed_secrets
            production = {"ENVIRONMENT": "production", "POSTGRES_PASSWORD": "some-password-of-a-database"}
            assert load_settings({}).pulse_token.get_secret_value() == "", "development"
            assert load_settings(production, sections=["database"]), "migrations"
            try:
                load_settings(production)
            except SettingsError as error:
                assert "PULSE_TOKEN: is missing; `nox -s init` adds its line to .env" in str(error), "production"
            else:
                raise AssertionError("production")
            assert "PULSE_TOKEN" in needed_secrets(), "releases"
        """
        done = subprocess.run([sys.executable, "-c", code], cwd=copy, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


class TestADependency:
    def test_is_one_of_the_packages_that_the_service_carries(self, copy: Path) -> None:
        """`nox -s lock` needs an index: tests/deploy/test_recipes.py runs it."""
        before = tomllib.loads((copy / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
        follow(copy, "A dependency")
        after = tomllib.loads((copy / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
        assert {**before, "backend": ["httpx2>=2.16", *before["backend"]]} == after


@pytest.fixture(name="worker")
def _worker(copy: Path) -> ModuleType:
    """Return the module of the worker, as the page has it."""
    replace_module(copy)  # whatever the service's own domain looks like
    follow(copy, *RECIPES)
    assert (
        "async with pulse(app.state.settings, database):\n        yield\n" in (copy / "backend/domain.py").read_text()
    )
    spec = importlib.util.spec_from_file_location("pulse", copy / "backend/pulse.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="listening")
def _listening() -> Iterator[Monitor]:
    with monitor() as one:
        yield one


@asynccontextmanager
async def replica(worker: ModuleType, environ: Mapping[str, str], url: str, folder: Path) -> AsyncIterator[None]:
    """Run the worker as a replica does, on the database of `environ`."""
    settings = load_settings(environ, secrets_dir=folder)
    given: Any = SimpleNamespace(pulse_url=url, pulse_seconds=PERIOD_SECONDS, pulse_token=SecretStr(TOKEN))
    database = Database(settings, Metrics(settings.release))
    await database.open()
    try:
        async with worker.pulse(given, database):
            yield
    finally:
        await database.close()


async def more(listening: Monitor, count: int = 3) -> None:
    """Wait for `count` more reports, for half a minute."""
    wanted = len(listening.tokens) + count
    async with asyncio.timeout(30):
        while len(listening.tokens) < wanted:  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.01)


class TestABackgroundWorker:
    async def test_works_with_its_secret(
        self, worker: ModuleType, listening: Monitor, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """Again and again, as long as the service runs, and not any longer."""
        async with replica(worker, environ, listening.url, tmp_path):
            await more(listening)
        assert set(listening.tokens) == {f"Bearer {TOKEN}"}
        ended = len(listening.tokens)
        await asyncio.sleep(5 * PERIOD_SECONDS)
        assert len(listening.tokens) == ended

    async def test_of_two_replicas_one_works_at_a_time(
        self, worker: ModuleType, listening: Monitor, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """The advisory lock; a replica that is gone leaves the work to the other one."""
        listening.seconds = 2 * PERIOD_SECONDS
        async with replica(worker, environ, listening.url, tmp_path):
            async with replica(worker, environ, listening.url, tmp_path):
                await more(listening, 10)
                assert listening.most == 1  # a report that is broken off on the way out may be beside the next one
            await more(listening)

    async def test_survives_a_database_that_is_away(
        self, worker: ModuleType, listening: Monitor, tmp_path: Path
    ) -> None:
        """Killed and started again: the next round after that works."""
        with postgres() as own:
            async with replica(worker, own.environ, listening.url, tmp_path):
                await more(listening)
                await asyncio.to_thread(own.kill)
                await _silence(listening)
                await asyncio.to_thread(Postgres.start, own)
                await more(listening)

    async def test_survives_what_it_asks(
        self, worker: ModuleType, listening: Monitor, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """A monitor that fails for a while."""
        async with replica(worker, environ, listening.url, tmp_path):
            await more(listening)
            listening.open = False
            await _silence(listening)
            listening.open = True
            await more(listening)

    async def test_ends_at_once(
        self, worker: ModuleType, listening: Monitor, environ: dict[str, str], tmp_path: Path
    ) -> None:
        """In the middle of its work, when the service has drained."""
        listening.seconds = 2.5
        loop = asyncio.get_running_loop()
        async with replica(worker, environ, listening.url, tmp_path):
            async with asyncio.timeout(30):
                while not listening.most:  # noqa: ASYNC110 - a thread changes it
                    await asyncio.sleep(0.01)
            began = loop.time()
        assert loop.time() - began < 2


async def _silence(listening: Monitor) -> None:
    """Wait until no report comes for a while."""
    async with asyncio.timeout(30):
        before = -1
        while len(listening.tokens) != before:
            before = len(listening.tokens)
            await asyncio.sleep(10 * PERIOD_SECONDS)
