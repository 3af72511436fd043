"""Migrations of the tests' own, an empty database, and the command that brings the two together."""

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
from tests.conftest import forget_logging
from tests.services import Services, psql

__all__ = ["Done", "Run", "add", "query"]

EXPAND = '''"""{message}"""
from alembic import op
revision = "{revision}"
down_revision = {down!r}
contract_after = {contract_after!r}
destroys = {destroys!r}
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


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the service's package and one migration, of these tests; those of the service do not matter."""
    shutil.copytree(HERE.parent, tmp_path / "backend", ignore=shutil.ignore_patterns("__pycache__", "[0-9]*_*.py"))
    monkeypatch.setattr("backend.migrations.plan.HERE", tmp_path / "backend/migrations")
    add(tmp_path / "backend/migrations/versions", 1, 'op.execute("CREATE TABLE board (id bigint, notes text)")')
    return tmp_path


@pytest.fixture(name="code")
def _code(root: Path) -> Path:
    """The folder of its migrations, to which a test adds."""
    return root / "backend/migrations/versions"


@pytest.fixture(name="run")
def _run(
    services: Services, database: str, code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """The command, in this process: starting Python and importing SQLAlchemy takes a second."""
    for name, value in services.environ(database).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Done:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Done(code, out, err)

    yield run
    forget_logging()


def add(
    code: Path,
    number: int,
    body: str,
    *,
    transactional: bool = True,
    contract_after: str | None = None,
    destroys: str | None = None,
) -> None:
    """Write migration NUMBER, whose upgrade() is BODY."""
    text = EXPAND.format(
        message=f"step {number}",
        revision=f"{number:04d}",
        down=f"{number - 1:04d}" if number > 1 else None,
        body=body,
        transactional=transactional,
        contract_after=contract_after,
        destroys=destroys,
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
