"""Whose requests are counted together, and how many of them a minute may have."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from starlette.requests import HTTPConnection
from starlette.types import Scope

from backend.auth import Callers
from backend.problems import Problem
from backend.settings import Settings

__all__ = ["SERVICE_LIMIT", "Client", "Clients"]

SERVICE_LIMIT = 600_000  # requests a minute with SERVICE_TOKEN: no proof may run into it, and the shipped send 6,000
CREDENTIALS = frozenset({b"authorization", b"cookie"})
IPV6_PREFIX = 64  # what one customer gets from a provider; single addresses of it cost nothing


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its name among all that are counted, its kind (for the metric), and its requests a minute."""

    key: str
    kind: str
    policy: str
    limit: int


class Clients:
    """The clients that requests come from: SERVICE_TOKEN, an account, or else an address.

    Only a credential that is valid makes a client: with a wrong token the request is its address's, so that guessing
    tokens is limited, too.
    """

    def __init__(self, settings: Settings, callers: Callers) -> None:
        self._settings, self._callers = settings, callers
        self._service = Client("service", "service", "service", SERVICE_LIMIT)
        self._of_account = lru_cache(maxsize=10_000)(self._make_of_account)
        self._of_address = lru_cache(maxsize=10_000)(self._make_of_address)

    def __call__(self, scope: Scope) -> Client:
        """Return the client that the request of `scope` comes from."""
        if any(name in CREDENTIALS for name, _ in scope["headers"]):
            with contextlib.suppress(Problem):
                if caller := self._callers.find(HTTPConnection(scope)):
                    return self._of_account(caller.account.account) if caller.account else self._service
        return self.of_address(scope)

    def of_address(self, scope: Scope) -> Client:
        """Return the client that the address of `scope` is, whatever credentials came with the request."""
        client = scope.get("client")
        return self._of_address(client[0] if client else "")

    def _make_of_account(self, account: UUID) -> Client:
        return Client(f"account {account}", "account", "default", self._settings.api_rate_limit)

    def _make_of_address(self, host: str) -> Client:
        return Client(f"address {_counted(host)}", "address", "default", self._settings.api_rate_limit)


def _counted(host: str) -> str:
    """Return what is counted as one address: an IPv4 address, or the network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "unknown"  # a Unix socket has none
    if isinstance(address, ipaddress.IPv4Address):
        return host
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
