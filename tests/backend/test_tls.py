"""A PostgreSQL and a Redis that others manage: over TLS, with accounts, on several hosts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from backend.cache import Cache
from backend.database import Database, DatabaseUnavailable, check_address
from backend.metrics import Metrics
from backend.settings import SettingsError, load_settings
from pipeline.engines.embedded import initdb, postgres_command, postgres_user, wait_for_postgres
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from tests.backend.servers import PASSWORD, database_of, valkey
from tests.certificates import certificates

# The embedded PostgreSQL speaks no TLS; Debian's does.
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
USER = "app"
SESSION = """
    SELECT ssl, current_setting('application_name') AS name, current_setting('statement_timeout') AS statement,
        current_setting('lock_timeout') AS lock
    FROM pg_stat_ssl WHERE pid = pg_backend_pid()
"""

pytestmark = pytest.mark.needs("openssl")  # makes certificates


@pytest.fixture(scope="module", name="folder")
def _folder() -> Iterator[Path]:
    """One below which the server's user may read, with certificates for `localhost`."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-tls-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    certificates(folder)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", name="managed")
def _managed(folder: Path) -> Iterator[str]:
    """Host, port and name of a PostgreSQL that takes TLS alone."""
    if not INSTALLED:
        pytest.skip("no PostgreSQL with TLS here: apt-get install postgresql")
    binaries, user, data, port = INSTALLED[-1].parent, postgres_user(), folder / "data", free_port()
    data.mkdir(mode=0o700)
    if user:
        for path in (folder, data, folder / "own.pem", folder / "own.key"):
            shutil.chown(path, user)
    (folder / "own.key").chmod(0o600)
    initdb(binaries, data, user=user, superuser=USER, password=PASSWORD)
    (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
    options = {"listen_addresses": "127.0.0.1", "port": str(port), "ssl": "on", "fsync": "off",
               "ssl_cert_file": str(folder / "own.pem"), "ssl_key_file": str(folder / "own.key")}  # fmt: skip
    command = postgres_command(binaries, data, folder, options)
    with held(command, log=folder / "log", user=user):
        wait_for_postgres(data)
        yield f"localhost:{port}/postgres"


@contextlib.asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Database]:
    """The service's database of URL."""
    settings = load_settings({"DATABASE_URL": url, "DATABASE_POOL_SIZE": "1"}, secrets_dir=folder)
    await check_address(settings)
    async with database_of(settings) as database:
        yield database


class TestPostgres:
    async def test_is_used_with_what_the_address_says(self, managed: str, folder: Path) -> None:
        """Verified in full; its name and its options are the session's, and the service's own where it says nothing."""
        given = f"sslmode=verify-full&sslrootcert={folder}/ca.pem&application_name=shop&connect_timeout=20"
        url = f"postgres://{USER}:{PASSWORD}@{managed}?{given}&options=-c%20statement_timeout%3D3s"
        async with opened(url, folder) as database, database.lease() as connection:
            row = await connection.fetchrow(SESSION)
        assert row is not None
        assert dict(row) == {"ssl": True, "name": "shop", "statement": "3s", "lock": "2s"}

    async def test_of_several_hosts_the_first_that_fits_is_used(self, managed: str, folder: Path) -> None:
        """A host that is gone is passed by; one of the wrong kind, too."""
        host, _, name = managed.partition("/")
        several = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{free_port()},[::1]:{free_port()},{host}/{name}"
        async with opened(f"{several}?sslmode=require&target_session_attrs=read-write", folder) as database:
            async with database.lease() as connection:
                assert (await connection.fetchval("SHOW ssl")) == "on"
        async with opened(f"{several}?target_session_attrs=standby&sslmode=require", folder) as database:
            with pytest.raises(DatabaseUnavailable):
                async with database.lease():
                    pytest.fail("no standby is there")

    @pytest.mark.parametrize("wrong", ["authority", "host"])
    async def test_whose_certificate_is_not_accepted_is_refused_by_name(
        self, managed: str, folder: Path, tmp_path: Path, wrong: str
    ) -> None:
        """One line that says what is wrong with it; nothing is sent to it, and the password is in no line."""
        root = certificates(tmp_path) if wrong == "authority" else folder / "ca.pem"
        place = managed.replace("localhost", "127.0.0.1") if wrong == "host" else managed
        with pytest.raises(SettingsError, match="DATABASE_URL: the server's certificate is not accepted") as refused:
            async with opened(
                f"postgresql://{USER}:{PASSWORD}@{place}?sslmode=verify-full&sslrootcert={root}", tmp_path
            ):
                pytest.fail("connected")
        assert PASSWORD not in str(refused.value)


class TestRedis:
    async def test_is_used_over_tls_as_a_user_with_few_rights(self, folder: Path, tmp_path: Path) -> None:
        """`rediss://` with an authority, an ACL user, a number of a database; a wrong authority is Redis away."""
        with valkey(tmp_path) as server:
            rules = ("~*", "&*", "+@all", "-@dangerous")
            with redis.Redis(unix_socket_path=str(server.socket)) as admin:
                admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", *rules)
                admin.execute_command("ACL", "SETUSER", "default", "off")
            async with behind_tls(server.socket, folder) as port:
                url = f"rediss://{USER}:{PASSWORD}@localhost:{port}/3?ssl_ca_certs="
                cache = _cache(f"{url}{folder}/ca.pem", tmp_path)
                async with asyncio.timeout(20):  # a first handshake may take a busy machine longer than Redis gets
                    while (found := await cache.get("board")).value != b"a":
                        await cache.put("board", found, b"a")
                        await asyncio.sleep(0.1)
                await cache.close()
                other = tmp_path / "other"
                other.mkdir()
                wrong = _cache(f"{url}{certificates(other)}", tmp_path)
                assert (await wrong.get("board")).value is None
                with pytest.raises((redis.ConnectionError, TimeoutError)):
                    await wrong.check()
                await wrong.close()


@contextlib.asynccontextmanager
async def behind_tls(server: Path, folder: Path) -> AsyncIterator[int]:
    """A port of `localhost` that speaks TLS and leads to the socket SERVER, as the embedded Valkey speaks none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "own.key")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(server)
        await asyncio.gather(pipe(reader, outer), pipe(inner, writer))

    listener = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield int(listener.sockets[0].getsockname()[1])


def _cache(url: str, folder: Path) -> Cache:
    return Cache(load_settings({"REDIS_URL": url}, secrets_dir=folder), Metrics("1"))
