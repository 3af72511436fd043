"""The edge's configuration, and a real Caddy with it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from pipeline.engines.embedded import find_engines
from pipeline.errors import SlipwayError
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from pipeline.targets.common.edge import settle
from pipeline.targets.local.edge import PAGE_HEADERS, Edge, edge_config
from pipeline.targets.local.layout import Layout


class TestEdgeConfig:
    def test_hides_no_failure(self) -> None:
        """No retries, and no reuse of a connection to a replica: a request reaches one replica once."""
        text = json.dumps(edge_config(Path("/run"), 3, 8080, ["127.0.0.1"], Path("/page")))
        assert '"retries": 0' in text
        assert '"keep_alive": {"enabled": false}' in text
        assert "try_duration" not in text

    def test_is_valid_for_caddy(self, tmp_path: Path) -> None:
        """Caddy itself accepts it."""
        path = tmp_path / "edge.json"
        path.write_text(json.dumps(edge_config(tmp_path, 3, 8080, ["127.0.0.1", "[::1]"], tmp_path)))
        subprocess.run(
            [find_engines().caddy, "validate", "--config", path],
            check=True,
            capture_output=True,
            env={"HOME": str(tmp_path)},
        )


class TestEdge:
    async def test_sends_a_request_once_even_when_its_connection_dies(self, layout: Layout, tmp_path: Path) -> None:
        """A replica that reads a GET and hangs up gets it once, and the client is told: the proof must see it."""
        seen = list[bytes]()
        edge = Edge(layout, free_port())
        edge.write_config(2)

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
        command = [str(find_engines().caddy), "run", "--config", str(layout.home / "edge.json")]
        with held(command, log=tmp_path / "caddy.log", env={"HOME": str(tmp_path)}):
            await asyncio.to_thread(edge.wait_up)
            await asyncio.to_thread(settle, time.monotonic())
            await asyncio.to_thread(edge.wait_admitted, 1, lambda: None)
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}") as client:
                answers = [await client.get("/once", headers={"Idempotency-Key": "k"}) for _ in range(3)]
        for server in servers:
            server.close()
        # One for each: nothing was sent again, and no client's failure takes a replica away from the others.
        assert [answer.status_code for answer in answers] == [502, 502, 502]
        assert len(seen) == 3

    def test_serves_the_page_that_was_placed_last(self, layout: Layout, tmp_path: Path) -> None:
        """A change shows at once, without a reload; a file that stayed keeps its ETag; one that went is a replica's."""
        page, edge = tmp_path / "page", Edge(layout, free_port())
        (page / "icons").mkdir(parents=True)
        for name in ("index.html", "style.css", "icons/one.svg"):
            (page / name).write_text(f"{name}, at first")
        edge.place(page)
        edge.write_config(1)
        command = [str(find_engines().caddy), "run", "--config", str(layout.home / "edge.json")]
        with (
            held(command, log=tmp_path / "caddy.log", env={"HOME": str(tmp_path)}),
            httpx2.Client(base_url=f"http://127.0.0.1:{edge.port}") as client,
        ):
            edge.wait_up()
            before = {path: client.get(path) for path in ("/", "/style.css", "/icons/one.svg")}
            (page / "index.html").write_text("index.html, changed")
            (page / "icons" / "one.svg").unlink()
            assert not edge.shows(page)
            edge.place(page)
            assert edge.shows(page)
            after = {path: client.get(path) for path in before}
            cached = client.get("/style.css", headers={"If-None-Match": before["/style.css"].headers["ETag"]})
        assert [answer.text for answer in before.values()] == [
            "index.html, at first", "style.css, at first", "icons/one.svg, at first"
        ]  # fmt: skip
        assert {name: before["/"].headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
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
