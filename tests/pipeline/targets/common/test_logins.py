"""The password of a login, as PostgreSQL itself keeps it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import partial

import asyncpg
import pytest

from pipeline.targets.common.logins import other_login, password_sql, verifier
from tests.services import Services, psql


@pytest.fixture(name="role")
def _role(services: Services, worker_id: str) -> Iterator[str]:
    name = f'login "{worker_id}"'
    quoted = name.replace('"', '""')
    psql(services, "postgres", f'CREATE ROLE "{quoted}" LOGIN')
    yield name
    psql(services, "postgres", f'DROP ROLE "{quoted}"')


def test_a_verifier_is_that_of_the_standard() -> None:
    """The example of RFC 7677: server and client agree on these keys."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    keys = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    assert verifier("pencil", salt) == f"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${keys}"


def test_the_statement_shows_no_password() -> None:
    """Whoever reads it cannot log in with it."""
    statement = password_sql("board", "canary-of-the-login")
    assert "canary" not in statement
    assert statement.startswith('ALTER ROLE "board" PASSWORD \'SCRAM-SHA-256$4096:')
    assert password_sql('a"b', None) == 'ALTER ROLE "a""b" PASSWORD NULL;\n'


async def test_the_server_takes_it(services: Services, role: str) -> None:
    """It keeps what it was given, and no password once that is taken away."""
    connect = partial(
        asyncpg.connect, host=services.postgres_host, port=services.postgres_port, database="postgres", timeout=30
    )
    connection = await connect(user=services.postgres_user, password=services.postgres_password)
    kept = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
    try:
        statement = password_sql(role, "a password, of any length")
        await connection.execute(statement)
        assert f"'{await connection.fetchval(kept, role)}'" in statement
        let_in = await connect(user=role, password="a password, of any length")
        await let_in.close()
        await connection.execute(password_sql(role, None))
        assert await connection.fetchval(kept, role) is None
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("one", "other"), [("board", "board-other"), ("board-app-1", "board-app-2"), ("a-app-1-other", "a-app-1")]
)
def test_two_logins_take_turns(one: str, other: str) -> None:
    """Also where a name looks like one of the others."""
    assert other_login(one) == other
    assert other_login(other_login(other)) == other
