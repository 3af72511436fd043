"""`python -m backend.rights` makes the roles of the service's database and gives them their rights, as a superuser.

Beside the service's settings it reads POSTGRES_SUPERUSER (`postgres` by default) and POSTGRES_SUPERUSER_PASSWORD, which
may be in a file. The service's login gets POSTGRES_PASSWORD, unless it has a password already; POSTGRES_OWNER gets
POSTGRES_OWNER_PASSWORD, which differs from what PostgreSQL's first start gave it. It may run at any time, and again. A
database that others manage is left alone.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from backend.beside import BAD_USAGE, FAILED
from backend.rights.names import Names
from backend.rights.roles import ensure, set_password
from backend.rights.statements import retirement
from backend.settings import Settings, SettingsError, load_settings

__all__ = ["main"]

SUPERUSER, PASSWORD = "POSTGRES_SUPERUSER", "POSTGRES_SUPERUSER_PASSWORD"
SECRETS = Path("/run/secrets")
SECONDS = 10.0


def main(environ: Mapping[str, str] | None = None) -> int:
    """Do it. Return the exit code: 0 done, 1 not done, 2 bad settings."""
    environ = os.environ if environ is None else environ
    try:
        settings = load_settings(environ, sections=["database"])
        if settings.database_url is not None:
            sys.stderr.write("rights: the database is managed by others (DATABASE_URL), and is left alone\n")
            return 0
        asyncio.run(_ensure(settings, environ.get(SUPERUSER) or "postgres", _password(environ)))
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_USAGE
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        sys.stderr.write(f"rights: the database: {' '.join(str(error).split()) or type(error).__name__}\n")
        return FAILED
    return 0


def _password(environ: Mapping[str, str]) -> str | None:
    """Return the superuser's password; None where there is none, for a socket that asks for none."""
    path = Path(environ.get(f"{PASSWORD}_FILE") or SECRETS / PASSWORD)
    return environ.get(PASSWORD) or (path.read_text(encoding="utf-8").strip() if path.exists() else None)


async def _ensure(settings: Settings, superuser: str, password: str | None) -> None:
    own, owners = settings.postgres_password, settings.postgres_owner_password
    names = Names.of(settings.postgres_owner or settings.postgres_user)
    connection = await asyncpg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=superuser,
        password=password,
        database=settings.postgres_db,
        timeout=SECONDS,
    )
    try:
        await ensure(connection, names, {settings.postgres_user: own.get_secret_value()} if own else {})
        if settings.postgres_owner and owners:
            await set_password(connection, settings.postgres_owner, owners.get_secret_value())
            # The owner's other login has the password of the service, too.
            await connection.execute(retirement({names.owner, names.other}.difference({settings.postgres_owner}).pop()))
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
