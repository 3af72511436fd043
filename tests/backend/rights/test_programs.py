"""The two programs: one that connects as the superuser, and one that prints SQL for psql."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backend.rights.__main__ import main
from tests.backend.rights.conftest import PASSWORD, Server
from tests.services import ROOT


def printed(given: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m backend.rights.sql` with `given` as its standard input."""
    text = given if isinstance(given, str) else json.dumps(given)
    # Isolated: it needs nothing but the standard library.
    run = "import runpy; runpy.run_module('backend.rights.sql', run_name='__main__')"
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; {run}"
    command = [sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


class TestSql:
    async def test_is_what_the_other_program_does(self, server: Server) -> None:
        """In one transaction; no password is in it, and none that is there is changed but those that have to be."""
        login, other = server.names.logins
        given = {"login": server.names.owner, "database": server.database, "passwords_if_none": {login: PASSWORD}}
        done = printed({**given, "passwords": {server.names.owner: "another-password"}})
        assert (done.returncode, done.stderr) == (0, "")
        assert not [secret for secret in (PASSWORD, "another-password") if secret in done.stdout]
        for _ in range(2):
            await server.root.execute(done.stdout)
        app = await server.login(login)
        assert await app.fetchval("SELECT count(*) FROM old") == 0
        await app.close()
        await (await server.login(server.names.owner, "another-password")).close()
        again = printed({**given, "passwords_if_none": {login: "a-later-password", other: "a-later-password"}})
        await server.root.execute(again.stdout)
        await (await server.login(login)).close()
        await (await server.login(other, "a-later-password")).close()

    async def test_takes_the_password_of_a_login_that_nobody_uses(self, server: Server) -> None:
        """The owner's second one, of earlier versions; one that is in use keeps it."""
        other = f"{server.names.owner}-other"
        await server.root.execute(f'CREATE ROLE "{other}" LOGIN PASSWORD \'{PASSWORD}\' IN ROLE "{server.names.owner}"')
        sql = printed({"login": server.names.owner, "database": server.database, "retired": [other]}).stdout
        try:
            session = await server.login(other)
            await server.root.execute(sql)
            await (await server.login(other)).close()
            await session.close()
            await server.root.execute("SELECT pg_sleep(0.2)")
            await server.root.execute(sql)
            with pytest.raises(asyncpg.InvalidPasswordError):
                await server.login(other)
        finally:
            await server.root.execute(f'DROP ROLE "{other}"')

    async def test_gives_a_login_a_password_and_takes_it(self, server: Server) -> None:
        """Of two that take turns, the service uses one; the other lets nobody in."""
        place = {"login": server.names.owner, "database": server.database}
        login = server.names.logins[1]
        given = printed({**place, "passwords": {login: "canary-of-the-login"}}).stdout
        assert "canary" not in given
        await server.root.execute(given)
        await (await server.login(login, "canary-of-the-login")).close()
        await server.root.execute(printed({**place, "passwords": {login: None}}).stdout)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await server.login(login, "canary-of-the-login")

    @pytest.mark.parametrize(
        "given",
        [
            "",
            "[]",
            {"login": "shop"},
            {"login": "s" * 60, "database": "shop"},
            {"login": "shop", "database": "shop", "passwords": {"shop": "a\tsecret"}},
        ],
    )
    def test_bad_input_is_one_line_without_a_value(self, given: object) -> None:
        """And exit code 2; nothing is printed."""
        done = printed(given)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "secret" not in done.stderr


class TestProgram:
    def environ(self, server: Server, **more: str) -> dict[str, str]:
        """The settings of the service, and the superuser's login."""
        services = server.services
        return {
            **services.environ(server.database),
            "POSTGRES_USER": server.names.logins[0],
            "POSTGRES_PASSWORD": PASSWORD,
            "POSTGRES_OWNER": server.names.owner,
            "POSTGRES_OWNER_PASSWORD": "another-password-of-tests",
            "POSTGRES_SUPERUSER": services.postgres_user,
            "POSTGRES_SUPERUSER_PASSWORD": services.postgres_password,
            **more,
        }

    async def test_makes_the_logins_that_the_settings_name(self, server: Server, tmp_path: Path) -> None:
        """The superuser's password may be in a file. The owner's differs from then on; its second login has none."""
        (tmp_path / "password").write_text(f"{server.services.postgres_password}\n")
        environ = self.environ(
            server, POSTGRES_SUPERUSER_PASSWORD="", POSTGRES_SUPERUSER_PASSWORD_FILE=str(tmp_path / "password")
        )
        other = server.names.other
        await server.root.execute(f"CREATE ROLE \"{other}\" LOGIN PASSWORD '{PASSWORD}'")
        try:
            assert await asyncio.to_thread(main, environ) == await asyncio.to_thread(main, environ) == 0
            for login in (other, server.names.owner):
                with pytest.raises(asyncpg.InvalidPasswordError):
                    await server.login(login)
        finally:
            await server.root.execute(f'DROP ROLE "{other}"')
        app = await server.login(server.names.logins[0])
        await app.execute("INSERT INTO old (text) VALUES ('one')")
        await app.close()
        await (await server.login(server.names.owner, "another-password-of-tests")).close()

    async def test_says_in_one_line_why_it_could_not(self, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a password in it."""
        environ: dict[str, Any] = self.environ(server, POSTGRES_DB="nothing")
        assert await asyncio.to_thread(main, environ) == 1
        said = capsys.readouterr().err
        assert 'rights: the database: database "nothing" does not exist' in said
        assert server.services.postgres_password not in said

    def test_leaves_a_managed_database_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Whose roles are made by whoever manages it."""
        assert main({"DATABASE_URL": "postgresql://nobody@nowhere/shop"}) == 0
        assert "managed by others" in capsys.readouterr().err
