"""`/docs` in a real browser, under its policy and behind the edge."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from tests.page.conftest import Front, OpenPage

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def test_the_api_is_shown_and_tried_from_our_own_origin(open_page: OpenPage, front: Front) -> None:
    """Nothing is asked of another host, and the browser refuses nothing of it."""
    page = await open_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    await page.goto(f"{front.url}/docs")
    await page.locator(".opblock-summary-path", has_text="/health").click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    answer = page.locator(".live-responses-table .response-col_status")
    await expect(answer.last).to_contain_text("200")
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(front.url).netloc}
    assert f"{front.url}/health" in asked
