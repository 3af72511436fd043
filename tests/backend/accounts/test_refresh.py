"""`POST /api/v1/auth/refresh` and `/logout`: who stays signed in, and who does not."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from backend.logs import configure_logging
from backend.settings import Settings
from tests.backend.accounts.conftest import AUTH, OWN, Add, Serve, Sql, bearer, refresh, sign_in
from tests.conftest import KEY
from tests.project import NAME

REFRESH = f"{NAME}-refresh"
ELEVEN_SECONDS_LATER = "UPDATE account_sessions SET rotated_at = rotated_at - interval '11 s'"


@pytest.fixture(autouse=True)
def _anna(add: Add) -> None:
    add("anna")


async def later(sql: Sql) -> None:
    """Let the ten seconds after a rotation pass."""
    await asyncio.to_thread(sql, ELEVEN_SECONDS_LATER)


class TestRotation:
    async def test_gives_another_token_each_time(self, client: httpx2.AsyncClient) -> None:
        """Each is used once, and the access token that comes along says who calls."""
        tokens = [(await sign_in(client))["refresh_token"]]
        for _ in range(3):
            given = (await refresh(client, tokens[-1])).json()
            assert (await client.get(f"{AUTH}/me", headers=bearer(given["access_token"]))).json()["name"] == "anna"
            tokens.append(given["refresh_token"])
        assert len(set(tokens)) == 4

    async def test_of_twenty_tabs_at_once_over_two_replicas(self, serve: Serve, app: FastAPI) -> None:
        """All stay signed in, with the same next cookie, in one session; that cookie goes on."""
        async with serve() as one, serve() as other:
            await sign_in(one, cookie=True)
            cookies = {"Cookie": "; ".join(f"{name}={value}" for name, value in one.cookies.items())}
            for client in (one, other):
                client.cookies.clear()
            answers = await asyncio.gather(
                *[c.post(f"{AUTH}/refresh", headers={**cookies, **OWN}) for c in [one, other] * 10]
            )
            assert [answer.status_code for answer in answers] == [200] * 20
            assert len({answer.cookies[REFRESH] for answer in answers}) == 1
            one.cookies.clear()
            one.cookies.set(REFRESH, answers[0].cookies[REFRESH], path=AUTH)
            assert (await one.post(f"{AUTH}/refresh", headers=OWN)).status_code == 200
        async with app.state.accounts._database.lease() as connection:
            assert await connection.fetchval("SELECT count(*) FROM account_sessions") == 1

    async def test_survives_a_change_of_the_key(self, serve: Serve) -> None:
        """Replicas with the old and the new JWT_SECRET_KEY give the same successor."""
        async with serve() as old, serve(jwt_secret_key=SecretStr(KEY[::-1])) as new:
            token = (await sign_in(old))["refresh_token"]
            answers = [await refresh(client, token) for client in (new, old)]
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1

    async def test_extends_the_session_by_jwt_refresh_days(self, serve: Serve, sql: Sql) -> None:
        """From then on; one that was not used for so long has ended."""
        async with serve(jwt_refresh_days=3) as client:
            token = (await sign_in(client))["refresh_token"]
            given = (await refresh(client, token)).json()
            sessions = await client.get(f"{AUTH}/sessions", headers=bearer(given["access_token"]))
            [session] = sessions.json()["items"]
            assert session["expires_at"][:10] > session["last_used_at"][:10]
            shift = "UPDATE account_sessions SET expires_at = expires_at - interval '3 days'"
            await asyncio.to_thread(sql, shift)
            assert (await refresh(client, given["refresh_token"])).status_code == 401

    @pytest.mark.parametrize("token", ["x", "A" * 86, "A" * 85, "ä" * 86, "=" * 86, "\x00"])
    async def test_of_what_is_no_token_is_refused(self, client: httpx2.AsyncClient, token: str) -> None:
        """Whatever it looks like."""
        assert (await refresh(client, token)).status_code == 401

    async def test_without_a_token_is_refused(self, client: httpx2.AsyncClient) -> None:
        """Neither in the body nor in a cookie; one without end is not read."""
        assert (await client.post(f"{AUTH}/refresh")).status_code == 401
        assert (await client.post(f"{AUTH}/refresh", json={})).status_code == 422
        assert (await refresh(client, "x" * 129)).status_code == 422


class TestReuse:
    async def test_within_ten_seconds_gives_the_same_successor(self, client: httpx2.AsyncClient, sql: Sql) -> None:
        """And after them ends the session, for its owner, too."""
        first = (await sign_in(client))["refresh_token"]
        second = (await refresh(client, first)).json()["refresh_token"]
        assert (await refresh(client, first)).json()["refresh_token"] == second
        await later(sql)
        for token in (first, second):
            answer = await refresh(client, token)
            assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)

    async def test_by_two_clients_ends_the_session_of_both(self, client: httpx2.AsyncClient) -> None:
        """A thief who went on is found out by the owner, at once; another session of the account goes on."""
        stolen, other = [(await sign_in(client))["refresh_token"] for _ in range(2)]
        token = stolen
        for _ in range(2):
            token = (await refresh(client, token)).json()["refresh_token"]
        assert (await refresh(client, stolen)).status_code == 401
        assert (await refresh(client, token)).status_code == 401
        assert (await refresh(client, other)).status_code == 200

    @pytest.mark.usefixtures("app")
    async def test_is_logged_by_name(
        self, client: httpx2.AsyncClient, sql: Sql, capfdbinary: pytest.CaptureFixture[bytes], settings: Settings
    ) -> None:
        """Somebody may want to know; the token is not in it."""
        configure_logging(settings)
        token = (await sign_in(client))["refresh_token"]
        await refresh(client, token)
        await later(sql)
        await refresh(client, token)
        printed = capfdbinary.readouterr().out.decode()
        assert "session ended: its refresh token was used twice" in printed
        assert token not in printed

    async def test_that_is_refused_leaves_the_cookies_alone(self, client: httpx2.AsyncClient) -> None:
        """Another tab may have new ones since."""
        await sign_in(client, cookie=True)
        answer = await client.post(f"{AUTH}/refresh", headers={**OWN, "Cookie": f"{REFRESH}={'A' * 86}"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)


class TestEnd:
    async def test_by_a_logout_leaves_nothing_to_refresh(self, client: httpx2.AsyncClient) -> None:
        """Not even within the ten seconds, whichever of the tokens ended it."""
        for ends in (0, 1):
            tokens = [(await sign_in(client))["refresh_token"]]
            tokens.append((await refresh(client, tokens[0])).json()["refresh_token"])
            answer = await client.post(f"{AUTH}/logout", json={"refresh_token": tokens[ends]})
            assert answer.status_code == 204
            assert [(await refresh(client, token)).status_code for token in tokens] == [401, 401]
            again = await client.post(f"{AUTH}/logout", json={"refresh_token": tokens[ends]})
            assert again.status_code == 204

    async def test_by_a_logout_takes_both_cookies(self, client: httpx2.AsyncClient) -> None:
        """With the path that each was set with."""
        await sign_in(client, cookie=True)
        answer = await client.post(f"{AUTH}/logout", headers=OWN)
        assert answer.status_code == 204
        assert dict(client.cookies) == {}
        assert (await client.get(f"{AUTH}/me")).status_code == 401

    @pytest.mark.parametrize("kept", ["access", "refresh"])
    async def test_by_one_cookie_alone_is_the_same(self, client: httpx2.AsyncClient, kept: str) -> None:
        """A browser may have lost the other: the session ends, and what is left goes."""
        token = (await sign_in(client, cookie=True)) and client.cookies[REFRESH]
        for name in ("access", "refresh"):
            if name != kept:
                client.cookies.delete(f"{NAME}-{name}")
        assert (await client.post(f"{AUTH}/logout", headers=OWN)).status_code == 204
        assert dict(client.cookies) == {}
        assert (await refresh(client, token)).status_code == 401

    async def test_by_an_access_token(self, client: httpx2.AsyncClient) -> None:
        """A client that kept nothing else can sign out, too; nobody cannot."""
        given = await sign_in(client)
        assert (await client.post(f"{AUTH}/logout", headers=bearer(given["access_token"]))).status_code == 204
        assert (await refresh(client, given["refresh_token"])).status_code == 401
        assert (await client.post(f"{AUTH}/logout")).status_code == 401

    async def test_holds_whatever_else_comes_at_that_moment(self, client: httpx2.AsyncClient) -> None:
        """Refreshes and a logout at once: afterwards no token is worth anything."""
        token = (await sign_in(client))["refresh_token"]
        logout = client.post(f"{AUTH}/logout", json={"refresh_token": token})
        *answers, done = await asyncio.gather(*[refresh(client, token) for _ in range(6)], logout)
        assert done.status_code == 204
        tokens = {token, *(answer.json()["refresh_token"] for answer in answers if answer.status_code == 200)}
        assert {(await refresh(client, one)).status_code for one in tokens} == {401}

    async def test_of_an_account_is_at_once_for_refreshes(self, client: httpx2.AsyncClient, sql: Sql) -> None:
        """A disabled one keeps its access token until that expires, but not where the database is asked."""
        given = await sign_in(client)
        await asyncio.to_thread(sql, "UPDATE accounts SET disabled_at = now()")
        assert (await refresh(client, given["refresh_token"])).status_code == 401
        assert (await client.get(f"{AUTH}/me", headers=bearer(given["access_token"]))).status_code == 401
