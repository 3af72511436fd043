"""The page in a real browser, in front of real replicas behind a real edge."""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from pipeline.system.ports import free_port
from pipeline.targets.local.edge import Edge
from pipeline.targets.local.layout import make_layout
from tests.backend.accounts.conftest import PASSWORD, _add, _sql  # noqa: F401 - fixtures, too
from tests.backend.process import Service, serve
from tests.edge import CADDY, CADDYFILE, running
from tests.tools import BROWSERS, need

PAGE = Path(__file__).parents[2] / "docker" / "frontend"
AXE = Path(sysconfig.get_path("purelib")) / "axe_playwright_python" / "axe.min.js"

OpenPage = Callable[..., Awaitable[Page]]
SECONDS = 1000
PATIENCE = 30 * SECONDS  # a machine may be busy
expect.set_options(timeout=PATIENCE)

# The smallest contrast of text with what lies behind it, and the text that has it (WCAG 2.2, 1.4.3). What only screen
# readers see is left out.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = texts.nextNode()); ) {
    const node = text.parentElement;
    if (!text.data.trim() || !node.checkVisibility() || node.closest(".unseen, noscript")) continue;
    const [one, other] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), text.data.trim()]);
  }
  return found.sort((one, other) => one[0] - other[0])[0];
}"""


@dataclass
class Front:
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium."""
    found = need(*BROWSERS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found)
        yield browser
        await browser.close()


@pytest.fixture
def front(environ: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Front]:
    """The page in front of an empty service: one replica, of the release `one`, with the settings of a parameter."""
    layout = make_layout(tmp_path / "state")
    layout.make()
    edge = Edge(layout, free_port())
    edge.place(PAGE)
    edge.write_config(CADDY, CADDYFILE, 2)
    front = Front(f"http://127.0.0.1:{edge.port}", edge, {**environ, **getattr(request, "param", {})})
    with running(edge, tmp_path), front.replicas:
        front.start(0, "one")
        yield front
    if not layout.run.is_relative_to(tmp_path):
        shutil.rmtree(layout.run)


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser, front: Front) -> AsyncIterator[OpenPage]:
    """Opens the page; what the browser refused or stumbled over fails the test."""
    complaints: list[str] = []

    async with AsyncExitStack() as contexts:

        async def opened(**options: Any) -> Page:
            context = await browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            contexts.push_async_callback(context.close)
            context.on("weberror", lambda found: complaints.append(str(found.error)))
            context.on("console", lambda said: None if "Failed to load" in said.text else complaints.append(said.text))
            page = await context.new_page()
            await page.goto(front.url)
            return page

        yield opened
    assert complaints == []


async def sign_in(page: Page, name: str = "anna", password: str = PASSWORD) -> None:
    """Fill the form, opening it where it is not, and send it."""
    if not await page.get_by_role("dialog", name="Sign in").is_visible():
        await page.get_by_role("button", name="Sign in").click()
    form = page.get_by_role("dialog", name="Sign in")
    await form.get_by_label("Name").fill(name)
    await form.get_by_label("Password").fill(password)
    await form.get_by_role("button", name="Sign in").click()


async def lose_access(page: Page) -> None:
    """Let the access token be over, as it is after JWT_EXPIRE_MINUTES, when a browser drops its cookie."""
    await page.context.clear_cookies(name=re.compile("-access$"))


async def barriers(page: Page) -> list[str]:
    """What axe-core finds in the page as it is now that is serious or critical, a line for each."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate("axe.run()")
    return [
        f"{one['id']}: {node['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
