"""The service's role may read and write rows, and nothing else; each other role may do what it is for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from backend.rights.names import Names
from backend.rights.roles import ensure, ensure_rights, set_password
from tests.backend.rights.conftest import OLD, PASSWORD, Connection, Server

REFUSED = {
    "a table": "CREATE TABLE mine (id int)",
    "a temporary table": "CREATE TEMPORARY TABLE mine (id int)",
    "a schema": "CREATE SCHEMA mine",
    "a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "an index": "CREATE INDEX ON old (text)",
    "a column": "ALTER TABLE old ADD COLUMN mine int",
    "a dropped table": "DROP TABLE old",
    "a truncated table": "TRUNCATE old",
    "the owner's role": 'SET ROLE "{owner}"',
    "another role": "CREATE ROLE mine",
    "its own rights": 'ALTER ROLE "{login}" CREATEROLE',
    "another's password": """ALTER ROLE "{other}" PASSWORD 'mine'""",
    "another schema": "SELECT * FROM closed.things",
    "a superuser's function": "SELECT closed.secret()",
    "a function that only superusers may call": "SELECT pg_read_file('PG_VERSION')",
    "a program of the server": "COPY old (text) FROM PROGRAM 'id'",
    "a setting of the server": "ALTER SYSTEM SET work_mem = '1MB'",
    "passwords": "SELECT rolpassword FROM pg_authid",
}


@pytest.fixture(name="app")
async def _app(server: Server) -> AsyncIterator[Connection]:
    """A session of the service's first login."""
    await ensure(server.root, server.names, server.passwords)
    connection = await server.login(server.names.logins[0])
    yield connection
    await connection.close()


class TestTheService:
    """What its login may do."""

    async def test_it_reads_and_writes_what_was_there_before(self, app: Connection) -> None:
        """Tables, views, sequences and functions of the owner, in each of its schemas."""
        await app.execute("INSERT INTO old (text) VALUES ('one'); UPDATE old SET text = 'two'")
        assert await app.fetchval("SELECT text FROM olds") == "two"
        await app.execute("DELETE FROM old")
        assert await app.fetchval("SELECT nextval('old_numbers') + old_answer()") == 43
        assert await app.fetchval("SELECT count(*) FROM old_place.things") == 0

    async def test_it_reads_and_writes_what_the_owner_makes_later(self, app: Connection, server: Server) -> None:
        """A new table, sequence, function and schema need no GRANT."""
        owner = await server.login(server.names.owner)
        await owner.execute(OLD.replace("old", "new"))
        await owner.close()
        await app.execute("INSERT INTO new (text) VALUES ('one'); UPDATE new SET text = 'two'; DELETE FROM new")
        assert await app.fetchval("SELECT nextval('new_numbers') + new_answer()") == 43
        assert (
            await app.fetchval("SELECT count(*) FROM news")
            + await app.fetchval("SELECT count(*) FROM new_place.things")
            == 0
        )

    @pytest.mark.parametrize("what", REFUSED)
    async def test_it_gets_nothing_else(self, app: Connection, server: Server, what: str) -> None:
        """DDL, another schema, what superusers may."""
        login, other = server.names.logins
        statement = REFUSED[what].format(owner=server.names.owner, login=login, other=other)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)

    async def test_its_search_path_is_fixed(self, app: Connection) -> None:
        """A schema of its own name would be before `public` otherwise."""
        assert await app.fetchval("SHOW search_path") == "public"

    async def test_both_logins_may_do_the_same(self, app: Connection, server: Server) -> None:
        """They are in one group, which nobody logs in as."""
        other = await server.login(server.names.logins[1])
        await other.execute("INSERT INTO old (text) VALUES ('one')")
        await other.close()
        assert await app.fetchval("SELECT count(*) FROM old") == 1
        assert not await app.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", server.names.app)


class TestTheOthers:
    """The roles that watch and read, and the owner."""

    async def test_people_read_and_do_not_write(self, server: Server) -> None:
        """Whoever is in NAME-read sees each table, those of later, too."""
        await ensure(server.root, server.names, server.passwords)
        await server.root.execute(f'SET ROLE "{server.names.owner}"; CREATE TABLE later (id int); RESET ROLE;'
                                  f' SET ROLE "{server.names.read}"')  # fmt: skip
        for table in ("old", "olds", "later", "old_place.things"):
            assert await server.root.fetchval(f"SELECT count(*) FROM {table}") == 0
        for statement in (
            "INSERT INTO later VALUES (1)",
            "CREATE TABLE mine (id int)",
            "SELECT nextval('old_numbers')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await server.root.execute(statement)

    async def test_monitoring_sees_figures_and_no_rows(self, server: Server) -> None:
        """It is in pg_monitor, and has a password once it is given one."""
        await ensure(server.root, server.names)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await server.login(server.names.monitor)
        await set_password(server.root, server.names.monitor, PASSWORD)
        monitor = await server.login(server.names.monitor)
        assert await monitor.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query <> '<insufficient privilege>'")
        assert await monitor.fetchval("SELECT pg_has_role('pg_monitor', 'USAGE')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await monitor.fetchval("SELECT count(*) FROM old")
        await monitor.close()

    async def test_the_owner_is_as_before(self, server: Server) -> None:
        """It owns what it owned, logs in with its password, and changes tables."""
        await ensure(server.root, server.names, {**server.passwords, server.names.owner: "another-password"})
        owner = await server.login(server.names.owner)
        await owner.execute("ALTER TABLE old ADD COLUMN more int; TRUNCATE old; CREATE TABLE mine (id int)")
        assert await owner.fetchval("SELECT count(DISTINCT tableowner) FROM pg_tables WHERE schemaname = 'public'") == 1
        await owner.close()

    async def test_the_owner_goes_on_making_tables_in_a_schema_of_the_superuser(self, server: Server) -> None:
        """It could as everybody, in a database that began with PostgreSQL 14 or older. Its own right stays."""
        await server.root.execute(f'ALTER SCHEMA public OWNER TO "{server.services.postgres_user}"')
        for table in ("first", "second"):
            await ensure(server.root, server.names, server.passwords)
            owner = await server.login(server.names.owner)
            await owner.execute(f"CREATE TABLE {table} (id int)")
            await owner.close()
        app = await server.login(server.names.logins[0])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute("CREATE TABLE third (id int)")
        await app.close()

    async def test_an_owner_who_may_not_grant_in_public_is_not_stopped(self, server: Server) -> None:
        """Its own deploy gives what it can where `public` is the superuser's and nobody may create there."""
        await ensure(server.root, server.names, server.passwords)
        await server.root.execute(f"""
            ALTER SCHEMA public OWNER TO "{server.services.postgres_user}";
            REVOKE CREATE ON SCHEMA public FROM PUBLIC, "{server.names.owner}"
        """)
        owner = await server.login(server.names.owner)
        await ensure_rights(owner, server.names)
        assert not await owner.fetchval("SELECT has_schema_privilege('public', 'CREATE')")
        await owner.close()


class TestEnsure:
    """What making the roles does and does not do."""

    async def test_twice_is_once(self, server: Server) -> None:
        """Nothing in the catalogs changes the second time, a password neither."""
        everything = """
            SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM (
                SELECT relname::text, relacl::text, xmin::text FROM pg_class WHERE relowner = $1::regrole
                UNION ALL SELECT rolname, rolpassword, '' FROM pg_authid
                UNION ALL SELECT defaclobjtype::text, defaclacl::text, '' FROM pg_default_acl
                UNION ALL SELECT proname::text, proacl::text, xmin::text FROM pg_proc WHERE proowner = $1::regrole
                UNION ALL SELECT nspname::text, nspacl::text, xmin::text FROM pg_namespace) t
        """
        seen = []
        for _ in range(2):
            await ensure(server.root, server.names, server.passwords)
            seen.append(await server.root.fetchval(everything.replace("$1", f"'\"{server.names.owner}\"'")))
        assert seen[0] == seen[1]

    async def test_several_at_once_are_one(self, server: Server) -> None:
        """Each waits for the one before."""
        others = [
            await server.login(server.services.postgres_user, server.services.postgres_password) for _ in range(4)
        ]
        await asyncio.gather(*(ensure(one, server.names, server.passwords) for one in others))
        for one in others:
            await one.close()

    async def test_it_waits_for_no_reader_or_writer(self, server: Server) -> None:
        """An open transaction that wrote, and one that holds a table like a dump, do not hold it up."""
        writer, dump = await server.login(server.names.owner), await server.login(server.names.owner)
        async with writer.transaction(), dump.transaction():
            await writer.execute("INSERT INTO old (text) VALUES ('one')")
            await dump.execute("LOCK TABLE old IN ACCESS SHARE MODE")
            await asyncio.wait_for(ensure(server.root, server.names, server.passwords), 5)
            await asyncio.wait_for(dump.execute("SELECT count(*) FROM old"), 5)
        for one in (writer, dump):
            await one.close()

    async def test_a_role_that_may_too_much_is_refused_by_its_name(self, server: Server) -> None:
        """Somebody else's `NAME-app-1` is not taken for ours; nothing is made."""
        await server.root.execute(f'CREATE ROLE "{server.names.logins[0]}" LOGIN CREATEROLE')
        with pytest.raises(asyncpg.RaiseError, match=f"role {server.names.logins[0]} may do too much"):
            await ensure(server.root, server.names)
        assert not await server.root.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", server.names.app)

    async def test_an_owner_that_is_not_there_is_named(self, server: Server) -> None:
        """The owner is the present role: it is never made."""
        with pytest.raises(asyncpg.UndefinedObjectError, match="nobody"):
            await ensure(server.root, Names.of("nobody"))

    async def test_a_restored_database_gets_the_rights_again(self, server: Server) -> None:
        """From the owner's own session: another database, whose tables carry no rights, as after `pg_restore -x`."""
        await ensure(server.root, server.names, server.passwords)
        restored = f"{server.database}-restored"
        await server.root.execute(f'CREATE DATABASE "{restored}" OWNER "{server.names.owner}"')
        try:
            there = Server(server.services, server.names, restored, server.root)
            owner = await there.login(server.names.owner)
            await owner.execute(OLD)
            app = await there.login(server.names.logins[0])
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute("INSERT INTO old (text) VALUES ('one')")
            await ensure_rights(owner, server.names)
            await app.execute("INSERT INTO old (text) VALUES ('one')")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute("CREATE TEMPORARY TABLE mine (id int)")
        finally:
            await server.root.execute(f'DROP DATABASE "{restored}" WITH (FORCE)')

    async def test_extensions_stay_as_their_superuser_made_them(self, server: Server) -> None:
        """Their tables are not the owner's: no right is given."""
        await server.root.execute("CREATE TABLE of_an_extension (id int)")
        await ensure(server.root, server.names, server.passwords)
        app = await server.login(server.names.logins[0])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.fetch("SELECT * FROM of_an_extension")
        await app.close()


class TestNames:
    """From each login of an installation to the same roles."""

    @pytest.mark.parametrize("login", ["board", "board-app-1", "board-app-2", "board-other"])
    def test_each_login_leads_to_the_owner(self, login: str) -> None:
        """Those of earlier versions, too."""
        assert Names.of(login) == Names("board")

    def test_the_idle_login_is_the_one_to_change_to(self) -> None:
        """From the owner to the first, from the first to the second, and back."""
        names = Names("board")
        assert [names.idle(login) for login in ("board", "board-other", *names.logins)] == [
            "board-app-1", "board-app-1", "board-app-2", "board-app-1"]  # fmt: skip

    @pytest.mark.parametrize("login", ["", "-app-1", "x" * 56])
    def test_a_name_that_leaves_no_room_is_refused(self, login: str) -> None:
        """PostgreSQL would cut it and mean another role."""
        with pytest.raises(ValueError, match="1 to 55 bytes"):
            Names.of(login)


class TestPasswords:
    """A password reaches the server as what it keeps of it."""

    async def test_it_lets_in_whoever_knows_it(self, server: Server) -> None:
        """And nobody with the one before, but sessions stay."""
        await ensure(server.root, server.names, server.passwords)
        login = server.names.logins[0]
        before = await server.login(login)
        await set_password(server.root, login, "änother-password'\\%")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await server.login(login)
        after = await server.login(login, "änother-password'\\%")
        assert await before.fetchval("SELECT 1") == await after.fetchval("SELECT 1")
        for one in (before, after):
            await one.close()

    @pytest.mark.parametrize("password", ["", "ﬁne-password-of-tests", "with\ttab"])
    async def test_one_that_clients_would_change_is_refused(self, server: Server, password: str) -> None:
        """The message does not have it."""
        with pytest.raises(ValueError, match="printable characters alone") as caught:
            await set_password(server.root, server.names.owner, password)
        assert not password or password not in str(caught.value)
