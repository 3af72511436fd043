"""TCP ports of this machine: which are free, and who holds one that is not."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket

import psutil

__all__ = ["describe_process", "free_port", "port_free", "port_holder", "port_ours_to_open"]

# Below those that the kernel lends to whoever asks for any (Linux from 32768 on, macOS from 49152).
PORTS = range(20000, 30000)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now.

    The kernel gives it to nobody else until it is listened on, seconds later, nor while that is started again.
    """
    while not port_free(port := secrets.choice(PORTS)):
        continue
    return port


def port_free(port: int) -> bool:
    """Whether a TCP port of 127.0.0.1 can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_ours_to_open(port: int) -> bool:
    """Whether this user may listen on a TCP port at all: those below 1024 are root's on most machines."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno != errno.EACCES
    return True


def port_holder(port: int) -> psutil.Process | None:
    """Who listens on a TCP port, as far as we may know."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN and one.pid:
                return psutil.Process(one.pid)
    return None


def describe_process(process: psutil.Process | None) -> str:
    """PROCESS in words."""
    with contextlib.suppress(psutil.Error):
        if process is not None:
            return f"{process.name()} (pid {process.pid})"
    return "another process"
