"""The two roles that docker/postgres/init-scripts makes, on a real PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

import asyncpg
import pytest

from pipeline.config.logins import owner_of
from tests.services import ROOT, Services, psql

SCRIPT = ROOT / "docker/postgres/init-scripts/10-service.sh"


@pytest.fixture(name="roles")
def _roles(services: Services, worker_id: str) -> Iterator[tuple[str, str]]:
    """The owner and the other one, by the statements of the script."""
    owner = f"init_{worker_id}"
    values = {"role": owner, "other": f"{owner}-other", "database": owner, "password": "a-password-of-tests"}
    statements = re.findall(r"^(?:CREATE|ALTER) (?:ROLE|DATABASE) .*;$", SCRIPT.read_text(), re.MULTILINE)
    assert len(statements) == 4
    for statement in statements:
        quoted = re.sub(r":\"(\w+)\"", lambda found: f'"{values[found[1]]}"', statement)
        psql(services, "postgres", re.sub(r":'(\w+)'", lambda found: f"'{values[found[1]]}'", quoted))
    yield owner, f"{owner}-other"
    psql(services, "postgres", f"DROP DATABASE {owner} WITH (FORCE)")
    psql(services, "postgres", f'DROP ROLE "{owner}-other"')
    psql(services, "postgres", f"DROP ROLE {owner}")


async def test_the_other_role_is_the_owner_from_its_login_on(services: Services, roles: tuple[str, str]) -> None:
    """What its migrations make belongs to the owner, who can change it when the roles were swapped again."""
    owner, other = roles
    for role, statement in ((other, "CREATE TABLE made (id int)"), (owner, "ALTER TABLE made ADD COLUMN more int")):
        connection = await asyncpg.connect(
            host=services.postgres_host,
            port=services.postgres_port,
            user=role,
            password="a-password-of-tests",
            database=owner,
        )
        await connection.execute(statement)
        found = await connection.fetchrow(
            "SELECT session_user, current_user, tableowner FROM pg_tables WHERE tablename = 'made'"
        )
        await connection.close()
        assert found is not None
        assert tuple(found) == (role, owner, owner)


@pytest.mark.parametrize("role", ["shop", "shop-other", "shop-app-1", "shop-app-2"])
def test_each_is_known_by_the_owners_name(role: str) -> None:
    """A deploy tells PostgreSQL's container that name alone, so that a rotation makes no other container."""
    assert owner_of(role) == "shop"
