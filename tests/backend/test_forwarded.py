"""Who the client is where proxies stand in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from backend.forwarded import Forwarded
from tests.backend.process import Service, serve, wait_until
from tests.notes import NOTES

PEER = "10.0.0.9"
TRUSTED = ("10.0.0.0/8", "192.0.2.1", "2001:db8:5::/48")
UNIX = ("/run/edge/backend", None)


async def told(
    *chain: str,
    trusted: tuple[str, ...] = TRUSTED,
    peer: str | None = PEER,
    proto: str | None = None,
    kind: str = "http",
) -> tuple[str | None, str]:
    """Return the address of the client and the scheme that the service is told."""
    seen: list[tuple[str | None, str]] = []

    async def service(scope: Scope, _: Receive, __: Send) -> None:
        seen.append((scope["client"][0] if scope["client"] else None, scope["scheme"]))

    headers = [(b"x-forwarded-for", each.encode()) for each in chain]
    headers += [(b"x-forwarded-proto", proto.encode())] if proto else []
    scope = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "client": (peer, 1234) if peer else None,
        "server": ("10.0.0.1", 8000) if peer else UNIX,
        "headers": headers,
    }
    await Forwarded(service, trusted=trusted)(scope, _nothing, _nothing)  # type: ignore[arg-type]
    return seen[0]


async def _nothing(*_: object) -> None: ...


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (("203.0.113.7",), "203.0.113.7"),
        (("6.6.6.6, 203.0.113.7",), "203.0.113.7"),  # what the client wrote itself
        (("6.6.6.6", "203.0.113.7"), "203.0.113.7"),  # in a header of its own
        (("6.6.6.6, 203.0.113.7, 192.0.2.1, 10.1.2.3",), "203.0.113.7"),  # over two more proxies
        (("6.6.6.6, 203.0.113.7", " 192.0.2.1 ,10.1.2.3 "), "203.0.113.7"),
        (("10.6.6.6, 203.0.113.7",), "203.0.113.7"),  # it claims to be a proxy
        (("203.0.113.7:4711",), "203.0.113.7"),
        (("6.6.6.6, [2001:db8::7]:4711, 10.1.2.3:80",), "2001:db8::7"),
        (("6.6.6.6, 2001:DB8:0::7, [2001:db8:5::1]",), "2001:db8::7"),
        (("6.6.6.6, ::ffff:203.0.113.7, ::ffff:10.1.2.3",), "203.0.113.7"),
        (("10.1.1.1, 10.2.2.2",), "10.1.1.1"),  # all of them are proxies: the first one asks for itself
        (("203.0.113.7, unknown, 10.1.2.3",), "10.1.2.3"),  # nobody can say who stands left of that
        (('203.0.113.7, fe80::1%a "zone", 10.1.2.3',), "10.1.2.3"),  # which may be any text
        (("unknown",), PEER),
        (("",), PEER),
        (("203.0.113.7, " + "9" * 5000,), PEER),
        ((), PEER),
    ],
)
async def test_the_client_is_the_last_address_that_no_trusted_proxy_has(chain: tuple[str, ...], client: str) -> None:
    """Read from the right, over headers that come twice, ports, IPv6 in each spelling, and what is no address."""
    assert (await told(*chain))[0] == client


@pytest.mark.parametrize("trusted", [("192.0.2.1",), ("10.0.0.10/32",), ()])
async def test_nobody_else_is_believed(trusted: tuple[str, ...]) -> None:
    """Headers of somebody who is no trusted proxy change neither address nor scheme."""
    assert await told("203.0.113.7", trusted=trusted, proto="https") == (PEER, "http")


async def test_a_star_trusts_who_connects_and_nobody_that_a_header_names() -> None:
    """In a cluster the edge has any address: the client is the one that the edge saw; a list may stand beside it."""
    assert (await told("6.6.6.6, 203.0.113.7", trusted=("*",)))[0] == "203.0.113.7"
    assert (await told("6.6.6.6, 203.0.113.7, 10.1.2.3", trusted=("*",)))[0] == "10.1.2.3"
    assert (await told("6.6.6.6, 203.0.113.7, 10.1.2.3", trusted=("*", "10.0.0.0/8")))[0] == "203.0.113.7"


async def test_who_connects_on_a_unix_socket_is_trusted() -> None:
    """Its folder has let them in. A client of TCP whose address is not known any more is nobody."""
    assert await told("6.6.6.6, 203.0.113.7", peer=None, trusted=(), proto="https") == ("203.0.113.7", "https")
    scope = {
        "type": "http",
        "client": None,
        "server": ("10.0.0.1", 8000),
        "headers": [(b"x-forwarded-for", b"6.6.6.6")],
    }

    async def service(scope: Scope, _: Receive, __: Send) -> None:
        assert scope["client"] is None

    await Forwarded(service, trusted=TRUSTED)(scope, _nothing, _nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "proto", "scheme"),
    [
        ("http", "https", "https"),
        ("http", "gopher", "http"),
        ("websocket", "https", "wss"),
        ("http", "https,http", "http"),
    ],
)
async def test_the_scheme_is_what_the_client_used(kind: str, proto: str, scheme: str) -> None:
    """That of a WebSocket follows; what is no scheme changes nothing."""
    assert (await told("203.0.113.7", proto=proto, kind=kind))[1] == scheme


def _asked(service: Service) -> list[dict[str, Any]]:
    return [one for one in service.events("request") if one["path"] == f"{NOTES}/"]


@pytest.mark.parametrize("on_socket", [True, False])
def test_the_process_logs_the_client_and_keeps_https(
    notes_environ: dict[str, str], tmp_path: Path, *, on_socket: bool
) -> None:
    """TRUSTED_PROXIES reaches the service, also with host bits: redirects keep https, and the log has the client."""
    forwarded = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    for trusted, seen in (("127.0.0.9/24", True), ("192.0.2.1", on_socket)):
        folder = tmp_path / trusted.partition("/")[0]
        folder.mkdir()
        environ = {**notes_environ, "TRUSTED_PROXIES": trusted}
        with serve(environ, folder, on_socket=on_socket) as service, service.client() as client:
            answer = client.get(f"{NOTES}/", headers=httpx2.Headers(forwarded))
            wait_until(lambda: _asked(service), "the log has no request")
            [event] = _asked(service)
        own = None if on_socket else "127.0.0.1"
        assert answer.headers["location"].partition(":")[0] == ("https" if seen else "http")
        assert event["client"] == ("203.0.113.7" if seen else own)
