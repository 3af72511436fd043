"""The engines out of wheels, and the leash that ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from pipeline.engines.embedded import (
    find_engines,
    postgres_command,
    throwaway_postgres,
    throwaway_valkey,
    wait_for_postgres,
)
from pipeline.errors import SlipwayError
from pipeline.system.leash import held

ROOT = Path(__file__).parents[3]
HOLDS_A_POSTGRES = """
import sys
from pipeline.engines.embedded import throwaway_postgres
with throwaway_postgres() as server:
    print(server.host, flush=True)
    sys.stdin.read()
"""


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class TestThrowawayPostgres:
    async def test_answers_with_a_password_and_leaves_nothing(self) -> None:
        """A server of its own, reached by socket and password; afterwards folder and process are gone."""
        with throwaway_postgres() as server:
            connection = await asyncpg.connect(
                host=server.host, port=server.port, user=server.user, password=server.password, database="postgres"
            )
            assert await connection.fetchval("SHOW server_version_num") >= "180000"
            await connection.close()
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(
                    host=server.host, port=server.port, user=server.user, password="no", database="postgres"
                )
        assert not await asyncio.to_thread(Path(server.host).exists)

    def test_has_large_data_on_the_disk(self) -> None:
        """What is small is in memory, where there is some."""
        with throwaway_postgres(large=True) as server:
            assert Path(server.host).parent == Path(tempfile.gettempdir())

    def test_does_not_outlive_a_killed_owner(self) -> None:
        """`kill -9` of whoever asked for it ends the server and removes its data."""
        with subprocess.Popen(
            [sys.executable, "-c", HOLDS_A_POSTGRES], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as owner:
            assert owner.stdout is not None
            folder = Path(owner.stdout.readline().strip())
            server = psutil.Process(int((folder / "data/postmaster.pid").read_text().splitlines()[0]))
            os.kill(owner.pid, signal.SIGKILL)
        eventually(lambda: not folder.exists() and not server.is_running())


class TestWaitForPostgres:
    def test_does_not_believe_a_dead_server(self, tmp_path: Path) -> None:
        """What `kill -9` left says `ready`; the process it names is gone, or is another one."""
        (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n0\n5432\n/run\n\n1 2\nready   \n")
        with pytest.raises(SlipwayError, match="did not get ready"):
            wait_for_postgres(tmp_path, seconds=0.1)


class TestThrowawayValkey:
    def test_answers_and_leaves_nothing(self) -> None:
        """A server on a socket; afterwards nothing is left."""
        with throwaway_valkey() as server:
            with redis.Redis(unix_socket_path=server.socket) as client:
                assert client.ping()
        assert not Path(server.socket).parent.exists()


class TestHeld:
    def test_ends_what_ignores_an_interrupt(self, tmp_path: Path) -> None:
        """A command that ignores SIGINT is killed, and its folder removed, when the leash is let go."""
        (tmp_path / "scratch").mkdir()
        stubborn = (
            "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "print('up', flush=True); time.sleep(600)"
        )
        command, log = [sys.executable, "-c", stubborn], tmp_path / "log"
        with held(command, log=log, remove=tmp_path / "scratch", grace=0.2) as leash:
            eventually(lambda: b"up" in log.read_bytes())
            (child,) = psutil.Process(leash.pid).children()
        assert leash.returncode == 128 + signal.SIGKILL
        assert not child.is_running()
        assert not (tmp_path / "scratch").exists()

    def test_passes_the_exit_code_on(self, tmp_path: Path) -> None:
        """A command that ends by itself ends its leash with its code."""
        with held([sys.executable, "-c", "raise SystemExit(7)"], log=tmp_path / "log") as leash:
            assert leash.wait(20) == 7


class TestFindEngines:
    def test_finds_them_beside_the_running_python(self) -> None:
        """The programs are files that can be run."""
        engines = find_engines()
        assert all(os.access(path, os.X_OK) for path in (engines.postgres / "postgres", engines.valkey, engines.caddy))

    def test_says_what_to_do_where_a_wheel_is_missing(self, tmp_path: Path) -> None:
        """A platform without the wheels is pointed to compose."""
        with pytest.raises(SlipwayError, match=r"no postgres in .*deploy -- compose"):
            find_engines(tmp_path)


class TestPostgresCommand:
    def test_opens_no_port(self) -> None:
        """The server listens on its socket alone."""
        command = postgres_command(Path("/bin"), Path("/data"), Path("/run"), {"fsync": "off"})
        assert command == [
            "/bin/postgres",
            "-D",
            "/data",
            "-clisten_addresses=",
            "-cunix_socket_directories=/run",
            "-cunix_socket_permissions=0700",
            "-cfsync=off",
        ]
