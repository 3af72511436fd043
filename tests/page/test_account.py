"""Signing in on the page, staying so, and signing out, in a browser."""

from __future__ import annotations

import asyncio
import re

import httpx2
import pytest
from playwright.async_api import Page, expect

from tests.backend.accounts.conftest import AUTH, Add, Sql
from tests.page.conftest import CONTRAST, Front, OpenPage, barriers, lose_access, sign_in

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ENDED = "Your session has ended."


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the button of that name has the focus."""
    for _ in range(20):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent") == name:
            return
    pytest.fail(f"no way to {name} by keyboard")


class TestSignIn:
    @pytest.mark.gate
    async def test_works_by_keyboard_alone(self, add: Add, open_page: OpenPage) -> None:
        """In, and out again; the focus is where one goes on, and no script can read what the browser keeps."""
        add("anna")
        page = await open_page()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        await tab_to(page, "Sign in")
        await page.keyboard.press("Enter")
        await page.keyboard.type("anna")
        await page.keyboard.press("Tab")
        await page.keyboard.type("a password of tests")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("anna, deployer")).to_be_visible()
        await expect(page.get_by_role("button", name="Sign out")).to_be_focused()
        assert await page.evaluate("JSON.stringify([document.cookie, localStorage])") == '["",{"signed-in":"yes"}]'
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Sign in")).to_be_focused()
        assert await page.evaluate("JSON.stringify(localStorage)") == "{}"
        assert await page.context.cookies() == []

    async def test_says_that_a_password_is_wrong(self, add: Add, front: Front, open_page: OpenPage) -> None:
        """In the service's words, with the password selected to be typed anew; the right one is let in then."""
        add("anna")
        wrong = httpx2.post(f"{front.url}{AUTH}/login", json={"username": "anna", "password": "wrong"})
        page = await open_page()
        await sign_in(page, password="wrong")
        await expect(page.get_by_role("alert")).to_have_text(wrong.json()["detail"])
        await expect(page.get_by_label("Password")).to_be_focused()
        await page.keyboard.type("a password of tests")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("anna, deployer")).to_be_visible()

    async def test_says_which_field_is_wrong(self, open_page: OpenPage) -> None:
        """Beside it, and that is where the focus goes."""
        page = await open_page()
        await sign_in(page, name="Anna Smith")
        field = page.get_by_label("Name")
        await expect(field).to_have_accessible_description(re.compile("match pattern"))
        await expect(field).to_be_focused()
        await expect(page.get_by_role("alert")).to_be_empty()

    @pytest.mark.parametrize(
        ("front", "why"),
        [
            ({"FRONTEND_URL": "https://board.example.org"}, "sign in at https://board.example.org"),
            ({"JWT_SECRET_KEY": ""}, "started without JWT_SECRET_KEY"),
        ],
        indirect=["front"],
    )
    async def test_says_why_the_service_refuses(self, open_page: OpenPage, why: str) -> None:
        """Cookies that would not hold, and a service that lets nobody in."""
        page = await open_page()
        await sign_in(page)
        await expect(page.get_by_role("alert")).to_contain_text(why)

    async def test_can_be_left(self, open_page: OpenPage) -> None:
        """By Escape or by Cancel; what was typed is gone."""
        page = await open_page()
        form = page.get_by_role("dialog", name="Sign in")
        for key in ("Escape", "Enter"):
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.get_by_label("Password")).to_be_empty()
            await page.get_by_label("Password").fill("secret")
            if key == "Enter":
                await form.get_by_role("button", name="Cancel").focus()
            await page.keyboard.press(key)
            await expect(form).to_be_hidden()
            await expect(page.get_by_role("button", name="Sign in")).to_be_focused()

    async def test_is_asked_of_nobody(self, front: Front, open_page: OpenPage) -> None:
        """Who never signed in causes no request for it, and none that is refused."""
        page = await open_page()
        asked: list[tuple[str, int]] = []
        page.on("response", lambda answer: asked.append((answer.url.removeprefix(front.url), answer.status)))
        await page.reload()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        assert [one for one in asked if one[0].startswith(AUTH) or one[1] >= 400] == []


class TestSession:
    async def test_is_kept_when_the_access_token_is_over(self, add: Add, front: Front, open_page: OpenPage) -> None:
        """Of two tabs that ask at the same moment, too."""
        add("anna")
        page = await open_page()
        await sign_in(page)
        await expect(page.get_by_text("anna, deployer")).to_be_visible()
        other = await page.context.new_page()
        await other.goto(front.url)
        refreshes: list[int] = []
        page.context.on("response", lambda answer: refreshes.append(answer.status) if "refresh" in answer.url else None)
        for _ in range(3):
            await lose_access(page)
            await asyncio.gather(page.reload(), other.reload())
            for one in (page, other):
                await expect(one.get_by_text("anna, deployer")).to_be_visible()
        assert len(refreshes) >= 3
        assert set(refreshes) == {200}

    async def test_is_one_of_all_tabs(self, add: Add, front: Front, open_page: OpenPage) -> None:
        """Who signs in or out in one is so in the others, and a form that is open there closes."""
        add("anna")
        page = await open_page()
        other = await page.context.new_page()
        await other.goto(front.url)
        await other.get_by_role("button", name="Sign in").click()
        await sign_in(page)
        for one in (page, other):
            await expect(one.get_by_text("anna, deployer")).to_be_visible()
        await expect(other.get_by_role("dialog")).to_have_count(0)
        await other.get_by_role("button", name="Sign out").click()
        for one in (page, other):
            await expect(one.get_by_role("button", name="Sign in")).to_be_visible()
            await expect(one.get_by_text("anna, deployer")).to_have_count(0)
            await expect(one.get_by_text(ENDED)).to_have_count(0)

    async def test_says_that_it_has_ended(self, add: Add, sql: Sql, open_page: OpenPage) -> None:
        """Once, and one can sign in again."""
        add("anna")
        page = await open_page()
        await sign_in(page)
        await expect(page.get_by_text("anna, deployer")).to_be_visible()
        sql("DELETE FROM account_sessions")
        await page.reload()
        await expect(page.get_by_text(ENDED)).to_be_visible()
        await expect(page.get_by_role("status")).to_have_text(ENDED)
        await page.reload()
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
        await expect(page.get_by_text(ENDED)).to_have_count(0)
        await sign_in(page)
        await expect(page.get_by_text("anna, deployer")).to_be_visible()

    async def test_outlives_a_service_that_is_away(self, add: Add, front: Front, open_page: OpenPage) -> None:
        """Nobody is signed out for that: not by a page that loads meanwhile, nor by a sign-out that nobody heard."""
        add("anna")
        page = await open_page()
        await sign_in(page)
        await expect(page.get_by_text("anna, deployer")).to_be_visible()
        front.edge.unlink(0)
        await page.get_by_role("button", name="Sign out").click()
        await expect(
            page.get_by_text(re.compile(r"^Still signed in: The service does not answer \(50[23]\)\.$"))
        ).to_be_visible()
        await page.reload()
        front.start(1, "two")
        await expect(page.get_by_text("anna, deployer")).to_be_visible()


class TestAccess:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_has_no_barriers(self, add: Add, open_page: OpenPage, scheme: str) -> None:
        """For axe-core, and each text has contrast: in the form, when it was refused, and signed in."""
        add("anna")
        page = await open_page(color_scheme=scheme, reduced_motion="reduce")
        await expect(page.get_by_text("Release one answers.")).to_be_visible()
        await sign_in(page, password="wrong")
        await expect(page.get_by_role("alert")).not_to_be_empty()
        assert await barriers(page) == []
        least, text = await page.evaluate(CONTRAST)
        assert least >= 4.5, text
        await sign_in(page)
        await expect(page.get_by_text("anna, deployer")).to_be_visible()
        assert await barriers(page) == []
        least, text = await page.evaluate(CONTRAST)
        assert least >= 4.5, text

    async def test_fits_a_phone(self, add: Add, open_page: OpenPage) -> None:
        """With the longest name there is, and the form open."""
        add("a" * 64)
        page = await open_page(viewport={"width": 320, "height": 640})
        await sign_in(page, name="a" * 64)
        await expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_role("button", name="Sign in").click()
        box = await page.get_by_role("dialog").bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
