"""PostgreSQL's own programs: which there are, and how one runs."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

from backend.backups.errors import BackupFailed
from backend.urls import PostgresAddress

__all__ = ["environment", "programs_version", "run", "variables_without_server", "zstd_works"]

END_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
# What libpq calls the parameters of a URL. `sslpassword` has no variable, and is refused.
PARAMETERS = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "options": "PGOPTIONS",
}
KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "TZ")  # of our own environment
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def environment(address: PostgresAddress, *, name: str, database: str | None = None) -> dict[str, str]:
    """Return the variables with which a program reaches `address`, or another `database` there, under that `name`.

    Raise `BackupFailed` where a program cannot connect as the service does.
    """
    variables = {variable: os.environ[variable] for variable in KEPT if variable in os.environ}
    variables |= {"LC_ALL": "C.UTF-8", "PGAPPNAME": name, "PGCONNECT_TIMEOUT": f"{address.seconds or 10:.0f}"}
    arguments = dict(address.arguments)
    if dsn := arguments.pop("dsn", ""):
        parts = urlsplit(dsn)
        given = dict(parse_qsl(parts.query))
        arguments = {
            "user": unquote(parts.username or given.pop("user", "")),
            "password": unquote(parts.password or given.pop("password", "")),
            "database": unquote(parts.path.lstrip("/")) or given.pop("dbname", given.pop("database", "")),
            **{key: value for key, value in arguments.items() if value is not None},
        }
        for parameter, value in given.items():
            if parameter not in PARAMETERS:
                raise BackupFailed(f"the programs of PostgreSQL cannot take `{parameter}` of the address: leave it out")
            variables[PARAMETERS[parameter]] = value
    if database:
        arguments["database"] = database
    for key, variable in (("user", "PGUSER"), ("password", "PGPASSWORD"), ("database", "PGDATABASE")):
        if arguments.get(key):
            variables[variable] = str(arguments[key])
    # So that the server notices when a program was killed, in the middle of a statement, too.
    variables["PGOPTIONS"] = f"{variables.get('PGOPTIONS', '')} -c client_connection_check_interval=1s".strip()
    hosts = [host for host in address.hosts if host]
    if hosts:
        variables["PGHOST"] = ",".join(str(host["host"]) for host in hosts)
        variables["PGPORT"] = ",".join(str(host["port"]) for host in hosts)
    return variables


async def run(
    program: str, *arguments: str, variables: Mapping[str, str], held: Sequence[int] = (), given: bytes | None = None
) -> str:
    """Run `program` to its end and return what it printed. It ends with this process, whatever ends that.

    `held`: descriptors that it shares. Raise `BackupFailed` with what it said where it fails.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        # A dump that goes on alone would keep its locks while nobody keeps migrations out any more.
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    try:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(variables),
            pass_fds=tuple(held),
            preexec_fn=die_with_parent,  # one system call, prepared before
        )
    except FileNotFoundError:
        raise BackupFailed(f"no program `{program}` on PATH: install the client programs of PostgreSQL") from None
    try:
        printed, said = await process.communicate(given)
    except asyncio.CancelledError:
        await _end(process)
        raise
    if process.returncode:
        raise BackupFailed(f"{program}: {_telling(said.decode(errors='replace'), process.returncode)}")
    return printed.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _telling(text: str, code: int) -> str:
    """Return the line of `text` that says why a program failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return f"it was killed by signal {-code}" if code < 0 else f"it ended with {code} and said nothing"
    # PostgreSQL's programs say first what went wrong, rclone says it last.
    errors = [line for line in lines if re.search(r"\b(error|FATAL|ERROR):", line)] or lines[-1:]
    return re.sub(r"^(pg_\w+: (error: )?|[\d/]+ [\d:]+ [A-Z]+ *: )", "", errors[0])


async def programs_version() -> str:
    """Return the version of `pg_dump`: `18.6`."""
    said = await run("pg_dump", "--version", variables=variables_without_server())
    return said.split()[2]


async def zstd_works() -> bool:
    """Return whether `pg_dump` was built with zstd."""
    # It checks that before it connects, and here it cannot connect.
    try:
        await run(
            "pg_dump",
            "--format=custom",
            "--compress=zstd",
            "--host=/nowhere",
            "--file=/dev/null",
            variables=variables_without_server(),
        )
    except BackupFailed as error:
        return "zstd" not in str(error).lower()
    return True


def variables_without_server() -> dict[str, str]:
    """Return the variables of a program that is to reach no server."""
    return {"LC_ALL": "C.UTF-8", **{name: os.environ[name] for name in KEPT if name in os.environ}}
