"""A copy of the migrations, an empty database, and the command that brings the two together."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from backend.migrations.__main__ import main
from backend.migrations.plan import HERE
from tests.services import Services, psql

__all__ = ["Done", "Run", "add", "query"]

EXPAND = '''"""{message}"""
from alembic import op
revision = "{revision}"
down_revision = "{down}"
contract_after = None
transactional = {transactional}
def upgrade():
    {body}
'''


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


Run: TypeAlias = Callable[..., Done]


@pytest.fixture(name="database")
def _database(services: Services, worker_id: str) -> Iterator[str]:
    """An empty database, without any migration."""
    name = f"migrations_{worker_id}"
    psql(services, "postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    psql(services, "postgres", f"CREATE DATABASE {name}")
    yield name
    psql(services, "postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="code")
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations up to the first, to which a test adds its own (a team's 0002 is none of its matter)."""
    later = shutil.ignore_patterns("__pycache__", "000[2-9]_*", "00[1-9]?_*", "0[1-9]??_*")
    shutil.copytree(HERE, tmp_path / "migrations", ignore=later)
    monkeypatch.setattr("backend.migrations.plan.HERE", tmp_path / "migrations")
    return tmp_path / "migrations/versions"


@pytest.fixture(name="run")
def _run(
    services: Services, database: str, code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command, in this process: starting Python and importing SQLAlchemy takes a second."""
    for name, value in services.environ(database).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Done:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def add(code: Path, number: int, body: str, *, transactional: bool = True) -> None:
    """Write migration NUMBER, whose upgrade() is BODY."""
    text = EXPAND.format(
        message=f"step {number}",
        revision=f"{number:04d}",
        down=f"{number - 1:04d}",
        body=body,
        transactional=transactional,
    )
    (code / f"{number:04d}_step.py").write_text(text)


def query(services: Services, database: str, statement: str) -> Any:
    """The first value of STATEMENT."""

    async def run() -> Any:
        connection = await asyncpg.connect(
            host=services.postgres_host,
            port=services.postgres_port,
            user=services.postgres_user,
            password=services.postgres_password,
            database=database,
        )
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())
