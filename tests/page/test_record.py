"""Recording a release: on the page, by who may, and from `/docs`."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.backend.accounts.conftest import AUTH, PASSWORD, Add, Sql
from tests.page.conftest import CONTRAST, Front, OpenPage, barriers, lose_access, sign_in

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

RELEASES = "**/api/v1/releases"


async def fill(page: Page, **more: str) -> Locator:
    """Open the form and fill it, the fields that are optional by name; return the button that sends it."""
    await page.get_by_role("button", name="Record a release").click()
    form = page.get_by_role("dialog", name="Record a release")
    for label, text in {"Service": "checkout", "Environment": "production", "Version": "2.0.0", **more}.items():
        await form.get_by_label(label).fill(text)
    return form.get_by_role("button", name="Record")


class TestRecord:
    @pytest.mark.gate
    async def test_is_for_deployers(self, add: Add, open_page: OpenPage) -> None:
        """Who records a release sees it on the board; the form does not show to others."""
        add("anna", "viewer")
        add("ben", "deployer")
        page = await open_page()
        button = page.get_by_role("button", name="Record a release")
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        await expect(button).to_have_count(0)
        await sign_in(page, "anna")
        await expect(page.get_by_text("anna, viewer")).to_be_visible()
        await expect(button).to_have_count(0)
        await page.get_by_role("button", name="Sign out").click()
        await sign_in(page, "ben")
        send = await fill(page, Commit="3f2a9c1", Link="https://example.org/2.0.0", Notes="by hand")
        await send.click()
        await expect(page.locator("#releases > li")).to_have_text(re.compile("Deployed.*checkout.*2.0.0.*by hand"))
        await expect(page.get_by_role("cell")).to_contain_text(["2.0.0"])
        await expect(button).to_be_focused()

    async def test_says_what_is_wrong_beside_the_field(self, add: Add, open_page: OpenPage) -> None:
        """The first of them has the focus, what was typed stays, and once it is right, it is recorded."""
        add("anna")
        page = await open_page()
        await sign_in(page)
        send = await fill(page, Commit="v2", Link="example.org")
        await send.click()
        commit, link = page.get_by_label("Commit"), page.get_by_label("Link")
        await expect(commit).to_have_accessible_description(re.compile("match pattern"))
        await expect(link).to_have_accessible_description(re.compile("must start with https://"))
        await expect(commit).to_be_focused()
        await commit.fill("")
        await link.fill("https://example.org")
        await send.click()
        await expect(page.locator("#releases > li")).to_have_count(1)

    async def test_is_done_once_however_often_it_is_sent(self, add: Add, open_page: OpenPage) -> None:
        """An answer that is lost is asked for again; the same release later is another one."""
        add("anna")
        page = await open_page()
        await sign_in(page)

        async def lose(route: Route) -> None:
            await route.fetch()
            await route.abort()

        send = await fill(page)
        await page.route(RELEASES, lose)
        await send.click()
        await expect(page.get_by_role("alert")).to_have_text("The service does not answer.")
        await page.unroute(RELEASES)
        await send.click()
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(page.locator("#releases > li")).to_have_count(1)
        await (await fill(page)).click()
        await expect(page.locator("#releases > li")).to_have_count(2)

    async def test_outlives_the_access_token(self, add: Add, open_page: OpenPage) -> None:
        """Which is over while the form is filled."""
        add("anna")
        page = await open_page()
        await sign_in(page)
        send = await fill(page)
        await lose_access(page)
        await send.click()
        await expect(page.locator("#releases > li")).to_have_count(1)

    async def test_waits_for_who_has_to_sign_in_again(self, add: Add, sql: Sql, open_page: OpenPage) -> None:
        """The session ended meanwhile: what was typed is there after the sign-in."""
        add("anna")
        page = await open_page()
        await sign_in(page)
        send = await fill(page, Notes="typed with care")
        await lose_access(page)
        sql("DELETE FROM account_sessions")
        await send.click()
        await expect(page.get_by_role("dialog", name="Sign in")).to_contain_text("Your session has ended.")
        await sign_in(page)
        await expect(page.get_by_role("dialog", name="Sign in")).to_have_count(0)
        await expect(send).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#releases > li")).to_contain_text("typed with care")


@pytest.mark.parametrize("front", [{"ANONYMOUS_READ": "false"}], indirect=True)
async def test_the_board_is_for_accounts_where_it_is_closed(add: Add, front: Front, open_page: OpenPage) -> None:
    """It shows the sign-in, then what it has, and nothing once somebody signs out; a viewer stays signed in."""
    add("ben")
    add("anna", "viewer")
    page = await open_page()
    form = page.get_by_role("dialog", name="Sign in")
    await expect(form).to_be_visible()
    await sign_in(page, "ben")
    await (await fill(page)).click()
    await expect(page.get_by_role("cell")).to_contain_text(["2.0.0"])
    await page.get_by_role("button", name="Sign out").click()
    await expect(form).to_be_visible()
    for secret in ("checkout", "2.0.0"):
        await expect(page.get_by_text(secret)).to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(page.get_by_text("Sign in to read this.")).to_have_count(2)
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 401 else None)
    await page.wait_for_timeout(5000)
    assert refused == []  # it waits, and does not go on asking
    await sign_in(page, "anna")
    await expect(page.get_by_role("cell")).to_contain_text(["2.0.0"])
    await lose_access(page)
    await page.wait_for_timeout(4000)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await expect(page.get_by_role("cell")).to_contain_text(["2.0.0"])
    assert refused != []


class TestAccess:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_has_no_barriers(self, add: Add, open_page: OpenPage, scheme: str) -> None:
        """For axe-core, and each text has contrast: the board, and the form when it was refused."""
        add("anna")
        page = await open_page(color_scheme=scheme, reduced_motion="reduce")
        await sign_in(page)
        await (await fill(page)).click()
        await expect(page.locator("#releases > li")).to_have_count(1)
        assert await barriers(page) == []
        await (await fill(page, Commit="v2")).click()
        await expect(page.get_by_label("Commit")).to_have_attribute("aria-invalid", "true")
        assert await barriers(page) == []
        least, text = await page.evaluate(CONTRAST)
        assert least >= 4.5, text

    async def test_fits_a_phone(self, add: Add, open_page: OpenPage) -> None:
        """The form is scrolled where it is higher than the window, and never wider."""
        add("anna")
        page = await open_page(viewport={"width": 320, "height": 480})
        await sign_in(page)
        send = await fill(page)
        await send.scroll_into_view_if_needed()
        await expect(send).to_be_in_viewport()
        wide = "Math.max(...[...document.querySelectorAll('dialog *')].map(one => one.getBoundingClientRect().right))"
        assert await page.evaluate(wide) <= 320


async def test_the_api_page_signs_in(add: Add, front: Front, open_page: OpenPage) -> None:
    """With the access token of an account, `/docs` records a release; it asks nobody else, and nothing is refused."""
    add("anna")
    given = {"username": "anna", "password": PASSWORD}
    token = httpx2.post(f"{front.url}{AUTH}/login", json=given).json()["access_token"]
    page = await open_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    await page.goto(f"{front.url}/docs")
    await page.get_by_role("button", name="Authorize").first.click()
    scheme = page.locator(".auth-container", has_text="access_token of an account")
    await scheme.get_by_role("textbox").fill(token)
    await scheme.get_by_role("button", name=re.compile("Apply|Authorize")).click()
    await scheme.get_by_role("button", name="Close").click()
    route = page.locator(".opblock-post", has=page.get_by_text("/api/v1/releases", exact=True))
    await route.locator(".opblock-summary-path").click()
    await route.get_by_role("button", name="Try it out").click()
    body = {"service": "checkout", "environment": "production", "version": "2.0.0"}
    await route.locator("textarea").fill(json.dumps(body))
    await route.get_by_role("button", name="Execute").click()
    await expect(route.locator(".live-responses-table .response-col_status").last).to_contain_text("201")
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(front.url).netloc}
    assert httpx2.get(f"{front.url}/api/v1/releases").json()["items"][0]["version"] == "2.0.0"
