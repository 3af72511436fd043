"""The addresses of PostgreSQL and Redis as URLs: what may stand in one.

No message quotes a value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

__all__ = ["checked_postgres_url", "checked_redis_url"]

NAME = re.compile(r"[A-Za-z_]{1,40}")


def _any(_: str) -> bool:
    return True


def _one_host(value: str) -> bool:
    return "," not in value


def _is_file(value: str) -> bool:
    return Path(value).is_file()


def _one_of(*values: str) -> Callable[[str], bool]:
    return lambda value: value in values


# Each parameter that the driver knows, with what its value must be. It passes any other on, and then PostgreSQL refuses
# the connection, or redis-py fails at each request.
POSTGRES: Mapping[str, Callable[[str], bool]] = {
    **dict.fromkeys(("user", "password", "dbname", "database", "application_name", "options"), _any),
    **dict.fromkeys(("sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version"), _any),
    **dict.fromkeys(("sslrootcert", "sslcert", "sslkey", "sslcrl"), _is_file),
    "host": _one_host,
    "port": str.isdecimal,
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
    **dict.fromkeys(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), _is_file),
    "ssl_password": _any,
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_check_hostname": _one_of("true", "false"),
}


def checked_postgres_url(value: object) -> object:
    """Return `value`. Raise `ValueError` where the service could not connect with such a URL, ever."""
    _check(_split(value, ("postgresql", "postgres", "postgresql+asyncpg")), POSTGRES)
    return value


def checked_redis_url(value: object) -> object:
    """Return `value`. Raise `ValueError` where the service could not connect with such a URL, ever."""
    parts = _split(value, ("redis", "rediss", "unix"))
    _check(parts, REDIS_TLS if parts.scheme == "rediss" else REDIS)
    return value


def _split(value: object, schemes: Collection[str]) -> SplitResult:
    """Return the parts of the URL `value`. Raise `ValueError` where it is none of `schemes`."""
    expected = (
        f"must look like {next(iter(schemes))}://user:password@host:port/name, special characters percent-encoded"
    )
    try:
        parts = urlsplit(str(value))
        several = "," in parts.netloc.rpartition("@")[2]
        _ = several or parts.port
    except ValueError:  # its message quotes the address, password included
        raise ValueError(expected) from None
    if several:
        raise ValueError("names several hosts: name one")
    if parts.scheme not in schemes:
        raise ValueError(expected)
    return parts


def _check(parts: SplitResult, known: Mapping[str, Callable[[str], bool]]) -> None:
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        shown = name if NAME.fullmatch(name) else "after its ?"
        if name not in known:
            raise ValueError(f"has a parameter that the service cannot use, {shown}: take it out")
        if known[name](value):
            continue
        if known[name] is _is_file:
            raise ValueError(
                f"{shown} must name a file that is there (`system` is none: name the bundle of certificates)"
            )
        raise ValueError(f"the value of its parameter {shown} is not valid: correct it, or take it out")
