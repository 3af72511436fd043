"""The edge's configuration, and a real Caddy with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipeline.errors import SlipwayError
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from pipeline.targets.common.edge import SETTLE_SECONDS, settle
from pipeline.targets.local.edge import Edge, loopback_addresses
from pipeline.targets.local.layout import Layout
from tests.backend.process import Service, serve, wait_until
from tests.certificates import certificates
from tests.edge import CADDY, CADDYFILE, handlers, page_headers, running
from tests.notes import NOTES


@pytest.fixture(name="layout")
def _layout() -> Iterator[Layout]:
    """The folders of an environment below a path of what means something to Caddy, to its Caddyfile or to JSON."""
    with tempfile.TemporaryDirectory() as short:  # enough for a socket
        home = Path(short) / r"""\a b'"`ü#{x}{$HOME}"""
        layout = Layout(home, home / "run", home / "postgres", home / "run")
        layout.make()
        yield layout


async def serving(path: Path, asked: Callable[[bytes], Awaitable[None]]) -> asyncio.Server:
    """Answer each request at the socket `path` with 200 once `asked`, which is given its head, has returned."""

    async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asked(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    return await asyncio.start_unix_server(replica, path)


class TestEdgeConfig:
    def test_gives_the_caddyfile_this_machines_values(self, layout: Layout) -> None:
        """Loopback addresses alone, a slot for each replica, the page, and a way in on a socket for this user."""
        config = json.loads(Edge(layout, 8080, "10.0.0.0/8 192.0.2.1").config(CADDY, CADDYFILE, 2))
        run = f"unix/{layout.run}".replace("{", r"\{")
        [server] = config["apps"]["http"]["servers"].values()
        [proxy] = handlers(config, "reverse_proxy")
        assert server["trusted_proxies"]["ranges"] == ["10.0.0.0/8", "192.0.2.1"]
        assert server["listen"] == [f"{address}:8080" for address in loopback_addresses()]
        assert proxy["upstreams"] == [{"dial": f"{run}/edge-{slot}"} for slot in range(2)]
        assert config["admin"] == {"listen": f"{run}/caddy.sock|0600", "config": {"persist": False}}

    def test_says_what_caddy_does_not_accept(self, layout: Layout, tmp_path: Path) -> None:
        """The file, the line and the word; the configuration that runs stays."""
        wrong, edge = tmp_path / "Caddyfile", Edge(layout, 8080)
        edge.write_config(CADDY, CADDYFILE, 1)
        wrong.write_text(CADDYFILE.read_text().replace("lb_policy", "lb_polizy"))
        with pytest.raises(SlipwayError, match=r"not accept .*Caddyfile: .*lb_polizy"):
            edge.write_config(CADDY, wrong, 7)
        assert edge.follows(CADDYFILE)
        assert not edge.follows(wrong)
        assert edge.configured_port() == 8080

    def test_knows_the_port_of_an_earlier_version(self, layout: Layout) -> None:
        """Its file was written without a Caddyfile, and called the server something else."""
        edge = Edge(layout, 8080)
        edge.file.write_text(json.dumps({"apps": {"http": {"servers": {"edge": {"listen": ["127.0.0.1:8081"]}}}}}))
        assert edge.configured_port() == 8081


class TestEdge:
    async def test_sends_a_request_once_even_when_its_connection_dies(self, layout: Layout, tmp_path: Path) -> None:
        """A replica that reads a GET and hangs up gets it once, and the client is told: the proof must see it."""
        seen = list[bytes]()
        edge = Edge(layout, free_port())
        edge.write_config(CADDY, CADDYFILE, 2)

        async def replica(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/ready" in head or b"/health" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
            else:
                seen.append(head)
            writer.close()

        servers = [await asyncio.start_unix_server(replica, path=str(layout.run / f"r{slot}")) for slot in range(2)]
        for slot in range(2):
            edge.link(slot, layout.run / f"r{slot}")
        with running(edge, tmp_path):
            await asyncio.to_thread(settle, time.monotonic())
            await asyncio.to_thread(edge.wait_admitted, 1, lambda: None)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
                answers = [await client.get("/once", headers={"Idempotency-Key": "k"}) for _ in range(3)]
        for server in servers:
            server.close()
        # One for each: nothing was sent again, and no client's failure takes a replica away from the others.
        assert [answer.status_code for answer in answers] == [502, 502, 502]
        assert len(seen) == 3

    async def test_asks_slow_replicas_when_no_other_is_left(self, layout: Layout, tmp_path: Path) -> None:
        """Checks that all time out close nothing; a replica that is gone is asked by nobody."""
        hung, seen, over = set[int](), list[int](), asyncio.Event()
        edge = Edge(layout, free_port())
        edge.write_config(CADDY, CADDYFILE, 2)
        edge.file.write_text(edge.file.read_text().replace('"timeout": 5000000000', '"timeout": 100000000'))

        async def asked(slot: int, head: bytes) -> None:
            if b"/ready" not in head:
                seen.append(slot)
            elif slot in hung:
                await over.wait()

        async def posted(times: int) -> list[int]:
            seen.clear()
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
                return [(await client.post("/")).status_code for _ in range(times)]

        servers = [await serving(layout.run / f"edge-{slot}", partial(asked, slot)) for slot in (0, 1)]
        with running(edge, tmp_path):
            await asyncio.sleep(SETTLE_SECONDS)
            hung.add(0)
            await asyncio.sleep(1)
            assert await posted(10) == [200] * 10
            assert set(seen) == {1}  # one is slow: the other has its requests
            hung.add(1)
            await asyncio.sleep(1)
            assert await posted(10) == [200] * 10
            assert set(seen) == {0, 1}
            for server in servers:
                server.close()
            assert await posted(3) == [503] * 3
        over.set()
        await asyncio.sleep(0.1)

    async def test_tells_the_service_who_its_client_is(self, layout: Layout, tmp_path: Path) -> None:
        """What a trusted proxy saw itself counts; what it passed on, or what anybody else says, does not."""
        chains = [
            [("X-Forwarded-For", "6.6.6.6, 203.0.113.7")],
            [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "203.0.113.7:4711")],
            [("X-Forwarded-For", "6.6.6.6, 2001:db8::7, 127.0.0.1")],
        ]
        heads = list[bytes]()

        async def asked(head: bytes) -> None:
            heads.extend([head] if b"/who" in head else [])

        server = await serving(layout.run / "edge-0", asked)
        for trusted in ("127.0.0.1", "192.0.2.1"):
            edge = Edge(layout, free_port(), trusted)
            edge.write_config(CADDY, CADDYFILE, 1)
            with running(edge, tmp_path):
                await asyncio.sleep(SETTLE_SECONDS)
                async with httpx2.AsyncClient() as client:
                    for chain in chains:
                        headers = [*chain, ("X-Forwarded-Proto", "https")]
                        await client.get(f"http://127.0.0.1:{edge.port}/who", headers=headers)
        server.close()
        names = (b"X-Forwarded-For", b"X-Forwarded-Proto")
        told = [[re.findall(b"%s: (.*)\r" % name, head) for name in names] for head in heads]
        clients = [b"203.0.113.7", b"203.0.113.7", b"2001:db8::7"]
        assert told == [*([[client], [b"https"]] for client in clients), *([[[b"127.0.0.1"], [b"http"]]] * 3)]

    def test_serves_the_page_that_was_placed_last(self, layout: Layout, tmp_path: Path) -> None:
        """A change shows at once, without a reload; a file that stayed keeps its ETag; one that went is a replica's."""
        page, edge = tmp_path / "page", Edge(layout, free_port())
        (page / "icons").mkdir(parents=True)
        for name in ("index.html", "style.css", "icons/one.svg"):
            (page / name).write_text(f"{name}, at first")
        edge.place(page)
        edge.write_config(CADDY, CADDYFILE, 1)
        with running(edge, tmp_path), httpx2.Client(base_url=f"http://127.0.0.1:{edge.port}") as client:
            before = {path: client.get(path) for path in ("/", "/style.css", "/icons/one.svg")}
            (page / "index.html").write_text("index.html, changed")
            (page / "icons" / "one.svg").unlink()
            assert not edge.shows(page)
            edge.place(page)
            assert edge.shows(page)
            after = {path: client.get(path) for path in before}
            cached = client.get("/style.css", headers={"If-None-Match": before["/style.css"].headers["ETag"]})
            edge.port = free_port()
            assert [edge.write_config(CADDY, CADDYFILE, 1) for _ in range(2)] == [True, False]
            edge.reload()
            assert httpx2.get(f"http://127.0.0.1:{edge.configured_port()}").text == "index.html, changed"
        assert [answer.text for answer in before.values()] == [
            "index.html, at first", "style.css, at first", "icons/one.svg, at first"
        ]  # fmt: skip
        wanted = page_headers(tmp_path)
        assert {name: before["/"].headers[name] for name in wanted} == wanted
        assert after["/"].text == "index.html, changed"
        assert after["/"].headers["ETag"] != before["/"].headers["ETag"]
        assert cached.status_code == 304
        assert after["/icons/one.svg"].status_code in (502, 503)  # no replica is there to ask

    def test_needs_no_page(self, layout: Layout, tmp_path: Path) -> None:
        """A project that has none gives every path to its service."""
        edge = Edge(layout, free_port())
        edge.place(tmp_path / "nowhere")
        assert edge.shows(tmp_path / "nowhere")

    def test_says_when_nothing_listens(self, layout: Layout) -> None:
        """An edge that does not come up is named with its port and its log."""
        edge = Edge(layout, free_port())
        with pytest.raises(SlipwayError, match=rf"does not listen on port {edge.port}; see .*edge.log"):
            edge.wait_up(0.1)


# As nginx does with $proxy_add_x_forwarded_for: what its client says of itself stays in front.
TLS_PROXY = """
{{
	admin off
	auto_https off
	persist_config off
}}
https://localhost:{port} {{
	bind 127.0.0.1
	tls {folder}/own.pem {folder}/own.key
	reverse_proxy 127.0.0.1:{edge} {{
		header_up X-Forwarded-For "{{header.X-Forwarded-For}}, {{remote_host}}"
	}}
}}
"""


@pytest.mark.needs("openssl")  # makes certificates
@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of this machine on Linux alone")
@pytest.mark.parametrize(("trusted", "seen"), [("127.0.0.1", True), ("192.0.2.1", False)])
def test_behind_a_tls_proxy_links_stay_https_and_the_log_has_the_client(
    layout: Layout, notes_environ: dict[str, str], tmp_path: Path, trusted: str, *, seen: bool
) -> None:
    """TLS ends before the edge, which trusts who ended it; one that it does not trust is the client itself."""
    context = ssl.create_default_context(cafile=certificates(tmp_path))
    edge, port = Edge(layout, free_port(), trusted), free_port()
    edge.write_config(CADDY, CADDYFILE, 1)
    file = tmp_path / "Caddyfile"
    file.write_text(TLS_PROXY.format(port=port, folder=tmp_path, edge=edge.port))
    proxy = [str(CADDY), "run", "--config", str(file), "--adapter", "caddyfile"]
    client = httpx2.Client(transport=httpx2.HTTPTransport(verify=context, local_address="127.0.0.2"))
    with (
        serve(notes_environ, tmp_path) as service,
        running(edge, tmp_path),
        held(proxy, log=tmp_path / "proxy.log", env={"HOME": str(tmp_path)}),
        client,
    ):
        edge.link(0, Path(service.path))
        edge.wait_admitted(0, lambda: None)
        settle(time.monotonic())  # it may still send requests to the places of other replicas
        wait_until(lambda: listens(port), "the proxy does not listen")
        answer = client.get(f"https://localhost:{port}{NOTES}/", headers={"X-Forwarded-For": "6.6.6.6"})
        wait_until(lambda: asked(service), f"the log has no request: {answer}")
        [event] = asked(service)
    assert answer.headers["location"] == f"{'https' if seen else 'http'}://localhost:{port}{NOTES}"
    assert event["client"] == ("127.0.0.2" if seen else "127.0.0.1")


def asked(service: Service) -> list[dict[str, Any]]:
    """Return what the log has of the request."""
    return [one for one in service.events("request") if one["path"] == f"{NOTES}/"]


def listens(port: int) -> bool:
    """Return whether something listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
