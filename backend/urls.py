"""The addresses of PostgreSQL and Redis as URLs: what may stand in one.

No message quotes a value, which may be a secret.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

__all__ = ["PostgresAddress", "checked_postgres_url", "checked_redis_url", "postgres_address"]

NAME = re.compile(r"[A-Za-z_]{1,40}")
HOST = re.compile(r"(\[[^\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?")  # an IPv6 address is in brackets
IN_OPTIONS = re.compile(r"(?:-c\s*|--)([\w.-]+)\s*=")
HIGHEST_PORT = 65535
LONGEST_CONNECT_SECONDS = 60


def _any(_: str) -> bool:
    return True


def _is_file(value: str) -> bool:
    return Path(value).is_file()


def _has_certificates(value: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
    except OSError:
        return False
    return True


def _are_ports(value: str) -> bool:
    return all(port.isdecimal() and 0 < int(port) <= HIGHEST_PORT for port in value.split(","))


def _are_seconds(value: str) -> bool:
    return value.isdecimal() and 0 < int(value) <= LONGEST_CONNECT_SECONDS


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


# Each parameter that the driver knows, with what its value must be. It passes any other on, and then PostgreSQL refuses
# the connection, or redis-py fails at each request.
POSTGRES: Mapping[str, Callable[[str], bool]] = {
    **dict.fromkeys(("user", "password", "dbname", "database", "application_name", "options"), _any),
    **dict.fromkeys(("sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"), _any),
    **dict.fromkeys(("sslcert", "sslkey"), _is_file),
    **dict.fromkeys(("sslrootcert", "sslcrl"), _has_certificates),
    "host": bool,
    "port": _are_ports,
    "connect_timeout": _are_seconds,
    "sslmode": _one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": _one_of("postgres", "direct"),
    "target_session_attrs": _one_of("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}
REDIS: Mapping[str, Callable[[str], bool]] = {
    **dict.fromkeys(("username", "password", "client_name"), _any),
    "db": str.isdecimal,
    "protocol": _one_of("2", "3"),
}
REDIS_TLS: Mapping[str, Callable[[str], bool]] = {
    **REDIS,
    "ssl_ca_certs": _has_certificates,
    **dict.fromkeys(("ssl_certfile", "ssl_keyfile"), _is_file),
    "ssl_password": _any,
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_check_hostname": _one_of("true", "false"),
}


FILES: Mapping[Callable[[str], bool], str] = {
    _is_file: "a file that is there",
    _has_certificates: "a file of certificates that is there (`system` is none: name its bundle,"
    " /etc/ssl/certs/ca-certificates.crt on Debian)",
}
SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


@dataclass(frozen=True)
class PostgresAddress:
    """What asyncpg connects with: `arguments` for each of the `hosts`, which are tried in turn.

    `session`: parameters of the session that the address gives. `seconds`: how long one host may take, or None.
    """

    arguments: Mapping[str, Any]
    hosts: Sequence[Mapping[str, Any]] = ({},)  # without any, asyncpg's default
    session: Mapping[str, str] = field(default_factory=dict)
    in_options: Collection[str] = ()
    seconds: float | None = None


def checked_postgres_url(value: object) -> object:
    """Return `value`. Raise `ValueError` where the service could not connect with such a URL, ever."""
    parts = _split(value, SCHEMES)
    _check(parts, POSTGRES)
    hosts = _hosts(parts)
    ports = dict(parse_qsl(parts.query)).get("port", "").count(",") + 1
    if ports not in (1, len(hosts)):
        raise ValueError("its parameter port must have one port, or one for each host")
    return value


def checked_redis_url(value: object) -> object:
    """Return `value`. Raise `ValueError` where the service could not connect with such a URL, ever."""
    parts = _split(value, ("redis", "rediss", "unix"))
    try:
        _ = parts.port
    except ValueError:  # its message quotes the address, password included
        raise ValueError("its port must be a number from 1 to 65535") from None
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("names several hosts: name one")
    _check(parts, REDIS_TLS if parts.scheme == "rediss" else REDIS)
    return value


def postgres_address(url: str) -> PostgresAddress:
    """Return where `url`, which `checked_postgres_url` has seen, leads."""
    parts = _split(url, SCHEMES)
    given = dict(parse_qsl(parts.query))
    hosts = _hosts(parts)
    own = {name: given.pop(name) for name in ("host", "port", "connect_timeout", "application_name") if name in given}
    user = parts.netloc.rpartition("@")[0]
    netloc = f"{user}@" if user else ""
    path = "" if parts.path == "/" else parts.path  # which asyncpg takes for a name without letters
    dsn = urlunsplit(("postgresql", netloc, path, urlencode(given, quote_via=quote), ""))
    name = own.get("application_name")
    return PostgresAddress(
        arguments={"dsn": dsn},
        hosts=hosts or ({},),
        session={"application_name": name} if name else {},
        in_options=frozenset(IN_OPTIONS.findall(given.get("options", ""))),
        seconds=float(own["connect_timeout"]) if "connect_timeout" in own else None,
    )


def _hosts(parts: SplitResult) -> list[Mapping[str, Any]]:
    """Return the hosts of the address, with their ports. Raise `ValueError` where one is none."""
    given = dict(parse_qsl(parts.query))
    written = parts.netloc.rpartition("@")[2]
    listed = [unquote(host) for host in written.split(",")] if written else given.get("host", "").split(",")
    ports = given.get("port", "").split(",")
    hosts: list[Mapping[str, Any]] = []
    for number, host in enumerate(listed if listed != [""] else ()):
        match = HOST.fullmatch(host)
        if host.startswith("/"):
            name, port = host, None
        elif match and 0 < int(match[2] or 1) <= HIGHEST_PORT:
            name, port = match[1].strip("[]"), match[2]
        else:
            raise ValueError("one of its hosts is not valid: each is host or host:port, an IPv6 address in brackets")
        hosts.append({"host": name, "port": int(port or ports[number if len(ports) > number else 0] or 5432)})
    return hosts


def _split(value: object, schemes: Collection[str]) -> SplitResult:
    """Return the parts of the URL `value`. Raise `ValueError` where it is none of `schemes`."""
    expected = (
        f"must look like {next(iter(schemes))}://user:password@host:port/name, special characters percent-encoded"
    )
    try:
        parts = urlsplit(str(value))
    except ValueError:  # its message quotes the address, password included
        raise ValueError(expected) from None
    # Of a second @, a driver takes the rest for a host, and names it in its errors.
    if parts.scheme not in schemes or parts.netloc.count("@") > 1 or parts.fragment:
        raise ValueError(expected)
    return parts


def _check(parts: SplitResult, known: Mapping[str, Callable[[str], bool]]) -> None:
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        shown = name if NAME.fullmatch(name) else "after its ?"
        if name not in known:
            raise ValueError(f"has a parameter that the service cannot use, {shown}: take it out")
        if known[name](value):
            continue
        if known[name] in FILES:
            raise ValueError(f"{shown} must name {FILES[known[name]]}")
        raise ValueError(f"the value of its parameter {shown} is not valid: correct it, or take it out")
