"""TCP ports of this machine: which ones are free, and who holds one that is not."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket

import psutil

__all__ = ["describe_process", "free_port", "port_free", "port_holder", "port_ours_to_open"]

# Below the ephemeral ports, which the kernel hands out itself (Linux from 32768 on, macOS from 49152).
PORTS = range(20000, 30000)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on now."""
    # Not an ephemeral port: the kernel gives it to nobody else in the seconds before a server listens on it, or while
    # that server restarts.
    while not port_free(port := secrets.choice(PORTS)):
        continue
    return port


def port_free(port: int) -> bool:
    """Return whether a TCP port of 127.0.0.1 can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_ours_to_open(port: int) -> bool:
    """Return whether this user may listen on a TCP port at all: those below 1024 are root's on most machines."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno != errno.EACCES
    return True


def port_holder(port: int) -> psutil.Process | None:
    """Return the process that listens on a TCP port; None if there is none, or if we may not know it."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if connection.laddr and connection.laddr.port == port and listens and connection.pid:
                return psutil.Process(connection.pid)
    return None


def describe_process(process: psutil.Process | None) -> str:
    """Return the name and pid of `process` in words; "another process" if it is None or unknown."""
    with contextlib.suppress(psutil.Error):
        if process is not None:
            return f"{process.name()} (pid {process.pid})"
    return "another process"
