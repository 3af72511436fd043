"""What a person sees, reads and types on the board, in a browser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from playwright.async_api import Page, expect

from tests.conftest import TOKEN
from tests.page.conftest import CONTRAST, PATIENCE, Front, OpenPage

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

LONG = "a-service-with-a-name-as-long-as-the-board-lets-it-be-63-letters"[:63]


@dataclass
class Board:
    """The board behind `front`."""

    front: Front

    def report(self, **release: str) -> dict[str, Any]:
        """Record a release, as a pipeline does."""
        given = {"service": "checkout", "environment": "production", "version": "1.0.0", **release}
        answer = httpx2.post(
            f"{self.front.url}/api/v1/releases", json=given, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def change(self, release: dict[str, Any], **change: str) -> None:
        """Say what became of RELEASE."""
        url, headers = f"{self.front.url}/api/v1/releases/{release['id']}", {"Authorization": f"Bearer {TOKEN}"}
        assert httpx2.patch(url, json=change, headers=headers).status_code == 200


@pytest.fixture
def board(front: Front) -> Board:
    """A board with nothing on it."""
    return Board(front)


async def rows(page: Page) -> list[str]:
    """The list of releases, a line for each, its age left out."""
    return [
        re.sub(r"\s+", " ", row).rsplit(" just now", 1)[0]
        for row in await page.locator("#releases > li").all_inner_texts()
    ]


def fill(board: Board) -> None:
    """One release of each status, with every field."""
    board.report(version="1.0.0", status="deployed")
    board.report(version="1.1.0", status="rolled_back", notes="p95 rose\n\nfrom 40 ms to 310 ms")
    board.report(version="1.1.1", status="failed", commit="3f2a9c1d4e", notes="never got ready")
    board.report(version="1.2.0", status="deployed", environment="staging", url="https://example.org/1.2.0")
    board.report(version="1.2.0", environment="production")


class TestBoard:
    @pytest.mark.gate
    async def test_shows_what_runs_where(self, board: Board, open_page: OpenPage) -> None:
        """A table: a row for each service, a column for each environment, the version where they meet."""
        board.report(service="search", version="7", status="deployed")
        fill(board)
        table = (await open_page()).get_by_role("table", name="What runs where")
        await expect(table.get_by_role("row")).to_have_count(3)
        await expect(table.get_by_role("columnheader")).to_have_text(["Service", "production", "staging"])
        await expect(table.get_by_role("rowheader")).to_have_text(["checkout", "search"])
        await expect(table.get_by_role("cell")).to_have_text(["1.0.0 just now", "1.2.0 just now", "7 just now", ""])
        await expect(table.get_by_role("link", name="1.2.0")).to_have_attribute("href", "https://example.org/1.2.0")

    async def test_lists_releases_newest_first(self, board: Board, open_page: OpenPage) -> None:
        """With status, service, version, environment, commit, notes."""
        fill(board)
        page = await open_page()
        await expect(page.get_by_role("listitem").filter(has_text="1.0.0")).to_be_visible()
        assert await rows(page) == [
            "Pending checkout 1.2.0 in production",
            "Deployed checkout 1.2.0 in staging",
            "Failed checkout 1.1.1 in production 3f2a9c1",
            "Rolled back checkout 1.1.0 in production",
            "Deployed checkout 1.0.0 in production",
        ]

    async def test_refreshes_itself(self, board: Board, open_page: OpenPage) -> None:
        """A release appears, and changes, without a reload; what a reader had opened and focused stays so."""
        fill(board)
        page = await open_page()
        notes = page.get_by_text("p95 rose").first
        await notes.focus()
        await notes.press("Enter")
        await expect(page.get_by_text("from 40 ms to 310 ms")).to_be_visible()
        release = board.report(service="search", version="2025.11")
        row = page.get_by_role("list").locator("li", has_text="2025.11")
        await expect(row).to_contain_text("Pending")
        board.change(release, status="deployed")
        await expect(row).to_contain_text("Deployed")
        await expect(page.get_by_role("rowheader", name="search")).to_be_visible()
        await expect(notes).to_be_focused()
        await expect(page.get_by_text("from 40 ms to 310 ms")).to_be_visible()
        await expect(page.get_by_role("status")).to_contain_text(
            "search 2025.11 in production: deployed.", timeout=PATIENCE
        )

    async def test_shows_text_as_text(self, board: Board, open_page: OpenPage) -> None:
        """Markup in a version or a note is text, and no script of it runs."""
        board.report(version="<img src=x onerror=alert(1)>", status="deployed", notes="<script>alert(1)</script>")
        page = await open_page()
        await expect(page.get_by_text("<img src=x onerror=alert(1)>")).to_have_count(2)
        await expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()

    async def test_says_that_it_is_empty(self, open_page: OpenPage) -> None:
        """A board without a release says so, and how one gets there."""
        page = await open_page()
        await expect(page.get_by_text("Nothing was deployed yet.")).to_be_visible()
        await expect(page.get_by_text("POST /api/v1/releases records one.")).to_be_visible()
        await expect(page.get_by_role("table")).to_have_count(0)

    async def test_goes_back_in_pages(self, board: Board, open_page: OpenPage) -> None:
        """A button brings older ones, and reading goes on at the first of them; it leaves with the last page."""
        for number in range(35):
            board.report(version=f"1.0.{number}")
        page = await open_page()
        await expect(page.locator("#releases > li")).to_have_count(30)
        await page.get_by_role("button", name="Show older releases").press("Enter")
        await expect(page.locator("#releases > li")).to_have_count(35)
        await expect(page.locator("#releases > li", has_text="1.0.4")).to_be_focused()
        await expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)

    async def test_stays_with_its_age_while_nobody_answers(self, board: Board, open_page: OpenPage) -> None:
        """What was read last is shown with its time, and read again once a replica is back."""
        fill(board)
        page = await open_page()
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        board.front.edge.unlink(0)
        away = re.compile(r"^The service does not answer \(50[23]\)\. This is the board of [\d:]+\.$")
        await expect(page.get_by_text(away)).to_be_visible()
        await expect(page.locator("#releases > li")).to_have_count(5)
        board.front.start(1, "two")
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()


class TestAccess:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_has_contrast(self, board: Board, open_page: OpenPage, scheme: str) -> None:
        """4.5:1 for every text, in the light and in the dark."""
        fill(board)
        board.front.start(1, "two")
        page = await open_page(color_scheme=scheme, reduced_motion="reduce")
        await expect(page.locator("#legend li")).to_have_count(2)
        await page.get_by_text("p95 rose").first.click()
        least, text = await page.evaluate(CONTRAST)
        assert least >= 4.5, text

    @pytest.mark.parametrize("width", [320, 360, 1280])
    async def test_fits(self, board: Board, open_page: OpenPage, width: int) -> None:
        """Nothing is wider than the window, however long the names are."""
        board.report(service=LONG, environment=LONG[::-1].strip("-"), version="v" * 128, status="deployed")
        board.report(service=LONG, version="w" * 128, status="rolled_back", notes="n" * 500)
        page = await open_page(viewport={"width": width, "height": 780})
        await expect(page.locator("#releases > li")).to_have_count(2)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        heights = "[...document.querySelectorAll('time')].map(one => one.getBoundingClientRect().height)"
        assert max(await page.evaluate(heights)) < 30  # in one line
        right = "Math.max(...[...document.querySelectorAll('main *')].map(one => one.getBoundingClientRect().right))"
        assert await page.evaluate(right) <= width

    async def test_is_a_table_on_a_phone_too(self, board: Board, open_page: OpenPage) -> None:
        """Where it looks like blocks, it is still read as rows and cells."""
        fill(board)
        table = (await open_page(viewport={"width": 360, "height": 780})).get_by_role("table", name="What runs where")
        await expect(table.get_by_role("rowheader", name="checkout")).to_be_visible()
        await expect(table.get_by_role("cell")).to_have_count(2)

    async def test_has_landmarks_and_headings(self, board: Board, open_page: OpenPage) -> None:
        """One of each landmark, named regions, and headings in order."""
        page = await open_page()
        for role in ("banner", "main", "contentinfo"):
            await expect(page.get_by_role(role)).to_have_count(1)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Release board")
        titles = ["Who answers", "What runs where", "Releases"]
        await expect(page.get_by_role("heading", level=2)).to_have_text(titles)
        for title in titles:
            await expect(page.get_by_role("region", name=title)).to_have_count(1)

    async def test_works_by_keyboard(self, board: Board, open_page: OpenPage) -> None:
        """The first stop leads past the strip, each later one is visible, and the notes open."""
        fill(board)
        page = await open_page()
        await expect(page.locator("#releases > li")).to_have_count(5)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the releases")).to_be_in_viewport()
        await page.keyboard.press("Enter")
        stops = []
        for _ in range(3):
            await page.keyboard.press("Tab")
            stops.append(await page.evaluate("document.activeElement.textContent"))
            assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        assert stops == ["1.2.0", "p95 rose", "The API"]

    async def test_keeps_still_for_who_asks(self, board: Board, open_page: OpenPage) -> None:
        """With reduced motion, nothing that is new is animated."""
        page = await open_page(reduced_motion="reduce")
        await expect(page.get_by_text("Nothing was deployed yet.")).to_be_visible()
        board.report()
        await expect(page.locator("#releases > li")).to_have_count(1)
        assert await page.evaluate("document.getAnimations().length") == 0

    async def test_points_to_the_data_without_scripts(self, open_page: OpenPage) -> None:
        """Who has switched scripts off gets the same data."""
        page = await open_page(java_script_enabled=False)
        await expect(page.get_by_role("link", name="releases", exact=True)).to_have_attribute(
            "href", "/api/v1/releases"
        )
