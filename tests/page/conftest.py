"""The page in a real browser, in front of real replicas behind a real edge."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from pipeline.system.ports import free_port
from pipeline.targets.local.edge import Edge
from pipeline.targets.local.layout import make_layout
from tests.backend.process import Service, serve
from tests.conftest import TOKEN
from tests.edge import CADDY, CADDYFILE, running
from tests.tools import BROWSERS, need

PAGE = Path(__file__).parents[2] / "docker" / "frontend"

OpenPage = Callable[..., Awaitable[Page]]


@dataclass
class Board:
    """The edge on `url` with the page, and its replicas."""

    url: str
    edge: Edge
    environ: dict[str, str]
    replicas: ExitStack = field(default_factory=ExitStack)

    def start(self, slot: int, release: str) -> Service:
        """A replica of RELEASE that answers through the edge."""
        folder = self.edge.layout.run / str(slot)  # short enough for a socket
        folder.mkdir()
        service = self.replicas.enter_context(serve({**self.environ, "RELEASE": release}, folder))
        self.edge.link(slot, Path(service.path))
        self.edge.wait_admitted(slot, lambda: None)
        return service

    def report(self, **release: str) -> dict[str, Any]:
        """Record a release, as a pipeline does."""
        given = {"service": "checkout", "environment": "production", "version": "1.0.0", **release}
        answer = httpx2.post(f"{self.url}/api/v1/releases", json=given, headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def change(self, release: dict[str, Any], **change: str) -> None:
        """Say what became of RELEASE."""
        url, headers = f"{self.url}/api/v1/releases/{release['id']}", {"Authorization": f"Bearer {TOKEN}"}
        assert httpx2.patch(url, json=change, headers=headers).status_code == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium."""
    found = need(*BROWSERS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found)
        yield browser
        await browser.close()


@pytest.fixture
def board(environ: dict[str, str], tmp_path: Path) -> Iterator[Board]:
    """A board with nothing on it, answered by one replica of the release `one`."""
    layout = make_layout(tmp_path / "state")
    layout.make()
    edge = Edge(layout, free_port())
    edge.place(PAGE)
    edge.write_config(CADDY, CADDYFILE, 2)
    board = Board(f"http://127.0.0.1:{edge.port}", edge, environ)
    with running(edge, tmp_path), board.replicas:
        board.start(0, "one")
        yield board
    if not layout.run.is_relative_to(tmp_path):
        shutil.rmtree(layout.run)


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser, board: Board) -> AsyncIterator[OpenPage]:
    """Opens the board; what the browser refused or stumbled over fails the test."""
    complaints: list[str] = []

    async with AsyncExitStack() as contexts:

        async def opened(**options: Any) -> Page:
            context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            contexts.push_async_callback(context.close)
            page = await context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if "Failed to load" not in said.text else None)
            await page.goto(board.url)
            return page

        yield opened
    assert complaints == []
