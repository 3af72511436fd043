"""Who answers, as a person sees it in a browser: the strip, whatever else is on the page."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.page.conftest import CONTRAST, SECONDS, Front, OpenPage

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


class TestStrip:
    async def test_names_the_release_that_answers(self, front: Front, open_page: OpenPage) -> None:
        """In a sentence, in the strip's label, in its legend; nothing failed."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        label = re.compile(r"^The last \d+ requests, oldest first: \d+ answered by release one\.$")
        await expect(page.get_by_role("img", name=label)).to_be_visible()
        await expect(
            page.get_by_text(re.compile(r"^\d+ requests since [\d:]+, none failed\. Median \d+ ms\.$"))
        ).to_be_visible()

    @pytest.mark.gate
    async def test_shows_a_rolling_update(self, front: Front, open_page: OpenPage) -> None:
        """Two releases take turns and differ by more than colour; then the new one answers alone. A digest is cut."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        digest = f"sha256:{'3f2a9c1b' * 8}+77aa5511"
        front.start(1, digest)
        await expect(page.get_by_text("Releases one and 3f2a9c1b3f2a+77aa take turns.")).to_be_visible()
        bars = page.locator("#legend .bar")
        await expect(bars).to_have_count(2)
        looks = await bars.evaluate_all("bars => bars.map(bar => getComputedStyle(bar).backgroundImage)")
        assert len(set(looks)) == 2
        front.edge.unlink(0)
        await expect(page.get_by_text("Release 3f2a9c1b3f2a+77aa answers")).to_be_visible()

    async def test_shows_failures_and_recovers(self, front: Front, open_page: OpenPage) -> None:
        """With nobody behind the edge, requests fail as crosses; then they are answered again."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        front.edge.unlink(0)
        await expect(page.get_by_text(re.compile(r"^No answer since [\d:]+\.$"))).to_be_visible()
        await expect(page.locator("#strip .bar[data-mark=failed]").last).to_be_visible()
        await expect(
            page.get_by_text(re.compile(r"failed \(the last at [\d:]+: 50[23] from the edge\)"))
        ).to_be_visible()
        front.start(1, "two")
        await expect(page.get_by_text(re.compile("^Release two answers"))).to_be_visible()

    async def test_tells_a_screen_reader_of_changes_alone(self, front: Front, open_page: OpenPage) -> None:
        """Five requests a second are no news; another release is, once."""
        page = await open_page()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        await page.wait_for_timeout(6 * SECONDS)
        await expect(page.get_by_role("status")).to_be_empty()
        front.start(1, "two")
        await expect(page.get_by_role("status")).to_have_text("Answered by release one and two.")


class TestAccess:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_has_contrast(self, front: Front, open_page: OpenPage, scheme: str) -> None:
        """4.5:1 for every text, in the light and in the dark."""
        front.start(1, "two")
        page = await open_page(color_scheme=scheme, reduced_motion="reduce")
        await expect(page.locator("#legend li")).to_have_count(2)
        least, text = await page.evaluate(CONTRAST)
        assert least >= 4.5, text

    @pytest.mark.parametrize("width", [320, 1280])
    async def test_fits(self, open_page: OpenPage, width: int) -> None:
        """Nothing is wider than the window."""
        page = await open_page(viewport={"width": width, "height": 780})
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width

    async def test_is_a_region_of_a_page_with_landmarks(self, open_page: OpenPage) -> None:
        """One of each landmark and one title; the strip has a heading and is a region of that name."""
        page = await open_page()
        for role in ("banner", "main", "contentinfo"):
            await expect(page.get_by_role(role)).to_have_count(1)
        await expect(page.get_by_role("heading", level=1)).to_have_count(1)
        await expect(page.get_by_role("heading", level=2).first).to_have_text("Who answers")
        await expect(page.get_by_role("region", name="Who answers")).to_have_count(1)

    async def test_keeps_still_for_who_asks(self, open_page: OpenPage) -> None:
        """With reduced motion, the strip is drawn once in two seconds."""
        page = await open_page(reduced_motion="reduce")
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        await page.evaluate("drawn = 0; new MutationObserver(() => (drawn += 1)).observe(tally, {childList: true})")
        await page.wait_for_timeout(5 * SECONDS)
        assert 1 <= await page.evaluate("drawn") <= 4

    async def test_says_so_without_scripts(self, open_page: OpenPage) -> None:
        """Who has switched scripts off is told."""
        page = await open_page(java_script_enabled=False)
        await expect(page.get_by_text("with a script that does not run here")).to_be_visible()
