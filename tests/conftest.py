"""Fixtures for every test. Nothing starts before a test asks for it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path

import httpx2
import pytest
import redis
import structlog
from fastapi import FastAPI

from backend.app import create_app
from backend.logs import configure_logging
from backend.settings import Settings, load_settings
from pipeline.config.redis_users import rules
from tests.containers import build_image, pull_image, running_image
from tests.notes import domain as notes_domain
from tests.notes import replace_module
from tests.services import TEMPLATE, Broker, Services, ask, choose, psql
from tests.tools import need

TOKEN = "a-service-token-of-tests"
REDIS_USER, REDIS_PASSWORD = "service", "a-password-of-tests"
KEY = "a-key-of-tests-that-is-64-bytes-long-so-that-it-suits-each-hash!"
IMAGE = "SLIPWAY_TEST_IMAGE"
BROKER = pytest.StashKey[Broker]()
ROOT = Path(__file__).parents[1]

# Every table but the migrations' own, whatever the service is about.
EMPTY = """
DO $$ BEGIN
    EXECUTE (
        SELECT 'TRUNCATE ' || string_agg(format('%I.%I', schemaname, tablename), ', ') || ' RESTART IDENTITY'
        FROM pg_tables
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
          AND tablename NOT IN ('alembic_version', 'alembic_history')
    );
END $$
"""

AddRow = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--image` and `--pushed`, which test an image instead of the service in this process."""
    parser.addoption("--image", action="store_true", help="build the production image, and test that")
    parser.addoption("--pushed", metavar="REPOSITORY@DIGEST", help="the same of an image that was pushed")


def pytest_configure(config: pytest.Config) -> None:
    """Let the first process of the session have the servers; workers of xdist ask it for them."""
    if not hasattr(config, "workerinput"):
        pushed = config.getoption("--pushed")
        if pushed or config.getoption("--image"):
            os.environ[IMAGE] = pull_image(pushed) if pushed else build_image()
            os.environ["SLIPWAY_TEST_SERVICES"] = "docker"  # a container cannot reach the sockets of embedded servers
        config.stash[BROKER] = Broker(choose())


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark with `stores` what asks for the servers: what differs where they are embedded."""
    for item in items:
        if "services" in getattr(item, "fixturenames", ()):
            item.add_marker("stores")


def pytest_report_header(config: pytest.Config) -> str:
    """Say which servers the tests use."""
    if BROKER not in config.stash:  # a worker of xdist, whose header nobody sees
        return ""
    kind = config.stash[BROKER].kind
    how = "containers" if kind == "docker" else "embedded (no container engine answers, or SLIPWAY_TEST_SERVICES)"
    tested = f"; service: the image {os.environ[IMAGE]}" if IMAGE in os.environ else ""
    return f"services: PostgreSQL and Redis, {how}{tested}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers, whatever happened."""
    broker = config.stash.get(BROKER, None)
    if broker is not None:
        broker.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs("openssl")`: see `need`."""
    for mark in item.iter_markers("needs"):
        need(*mark.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests filled, whichever process they ran in."""
    tables: dict[str, list[str]] = {}
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        for name, row in report.user_properties:
            tables.setdefault(name, []).append(str(row))
    for name, rows in tables.items():
        terminalreporter.section(name)
        for row in rows:
            terminalreporter.write_line(row)


@pytest.fixture
def add_row(record_property: Callable[[str, object], None]) -> AddRow:
    """Return a function that adds a line to a table, printed at the end of the run."""
    return record_property


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what a clone would hold, uncommitted work included, as of the start of the tests."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout  # fmt: skip
    folder = tmp_path_factory.mktemp("template")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def services() -> Services:
    """Return the session's PostgreSQL and Redis."""
    return ask()


@pytest.fixture(scope="session")
def worker_database(services: Services, worker_id: str) -> Iterator[str]:
    """Yield the name of a migrated database of this worker's own."""
    # A copy of the template takes 30 ms.
    name = f"test_{worker_id}"
    psql(services, "postgres", f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield name
    psql(services, "postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database(services: Services, worker_database: str) -> str:
    """Return the name of the worker's database, migrated and empty."""
    psql(services, worker_database, EMPTY)
    return worker_database


@pytest.fixture
def redis_url(services: Services, worker_id: str) -> str:
    """Return the URL of an empty Redis database of this worker's own, for a user with the rights of the service."""
    with closing(redis.Redis.from_url(redis_address(services, worker_id))) as client:
        client.flushdb()
        on, *allowed = rules()
        client.execute_command("ACL", "SETUSER", REDIS_USER, on, f">{REDIS_PASSWORD}", *allowed)  # type: ignore[no-untyped-call]
    return redis_address(services, worker_id, user=f"{REDIS_USER}:{REDIS_PASSWORD}@")


@pytest.fixture
def redis_admin_url(services: Services, worker_id: str, redis_url: str) -> str:
    """Return the URL of the same database, for a user who may do anything there."""
    del redis_url
    return redis_address(services, worker_id)


@pytest.fixture
def environ(services: Services, empty_database: str, redis_url: str) -> dict[str, str]:
    """Return the environment of a service on an empty database and an empty Redis."""
    return environment(services, empty_database, redis_url)


@pytest.fixture(scope="session", name="notes_root")
def _notes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("notes")
    shutil.copytree(ROOT / "backend", root / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    replace_module(root)
    return root


@pytest.fixture
def notes_environ(environ: dict[str, str], notes_root: Path) -> dict[str, str]:
    """Return the environment of a service that is a process and serves the tests' notes."""
    return {**environ, "PYTHONPATH": str(notes_root), "PYTHONSAFEPATH": "1"}  # instead of the working folder


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a service in this process serve the tests' notes, whatever its own domain is."""
    monkeypatch.setattr("backend.app.domain", notes_domain)


@pytest.fixture
def settings(environ: dict[str, str], tmp_path: Path) -> Iterator[Settings]:
    """Yield the settings of that environment, with logging set up by them to the stdout of this test."""
    settings = load_settings(environ, secrets_dir=tmp_path)
    configure_logging(settings)
    yield settings
    forget_logging()


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """Yield the service, started in this process."""
    if IMAGE in os.environ:
        pytest.skip("looks inside of the service: nothing for an image")
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
def container(services: Services, worker_database: str, worker_id: str) -> Iterator[str]:
    """Run the image as a container on this worker's database; yield its base address."""
    with running_image(
        os.environ[IMAGE], environment(services, worker_database, redis_address(services, worker_id))
    ) as base:
        yield base


@pytest.fixture
def caller(request: pytest.FixtureRequest, environ: dict[str, str]) -> Callable[[], httpx2.AsyncClient]:
    """Return a function that makes callers of the service under test, whose database and Redis start empty."""
    del environ
    if IMAGE in os.environ:
        base = request.getfixturevalue("container")
        # The container remembers who asked how often: each test is a client by itself, with limits of its own.
        client = {"X-Forwarded-For": str(IPv4Address("10.0.0.0") + secrets.randbelow(2**24))}
        return lambda: httpx2.AsyncClient(base_url=base, headers=client)
    app = request.getfixturevalue("app")
    return lambda: asgi_client(app)


@pytest.fixture
async def client(caller: Callable[[], httpx2.AsyncClient]) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a caller without a token."""
    async with caller() as client:
        yield client


@pytest.fixture
async def writer(caller: Callable[[], httpx2.AsyncClient]) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a caller with the token of the service."""
    async with caller() as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client


def forget_logging() -> None:
    """Undo `configure_logging`, whose output ends with the test."""
    structlog.reset_defaults()
    for handler in logging.getLogger().handlers[:]:
        if type(handler) is logging.StreamHandler:  # ours; pytest's are subclasses
            logging.getLogger().removeHandler(handler)


def redis_address(services: Services, worker_id: str, user: str = "") -> str:
    """Return the URL of a worker's Redis database, for the `user` (`name:password@`), by default one who may do all."""
    number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    separator = "?db=" if services.redis_url.startswith("unix:") else "/"
    scheme, _, place = services.redis_url.partition("://")
    return f"{scheme}://{user}{place}{separator}{number % 16}"


def environment(services: Services, database: str, redis_url: str) -> dict[str, str]:
    """Return the environment of a service on `database` and the Redis at `redis_url`."""
    return {
        **services.environ(database),
        "REDIS_URL": redis_url,
        "SERVICE_TOKEN": TOKEN,
        "JWT_SECRET_KEY": KEY,
        "LOG_LEVEL": "DEBUG",
        "DRAIN_SECONDS": "0",
    }


def asgi_client(app: FastAPI) -> httpx2.AsyncClient:
    """Return a caller of `app` in this process. Errors of the service come back as answers, as over a socket."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://service")
