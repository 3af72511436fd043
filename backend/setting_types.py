"""The types of the settings: what each reads from a variable's text, and what it refuses."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, SecretStr

from backend.urls import checked_postgres_url, checked_redis_url

__all__ = ["Collector", "Domain", "Level", "Origin", "Origins", "PostgresUrl", "Proxies", "RedisUrl"]

DOMAIN = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
ORIGIN = re.compile(r"https?://[^/\s*?#@]+")


COLLECTOR = re.compile(r"https?://[^/\s?#@]+(/[^\s?#@]*)?")


def _comma_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _exact_origins(value: object) -> object:
    origins = _comma_list(value)
    if isinstance(origins, tuple) and not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("must be exact origins such as https://app.example.org, not * (credentials are used)")
    return origins


def _origin(value: object) -> object:
    value = value.removesuffix("/") if isinstance(value, str) else value
    if not isinstance(value, str) or not ORIGIN.fullmatch(value):
        raise ValueError("must be an address without a path, such as https://app.example.org")
    return value


def _collector(value: object) -> object:
    if not isinstance(value, str) or not COLLECTOR.fullmatch(value):
        raise ValueError("must be an address without a user or a query, such as http://collector:4318")
    return value.rstrip("/")


def _domain(value: object) -> object:
    if not isinstance(value, str) or not DOMAIN.fullmatch(value):
        raise ValueError("must be a name in lower case such as board.example.org, without https:// or a port")
    return value


def _proxies(value: object) -> object:
    hosts = _comma_list(value)
    if not isinstance(hosts, tuple):
        return hosts
    try:
        return tuple(host if host == "*" else str(ipaddress.ip_network(host, strict=False)) for host in hosts)
    except ValueError:
        raise ValueError("must be addresses or networks such as 10.0.0.0/8, or *") from None


Origin = Annotated[str, BeforeValidator(_origin)]
Collector = Annotated[str, BeforeValidator(_collector)]
Domain = Annotated[str, BeforeValidator(_domain)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_exact_origins)]
Proxies = Annotated[tuple[str, ...], BeforeValidator(_proxies)]
PostgresUrl = Annotated[SecretStr, BeforeValidator(checked_postgres_url)]
RedisUrl = Annotated[SecretStr, BeforeValidator(checked_redis_url)]
Level = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
