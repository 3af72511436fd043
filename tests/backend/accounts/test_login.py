"""`POST /api/v1/auth/login`: who gets in, and what a wrong guess learns."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher, extract_parameters
from fastapi import FastAPI

from backend.accounts.passwords import Passwords
from backend.logs import configure_logging
from backend.settings import Settings
from tests.backend.accounts.conftest import AUTH, HASH, PASSWORD, Add, Serve, Sql, bearer, sign_in
from tests.conftest import asgi_client

WRONG = "canary-Zq8 is wrong"


async def attempt(client: httpx2.AsyncClient, name: object = "anna", password: object = WRONG) -> httpx2.Response:
    """Try to sign in."""
    content = json.dumps({"username": name, "password": password})  # escapes what httpx2 cannot encode
    return await client.post(f"{AUTH}/login", content=content, headers={"Content-Type": "application/json"})


class TestTokens:
    async def test_are_answered_to_a_client(self, client: httpx2.AsyncClient, add: Add) -> None:
        """Two tokens and no cookie; the access token says who calls."""
        add("anna", "viewer")
        answer = await attempt(client, password=PASSWORD)
        given = answer.json()
        assert given.items() >= {
            "account": {"name": "anna", "role": "viewer"}, "token_type": "Bearer", "expires_in": 900
        }.items()  # fmt: skip
        assert "set-cookie" not in answer.headers
        me = await client.get(f"{AUTH}/me", headers=bearer(given["access_token"]))
        assert me.json().items() >= {"name": "anna", "role": "viewer"}.items()

    async def test_need_a_key(self, serve: Serve, add: Add) -> None:
        """Without JWT_SECRET_KEY nobody signs in, and the answer names it."""
        add("anna")
        async with serve(jwt_secret_key=None) as client:
            answer = await attempt(client, password=PASSWORD)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:problem-type:jwt-secret-key-unset")


class TestWrongCredentials:
    async def test_get_one_answer_after_the_same_work(
        self, app: FastAPI, add: Add, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An unknown name, a disabled account and a wrong password: the same bytes, and a hash of the same parameters,
        off the event loop's thread.
        """
        add("anna")
        add("bert", disabled=True)
        work: list[tuple[Any, str]] = []
        verify = PasswordHasher.verify

        def seen(hasher: PasswordHasher, hashed: str, password: str) -> bool:
            work.append((extract_parameters(hashed), threading.current_thread().name.partition("_")[0]))
            return verify(hasher, hashed, password)

        monkeypatch.setattr(PasswordHasher, "verify", seen)
        bodies = set()
        async with asgi_client(app) as client:
            for name, password in (("nobody", WRONG), ("bert", PASSWORD), ("bert", WRONG), ("anna", WRONG)):
                answer = await attempt(client, name, password)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                bodies.add(json.dumps({**answer.json(), "request_id": ""}))
        assert len(bodies) == 1
        assert work == [(extract_parameters(HASH), "password")] * 4

    @pytest.mark.parametrize(
        ("name", "password"),
        [
            ("anna\n", "x"), ("an\x00na", "x"), ("\x1b[31m", "x"), ("Anna", "x"), ("", "x"), ("a" * 65, "x"),
            (None, "x"), ("' OR 1=1 --", "x"), ("anna", ""), ("anna", "p" * 1025), ("anna", "\ud800"), ("anna", ["x"]),
        ],
    )  # fmt: skip
    async def test_that_nobody_can_have_are_refused_before_any_work(
        self, client: httpx2.AsyncClient, name: object, password: object
    ) -> None:
        """Control characters, a name of another form, a password without end: a 422 that does not repeat it."""
        answer = await attempt(client, name, password)
        assert answer.status_code == 422
        assert "1025" not in answer.text
        assert "p" * 100 not in answer.text

    async def test_of_a_megabyte_are_too_large(self, client: httpx2.AsyncClient) -> None:
        """The body is not even read."""
        assert (await attempt(client, password="p" * 2**20)).status_code == 413

    @pytest.mark.usefixtures("app")
    async def test_are_in_no_log(
        self, client: httpx2.AsyncClient, add: Add, capfdbinary: pytest.CaptureFixture[bytes], settings: Settings
    ) -> None:
        """Neither the password nor a token; a sign-in is logged by name."""
        configure_logging(settings)
        add("anna")
        await attempt(client)
        given = await sign_in(client)
        printed = capfdbinary.readouterr().out.decode()
        assert '"account":"anna"' in printed
        secrets = (WRONG, PASSWORD, given["access_token"], given["refresh_token"])
        assert not [secret for secret in secrets if secret in printed]


class TestHashes:
    async def test_of_other_parameters_are_made_anew(self, client: httpx2.AsyncClient, add: Add, app: FastAPI) -> None:
        """A sign-in brings the hash to today's parameters; a failed one leaves it."""
        weak = PasswordHasher(1, 1024, 1).hash(PASSWORD)
        add("anna", hashed=weak)
        database = app.state.accounts._database

        async def stored() -> str:
            async with database.lease() as connection:
                return str(await connection.fetchval("SELECT password_hash FROM accounts"))

        await attempt(client)
        assert await stored() == weak
        await sign_in(client)
        assert extract_parameters(await stored()) == extract_parameters(HASH)
        await sign_in(client)

    async def test_are_made_anew_by_two_sign_ins_at_once(self, client: httpx2.AsyncClient, add: Add) -> None:
        """The one that comes second finds another hash than it has checked, and looks again."""
        add("anna", hashed=PasswordHasher(1, 1024, 1).hash(PASSWORD))
        await asyncio.gather(sign_in(client), sign_in(client))

    async def test_that_changed_since_they_were_checked_begin_no_session(
        self, client: httpx2.AsyncClient, add: Add, sql: Sql, app: FastAPI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A password that is changed at that moment has already ended all sessions of the old one."""
        add("anna")
        check = Passwords.check

        async def slow(self: Passwords, password: str, known: str | None) -> str | None:
            kept = await check(self, password, known)
            await asyncio.to_thread(sql, "UPDATE accounts SET password_hash = password_hash || 'x'")
            return kept

        monkeypatch.setattr(Passwords, "check", slow)
        assert (await attempt(client, password=PASSWORD)).status_code == 401
        async with app.state.accounts._database.lease() as connection:
            assert await connection.fetchval("SELECT count(*) FROM account_sessions") == 0

    async def test_are_checked_two_at_once_and_a_third_waits_a_second(self, app: FastAPI, add: Add) -> None:
        """Then it is told to come again; nothing of it stays behind."""
        add("anna")
        turns = app.state.accounts._passwords._turns
        async with asgi_client(app) as client:
            async with turns, turns:
                answer = await attempt(client)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["type"] == "urn:problem-type:sign-in-busy"
            for _ in range(3):
                await sign_in(client)
        assert len(app.state.accounts._passwords._threads._threads) <= 2


class TestOldSessions:
    async def test_are_removed_by_the_next_sign_in(
        self, client: httpx2.AsyncClient, add: Add, sql: Sql, app: FastAPI
    ) -> None:
        """At most ten, of any account; one that has not ended stays."""
        add("anna")
        add("bert")
        for name in ["anna"] * 3 + ["bert"] * 9:
            await sign_in(client, name)
        await asyncio.to_thread(
            sql,
            "UPDATE account_sessions SET expires_at = now() - interval '1 s'"
            " WHERE id <> (SELECT id FROM account_sessions ORDER BY created_at LIMIT 1)",
        )
        counts = []
        for _ in range(2):
            await sign_in(client)
            async with app.state.accounts._database.lease() as connection:
                counts.append(await connection.fetchval("SELECT count(*) FROM account_sessions"))
        assert counts == [1 + 1 + 1, 1 + 2]
