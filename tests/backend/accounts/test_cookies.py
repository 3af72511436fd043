"""Cookies: their flags, and where a request that they authenticate must come from."""

from __future__ import annotations

from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx2
import pytest

from tests.backend.accounts.conftest import AUTH, OWN, PASSWORD, Add, Serve, bearer, sign_in
from tests.notes import NOTES
from tests.project import NAME

CREDENTIALS = {"username": "anna", "password": PASSWORD, "cookie": True}
HTTPS = {"frontend_url": "https://board.example.org"}
ELSEWHERE: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://service"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://service.evil.example"},
    {"Origin": "http://service:81"},
    {"Origin": "http://localhost:8080"},
    {"Referer": "http://service/"},
]
HERE = [
    OWN,
    {"Origin": "http://service"},
    {"Origin": "HTTPS://Service"},
    {"Origin": "http://localhost:8181"},
    {"Origin": "https://page.example"},
]

pytestmark = pytest.mark.usefixtures("notes")


@pytest.fixture(autouse=True)
def _anna(add: Add) -> None:
    add("anna")


def given(answer: httpx2.Response) -> dict[str, Morsel[str]]:
    """The cookies that an answer sets."""
    cookies: SimpleCookie = SimpleCookie()
    for line in answer.headers.get_list("set-cookie"):
        cookies.load(line)
    return dict(cookies)


class TestFlags:
    @pytest.mark.parametrize(
        ("changes", "scheme", "secure"),
        [
            ({}, "http", False),
            ({}, "https", False),
            (HTTPS, "https", True),
            ({"edge_domain": "board.example.org"}, "https", True),
            ({"environment": "production"}, "https", True),
        ],
    )
    async def test_are_strict(self, serve: Serve, changes: dict[str, Any], scheme: str, *, secure: bool) -> None:
        """Two cookies and no token: no script reads them, no other site sends them, and https alone where the page is
        there.
        """
        async with serve(scheme, **changes, jwt_refresh_days=3, jwt_expire_minutes=5) as client:
            answer = await client.post(f"{AUTH}/login", json=CREDENTIALS)
            assert answer.json() == {
                "account": {"name": "anna", "role": "deployer"}, "expires_in": 300, "token_type": "Bearer"
            }  # fmt: skip
            cookies = given(answer)
            prefix = "__Secure-" if secure else ""
            flags = {name: (c["path"], c["max-age"]) for name, c in cookies.items()}
            assert flags == {
                f"{prefix}{NAME}-access": ("/api/v1", "300"),
                f"{prefix}{NAME}-refresh": ("/api/v1/auth", "259200"),
            }
            assert {(c["httponly"], c["samesite"], bool(c["secure"])) for c in cookies.values()} == {
                (True, "strict", secure)
            }
            assert (await client.get(f"{AUTH}/me")).json()["name"] == "anna"

    async def test_that_could_not_hold_are_said_to(self, serve: Serve) -> None:
        """By http where FRONTEND_URL is https: the answer gives the address, and sets nothing."""
        async with serve(**HTTPS) as client:
            answer = await client.post(f"{AUTH}/login", json=CREDENTIALS)
            assert (answer.status_code, answer.json()["type"]) == (400, "urn:problem-type:cookie-needs-https")
            assert "https://board.example.org" in answer.json()["detail"]
            assert "TRUSTED_PROXIES" in answer.json()["detail"]
            assert given(answer) == {}
            told = await client.post(f"{AUTH}/login", json=CREDENTIALS, headers={"Origin": HTTPS["frontend_url"]})
            assert told.status_code == 200, "the browser is on https, whatever the proxies say"
            await sign_in(client)  # tokens need none

    async def test_of_services_on_one_host_differ(self, serve: Serve) -> None:
        """A cookie ignores the port: two of them on localhost would sign each other out."""
        names = set()
        for name in ("shop", "pay desk"):
            async with serve(project_name=name) as client:
                names |= set(given(await client.post(f"{AUTH}/login", json=CREDENTIALS)))
        assert names == {"shop-access", "shop-refresh", "pay-desk-access", "pay-desk-refresh"}


class TestOrigin:
    SETTINGS: dict[str, Any] = {"cors_origins": ("https://page.example",), "edge_port": 8181}  # noqa: RUF012

    @pytest.mark.parametrize("headers", ELSEWHERE)
    async def test_elsewhere_changes_nothing(self, serve: Serve, headers: dict[str, str]) -> None:
        """Neither a write, nor a refresh, nor a logout, nor a session's end; reading is as with any cookie."""
        async with serve(**self.SETTINGS) as client:
            await sign_in(client, cookie=True)
            for method, path in (
                ("POST", NOTES), ("POST", f"{AUTH}/refresh"), ("POST", f"{AUTH}/logout"), ("DELETE", f"{AUTH}/sessions")
            ):  # fmt: skip
                body = {"text": "x"} if path == NOTES else None
                answer = await client.request(method, path, headers=headers, json=body)
                assert (answer.status_code, answer.json()["type"]) == (403, "urn:problem-type:foreign-origin"), path
                assert given(answer) == {}
            assert (await client.get(f"{AUTH}/me", headers=headers)).status_code == 200
            assert (await client.get(NOTES)).json() == {"items": []}

    @pytest.mark.parametrize("headers", HERE)
    async def test_of_our_own_may(self, serve: Serve, headers: dict[str, str]) -> None:
        """The host that was asked, FRONTEND_URL (by default with EDGE_PORT), CORS_ORIGINS."""
        async with serve(**self.SETTINGS) as client:
            await sign_in(client, cookie=True)
            assert (await client.post(NOTES, json={"text": "x"}, headers=headers)).status_code == 201
            assert (await client.post(f"{AUTH}/refresh", headers=headers)).status_code == 200
            assert (await client.post(f"{AUTH}/logout", headers=headers)).status_code == 204

    async def test_is_by_https_where_the_page_is(self, serve: Serve) -> None:
        """Who can put a page on http://HOST is on the network between, and not we."""
        async with serve("https", **HTTPS) as client:
            await sign_in(client, cookie=True)
            for origin, status in (("http://service", 403), ("https://service", 201), (HTTPS["frontend_url"], 201)):
                answer = await client.post(NOTES, json={"text": "x"}, headers={"Origin": origin})
                assert answer.status_code == status, origin

    @pytest.mark.parametrize("headers", ELSEWHERE[1:-1])
    async def test_elsewhere_signs_nobody_in(self, serve: Serve, headers: dict[str, str]) -> None:
        """No other site chooses the account of our page. (A tool, which sends neither header, may have cookies.)"""
        async with serve(**self.SETTINGS) as client:
            answer = await client.post(f"{AUTH}/login", json=CREDENTIALS, headers=headers)
            assert (answer.status_code, given(answer)) == (403, {})

    async def test_is_not_asked_of_a_token(self, serve: Serve) -> None:
        """`Authorization` wins over cookies, for better and for worse."""
        async with serve() as client:
            token = (await sign_in(client))["access_token"]
            await sign_in(client, cookie=True)
            evil = {"Origin": "http://evil.example"}
            good = await client.post(NOTES, json={"text": "x"}, headers={**bearer(token), **evil})
            assert good.status_code == 201
            for header in (bearer("wrong"), {"Authorization": "Basic eDp5"}):
                answer = await client.post(NOTES, json={"text": "x"}, headers={**header, **OWN})
                assert answer.status_code == 401
