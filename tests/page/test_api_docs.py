"""`/docs` in a real browser, under its policy and behind the edge."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from playwright.async_api import Locator, Page, expect

from tests.backend.accounts.conftest import AUTH, PASSWORD, Add
from tests.page.conftest import Front, OpenPage

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def execute(page: Page, method: str, path: str, body: str = "") -> Locator:
    """Try a route out there, with a `body`; return where its answer is shown."""
    name = page.locator(f'.opblock-summary-path[data-path="{path}"]')
    block = page.locator(f".opblock-{method}", has=name)
    await name.click()
    await block.get_by_role("button", name="Try it out").click()
    if body:
        await block.locator("textarea").fill(body)
    await block.get_by_role("button", name="Execute").click()
    return block.locator(".live-responses-table")


async def test_the_api_is_shown_and_tried_from_our_own_origin(open_page: OpenPage, front: Front) -> None:
    """Nothing is asked of another host, and the browser refuses nothing of it."""
    page = await open_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    await page.goto(f"{front.url}/docs")
    answer = await execute(page, "get", "/health")
    await expect(answer.locator(".response-col_status").last).to_contain_text("200")
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(front.url).netloc}
    assert f"{front.url}/health" in asked


async def test_who_signs_in_there_may_do_what_the_account_may(open_page: OpenPage, front: Front, add: Add) -> None:
    """With the cookies of the page, which it never sees: it reads who calls, and ends the session."""
    add("anna")
    page = await open_page()
    await page.goto(f"{front.url}/docs")
    given = f'{{"username": "anna", "password": "{PASSWORD}", "cookie": true}}'
    signed_in = await execute(page, "post", f"{AUTH}/login", given)
    await expect(signed_in).to_contain_text('"expires_in"')
    assert "access_token" not in await signed_in.inner_text()
    await expect(await execute(page, "get", f"{AUTH}/me")).to_contain_text('"anna"')
    ended = await execute(page, "delete", f"{AUTH}/sessions")
    await expect(ended.locator(".response-col_status").last).to_contain_text("204")
