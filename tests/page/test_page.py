"""What a person sees, reads and types on the board, in a browser."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.page.conftest import Board, OpenPage

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SECONDS = 1000
PATIENCE = 30 * SECONDS  # the board is read every 3 s, and a busy machine is late
expect.set_options(timeout=PATIENCE)
LONG = "a-service-with-a-name-as-long-as-the-board-lets-it-be-63-letters"[:63]

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
        await expect(page.get_by_role("button")).to_have_count(0)


class TestStrip:
    async def test_names_the_release_that_answers(self, board: Board, open_page: OpenPage) -> None:
        """In a sentence, in the strip's label, in its legend; nothing failed."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        label = re.compile(r"^The last \d+ requests, oldest first: \d+ answered by release one\.$")
        await expect(page.get_by_role("img", name=label)).to_be_visible()
        await expect(
            page.get_by_text(re.compile(r"^\d+ requests since [\d:]+, none failed\. Median \d+ ms\.$"))
        ).to_be_visible()

    @pytest.mark.gate
    async def test_shows_a_rolling_update(self, board: Board, open_page: OpenPage) -> None:
        """Two releases take turns and differ by more than colour; then the new one answers alone. A digest is cut."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        digest = f"sha256:{'3f2a9c1b' * 8}+77aa5511"
        board.start(1, digest)
        await expect(page.get_by_text("Releases one and 3f2a9c1b3f2a+77aa take turns.")).to_be_visible()
        bars = page.locator("#legend .bar")
        await expect(bars).to_have_count(2)
        looks = await bars.evaluate_all("bars => bars.map(bar => getComputedStyle(bar).backgroundImage)")
        assert len(set(looks)) == 2
        board.edge.unlink(0)
        await expect(page.get_by_text("Release 3f2a9c1b3f2a+77aa answers")).to_be_visible()

    async def test_shows_failures_and_recovers(self, board: Board, open_page: OpenPage) -> None:
        """With nobody behind the edge, requests fail as crosses, the board stays with its age, and both come back."""
        fill(board)
        page = await open_page()
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        board.edge.unlink(0)
        await expect(page.get_by_text(re.compile(r"^No answer since [\d:]+\.$"))).to_be_visible()
        await expect(page.locator("#strip .bar[data-mark=failed]").last).to_be_visible()
        await expect(
            page.get_by_text(re.compile(r"failed \(the last at [\d:]+: 50[23] from the edge\)"))
        ).to_be_visible()
        away = re.compile(r"^The service does not answer \(50[23]\)\. This is the board of [\d:]+\.$")
        await expect(page.get_by_text(away)).to_be_visible()
        await expect(page.locator("#releases > li")).to_have_count(5)
        board.start(1, "two")
        await expect(page.get_by_text(re.compile("^Release two answers"))).to_be_visible()
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()

    async def test_tells_a_screen_reader_of_changes_alone(self, board: Board, open_page: OpenPage) -> None:
        """Five requests a second are no news; another release is, once."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        await page.wait_for_timeout(6 * SECONDS)
        await expect(page.get_by_role("status")).to_be_empty()
        board.start(1, "two")
        await expect(page.get_by_role("status")).to_have_text("Answered by release one and two.")


class TestAccess:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_has_contrast(self, board: Board, open_page: OpenPage, scheme: str) -> None:
        """4.5:1 for every text, in the light and in the dark."""
        fill(board)
        board.start(1, "two")
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
        """With reduced motion nothing is animated, and the strip is drawn once in two seconds."""
        page = await open_page(reduced_motion="reduce")
        await expect(page.get_by_text("Nothing was deployed yet.")).to_be_visible()
        board.report()
        await expect(page.locator("#releases > li")).to_have_count(1)
        assert await page.evaluate("document.getAnimations().length") == 0
        await page.evaluate("drawn = 0; new MutationObserver(() => (drawn += 1)).observe(tally, {childList: true})")
        await page.wait_for_timeout(5 * SECONDS)
        assert 1 <= await page.evaluate("drawn") <= 4

    async def test_points_to_the_data_without_scripts(self, open_page: OpenPage) -> None:
        """Who has switched scripts off is told, and gets the same data."""
        page = await open_page(java_script_enabled=False)
        await expect(page.get_by_text("with a script that does not run here")).to_be_visible()
        await expect(page.get_by_role("link", name="releases", exact=True)).to_have_attribute(
            "href", "/api/v1/releases"
        )
