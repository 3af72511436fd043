"""TCP ports and addresses of this machine: which are free, who holds one that is not, how one is reached."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
from typing import Any
from urllib.parse import urlsplit

import psutil

__all__ = [
    "LOOPBACK",
    "address_problem",
    "describe_process",
    "dial",
    "free_port",
    "next_free_port",
    "port_free",
    "port_holder",
    "port_ours_to_open",
    "url_host",
]

# Below the ephemeral ports, which the kernel hands out itself (Linux from 32768 on, macOS from 49152).
LOOPBACK = "127.0.0.1"
PORTS = range(20000, 30000)
HIGHEST_PORT = 65535
IPV6 = 6


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listens on now."""
    # Not an ephemeral port: the kernel gives it to nobody else in the seconds before a server listens on it, or while
    # that server restarts.
    while not port_free(port := secrets.choice(PORTS)):
        continue
    return port


def next_free_port(first: int, address: str = LOOPBACK) -> int:
    """Return the lowest TCP port of `address` from `first` on that nothing listens on now."""
    return next((port for port in range(first, HIGHEST_PORT + 1) if port_free(port, address)), first)


def port_free(port: int, address: str = LOOPBACK) -> bool:
    """Return whether a TCP port of an IP `address` of this machine can be listened on."""
    with socket.socket(_family(address)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def address_problem(address: str) -> str | None:
    """Return why nothing on this machine can listen at `address`, in words; None if something can."""
    try:
        family = _family(address)
    except ValueError:
        return "is not an IP address"
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return f"is not an address of this machine ({error.strerror})"
    return None


def url_host(address: str) -> str:
    """Return the host of a URL that reaches what listens at an IP `address` of this machine."""
    ip = ipaddress.ip_address(address)
    if ip.version == IPV6:
        return "[::1]" if ip.is_unspecified else f"[{address}]"
    return LOOPBACK if ip.is_unspecified else address


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(address).version == IPV6 else socket.AF_INET


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
    try:
        found = [one.pid for one in psutil.net_connections("tcp") if one.pid and _listens(one, port)]
    except psutil.AccessDenied:  # macOS shows them all to root alone, and anybody their own
        found = [process.pid for process in psutil.process_iter() if _holds(process, port)]
    with contextlib.suppress(psutil.Error):
        return psutil.Process(found[0]) if found else None
    return None


def _holds(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(_listens(one, port) for one in process.net_connections("tcp"))
    return False


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.laddr) and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN


def describe_process(process: psutil.Process | None) -> str:
    """Return the name and pid of `process` in words; "another process" if it is None or unknown."""
    with contextlib.suppress(psutil.Error):
        if process is not None:
            return f"{process.name()} (pid {process.pid})"
    return "another process"


def dial(url: str) -> tuple[str, dict[str, str]]:
    """Return the address to connect to for `url`, and the headers that say what was meant.

    A name below `.localhost` is this machine (RFC 6761), which many resolvers do not know.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not (parts.hostname or "").endswith(".localhost"):
        return url, {}
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"127.0.0.1{port}").geturl(), {"Host": parts.netloc}
