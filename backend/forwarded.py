"""Who the client is where proxies stand before the service: `X-Forwarded-For` and `X-Forwarded-Proto`, if trusted.

uvicorn's own layer does not do: for `*` it takes the leftmost address, which anybody may write; it never trusts a Unix
socket beside a list; and a text that is no address becomes the client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Forwarded"]

ANYBODY = "*"
LONGEST = 64  # characters: an IPv6 address that ends as an IPv4 one, in brackets, and a port are 53
REMEMBERED = 4096  # addresses: reading one takes 2 µs
SCHEMES = {b"http": {"http": "http", "websocket": "ws"}, b"https": {"http": "https", "websocket": "wss"}}


class Forwarded:
    """The layer that puts the client's address and scheme into the scope, as far as the proxies `trusted` say them.

    `trusted` are addresses and networks; `*` is whoever connects, but nobody that a header names. Who connects on a
    Unix socket is trusted: the mode of its folder has let them in. Addresses are read from the right, where each proxy
    appends the one that it saw, until one is not trusted; what stands left of it was only claimed.
    """

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str]) -> None:
        self.app = app
        self._anybody = ANYBODY in trusted
        self._networks = [ipaddress.ip_network(one) for one in trusted if one != ANYBODY]
        self._trusts = lru_cache(maxsize=REMEMBERED)(self._look_up)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in ("http", "websocket"):
            client = scope.get("client")
            if self._anybody or (self._trusts(client[0]) if client else _on_unix_socket(scope)):
                self._read(scope)
        await self.app(scope, receive, send)

    def _read(self, scope: Scope) -> None:
        chain = list[bytes]()
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                chain.append(value)
            elif name == b"x-forwarded-proto" and value.strip() in SCHEMES:
                scope["scheme"] = SCHEMES[value.strip()][scope["type"]]
        if chain and (address := self._client(b",".join(chain).decode("latin-1").split(","))):
            scope["client"] = (address, 0)

    def _client(self, chain: Sequence[str]) -> str | None:
        """Return the last address from the right that a trusted proxy vouches for; None where there is none."""
        found: str | None = None
        for text in reversed(chain):
            address = _address(text.strip()) if len(text) < LONGEST else None
            if address is None:
                break  # whatever this is, nobody can say who stands left of it
            found = address
            if not self._trusts(address):
                break
        return found

    def _look_up(self, host: str) -> bool:
        address = _parsed(host)
        return address is not None and any(address in network for network in self._networks)


def _on_unix_socket(scope: Scope) -> bool:
    # Of a client over TCP that has gone already, uvicorn knows no address either.
    server = scope.get("server")
    return server is not None and server[1] is None


@lru_cache(maxsize=REMEMBERED)
def _address(text: str) -> str | None:
    """Return the address in `text`, which may have a port (and an IPv6 address then brackets); None if it is none."""
    if "%" in text:  # a zone, which names an interface of the host that wrote it, and may be any text
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = _parsed(text)
    return None if address is None else str(address)


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # a socket for both kinds shows IPv4 as ::ffff:192.0.2.1
