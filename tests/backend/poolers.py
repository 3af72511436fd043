"""A PgBouncer of a test's own, where the machine has one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.embedded import postgres_user
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from tests.backend.process import wait_until
from tests.backend.servers import PASSWORD, Postgres

__all__ = ["KEEPS_STATEMENTS", "needs_statements", "pooler"]

POOLER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


def _keeps_statements() -> bool:
    if POOLER is None:
        return False
    said = subprocess.run([POOLER, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= (1, 21)


KEEPS_STATEMENTS = _keeps_statements()


def needs_statements(test: Any) -> Any:
    """Mark a `test` that needs a PgBouncer which keeps prepared statements apart: Debian 12 has an older one."""
    older = pytest.mark.skipif(POOLER is not None and not KEEPS_STATEMENTS, reason="pgbouncer is older than 1.21")
    return pytest.mark.needs("pgbouncer")(older(test))


@contextlib.contextmanager
def pooler(
    own: Postgres,
    folder: Path,
    *,
    database: str = "postgres",
    user: str = "postgres",
    password: str = PASSWORD,
    **options: str,
) -> Iterator[str]:
    """A PgBouncer before a `database` of `own`, where everybody is `user`; yield its URL."""
    assert POOLER is not None
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port := free_port()),
        "unix_socket_dir": "",
        "auth_type": "any",
        **options,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    place = f"slipway = host={own.folder} dbname={database} user={user} password={password}"
    config = own.folder / "pgbouncer.ini"
    config.write_text(f"[databases]\n{place}\n[pgbouncer]\n{lines}")
    config.chmod(0o644)
    with held([POOLER, str(config)], log=folder / "pgbouncer.log", user=postgres_user()):
        _wait_for(port, folder / "pgbouncer.log")
        yield f"postgresql://someone@127.0.0.1:{port}/slipway"


def _wait_for(port: int, log: Path) -> None:
    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    wait_until(listens, log.read_text())
