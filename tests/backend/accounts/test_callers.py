"""Who may call a route: SERVICE_TOKEN, accounts by their role, and anybody."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from backend.auth import SeesSynthetic
from tests.backend.accounts.conftest import AUTH, OWN, PASSWORD, Add, Serve, bearer, sign_in
from tests.conftest import TOKEN
from tests.notes import NOTES, SUMMARY

BEFORE = "the-service-token-before"

pytestmark = pytest.mark.usefixtures("notes", "app")


class TestWriting:
    @pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("deployer", 201), ("admin", 201)])
    async def test_takes_a_role(self, client: httpx2.AsyncClient, add: Add, role: str, status: int) -> None:
        """A viewer only reads; by token and by cookie."""
        add("anna", role)
        token = (await sign_in(client))["access_token"]
        await sign_in(client, cookie=True)
        for headers in (bearer(token), OWN):
            answer = await client.post(NOTES, json={"text": "x"}, headers=headers)
            assert answer.status_code == status, answer.text
            assert (await client.get(NOTES, headers=headers)).status_code == 200

    async def test_with_one_key_by_two_accounts_is_two_writes(self, client: httpx2.AsyncClient, add: Add) -> None:
        """An `Idempotency-Key` is the caller's own: nobody gets the answer to somebody else."""
        answers = []
        for name in ("anna", "bert"):
            add(name)
            headers = {**bearer((await sign_in(client, name))["access_token"]), "Idempotency-Key": "one"}
            answers += [await client.post(NOTES, json={"text": "x"}, headers=headers) for _ in range(2)]
        assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", None, "true"]
        assert len({answer.json()["id"] for answer in answers}) == 2

    async def test_by_an_account_is_never_synthetic(self, client: httpx2.AsyncClient, add: Add) -> None:
        """Only the proof may hide what it writes from people."""
        add("anna")
        token = (await sign_in(client))["access_token"]
        await client.post(NOTES, json={"text": "x"}, headers={**bearer(token), "Slipway-Synthetic": "true"})
        assert len((await client.get(NOTES)).json()["items"]) == 1


async def see(synthetic: SeesSynthetic) -> bool:
    """A route of a test."""
    return synthetic


class TestServiceToken:
    @pytest.mark.parametrize(("token", "status"), [(TOKEN, 201), (BEFORE, 201), ("a-third-service-token", 401)])
    async def test_before_is_accepted_beside_it(self, serve: Serve, token: str, status: int) -> None:
        """SERVICE_TOKEN_PREVIOUS writes, too."""
        async with serve(service_token_previous=SecretStr(BEFORE)) as client:
            answer = await client.post(NOTES, json={"text": "x"}, headers=bearer(token))
        assert answer.status_code == status

    @pytest.mark.parametrize(("token", "sees"), [(TOKEN, True), (BEFORE, True), ("a-third-service-token", False)])
    async def test_before_is_the_proofs_too(self, serve: Serve, token: str, *, sees: bool) -> None:
        """What it writes is synthetic, and it sees that."""
        async with serve(service_token_previous=SecretStr(BEFORE)) as client:
            app: Any = client._transport.app  # type: ignore[attr-defined]
            app.add_api_route("/sees", see)
            answer = await client.get("/sees", headers={**bearer(token), "Slipway-Synthetic": "true"})
            assert answer.json() is sees


class TestAnonymousRead:
    async def test_is_public_by_default(self, client: httpx2.AsyncClient) -> None:
        """Nobody is asked who they are."""
        assert (await client.get(NOTES)).status_code == 200

    async def test_can_be_closed(self, serve: Serve, add: Add) -> None:
        """Lists, hot routes and what there is not; probes, documentation and the way in stay open."""
        add("anna", "viewer")
        async with serve(anonymous_read=False) as client:
            for path in (NOTES, SUMMARY, f"{NOTES}/{'0' * 32}", "/testing-notes/x", "/nowhere", "/docsx"):
                answer = await client.get(path)
                assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), path
                assert "x-request-id" in answer.headers
            for path in ("/health", "/ready", "/docs", "/docs/start.js", "/openapi.json"):
                assert (await client.get(path)).status_code == 200, path
            token = (await sign_in(client))["access_token"]
            await sign_in(client, cookie=True)
            for headers in (bearer(token), bearer(TOKEN), {}):
                assert (await client.get(SUMMARY, headers=headers)).status_code == 200
            assert (await client.get(SUMMARY, headers=bearer("wrong"))).status_code == 401
            assert (await client.post(f"{AUTH}/logout", headers=OWN)).status_code == 204
            assert (await client.get(SUMMARY)).status_code == 401

    async def test_is_documented_where_it_is_closed(self, serve: Serve) -> None:
        """Each route that asks for credentials says so, with its 401."""
        for closed in (True, False):
            async with serve(anonymous_read=not closed) as client:
                paths = (await client.get("/openapi.json")).json()["paths"]
            for path, open_anyway in ((NOTES, False), (SUMMARY, False), ("/health", True), (f"{AUTH}/login", True)):
                operation = next(iter(paths[path].values()))
                assert ("security" in operation) == (closed and not open_anyway), path
            assert ("401" in paths[SUMMARY]["get"]["responses"]) == closed


class TestSessions:
    async def test_are_listed_and_ended(self, client: httpx2.AsyncClient, add: Add) -> None:
        """Each with where it began; one's own is marked. An ended one is refused at once by these routes."""
        add("anna")
        agents = [{"User-Agent": name} for name in ("first\x7f", "second", "third")]
        answers = [
            await client.post(f"{AUTH}/login", json={"username": "anna", "password": PASSWORD}, headers=agent)
            for agent in agents
        ]
        first, second, third = (bearer(answer.json()["access_token"]) for answer in answers)
        items = (await client.get(f"{AUTH}/sessions", headers=third)).json()["items"]
        assert [(one["user_agent"], one["current"]) for one in items] == [
            ("third", True), ("second", False), ("first", False)
        ]  # fmt: skip
        assert (await client.delete(f"{AUTH}/sessions/{items[1]['id']}", headers=third)).status_code == 204
        assert (await client.delete(f"{AUTH}/sessions/{items[1]['id']}", headers=third)).status_code == 404
        assert (await client.get(f"{AUTH}/sessions", headers=second)).status_code == 401
        assert (await client.delete(f"{AUTH}/sessions", headers=third)).status_code == 204
        assert (await client.get(f"{AUTH}/me", headers=first)).status_code == 401
        assert (await client.get(f"{AUTH}/me", headers=third)).status_code == 200

    async def test_of_others_are_not_there(self, client: httpx2.AsyncClient, add: Add) -> None:
        """Whoever knows an id cannot end that session."""
        add("anna")
        add("bert", "admin")
        anna, bert = [bearer((await sign_in(client, name))["access_token"]) for name in ("anna", "bert")]
        [session] = (await client.get(f"{AUTH}/sessions", headers=anna)).json()["items"]
        assert (await client.delete(f"{AUTH}/sessions/{session['id']}", headers=bert)).status_code == 404
        await client.delete(f"{AUTH}/sessions", headers=bert)
        assert (await client.get(f"{AUTH}/me", headers=anna)).json()["session"] == session["id"]
