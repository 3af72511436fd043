"""`/api/v1/releases` from outside."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Any, ClassVar

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from backend.app import create_app
from backend.settings import Settings
from pipeline.deploy import board
from tests.conftest import TOKEN, asgi_client
from tests.pipeline.proof.test_report import FACTS, NO_BUILD, STUCK, UNDONE
from tests.services import Services, psql

RELEASES = "/api/v1/releases"
NEW = {"service": "checkout", "environment": "production", "version": "1.4.2"}
SYNTHETIC = {"Slipway-Synthetic": "true"}


async def create(writer: httpx2.AsyncClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Record a release and return it."""
    answer = await writer.post(RELEASES, json={**NEW, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


class TestCreate:
    async def test_answers_with_the_release(self, writer: httpx2.AsyncClient) -> None:
        """A new release comes back with its id, its times and the status `pending`."""
        created = await create(writer, commit="3f2a9c1", url="https://example.org/1", notes="first")
        assert created.items() >= {**NEW, "status": "pending", "commit": "3f2a9c1", "notes": "first"}.items()
        assert (await writer.get(f"{RELEASES}/{created['id']}")).json() == created

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("service", ""),
            ("service", "x" * 64),
            ("service", "-"),
            ("environment", None),
            ("version", ""),
            ("version", "1\x00"),
            ("version", "\ud800"),
            ("version", "v" * 129),
            ("status", "gone"),
            ("commit", "no hexadecimal"),
            ("url", "javascript:alert(1)"),
            ("notes", "n" * 10_001),
            ("unknown", 1),
        ],
    )
    async def test_refuses_a_wrong_field(self, writer: httpx2.AsyncClient, field: str, value: object) -> None:
        """A field that is wrong gives a 422 problem that names the field."""
        content = json.dumps({**NEW, field: value})  # escapes a lone surrogate, which httpx2 cannot encode
        answer = await writer.post(RELEASES, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert [error["location"] for error in answer.json()["errors"]] == [f"body.{field}"]

    @pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b""])
    async def test_refuses_what_is_no_json_object(self, writer: httpx2.AsyncClient, body: bytes) -> None:
        """A body that is no JSON object gives a problem, never a 500."""
        answer = await writer.post(RELEASES, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_takes_what_a_deploy_reports(self, writer: httpx2.AsyncClient) -> None:
        """The board is one that `RELEASE_BOARD_URL` may name: it takes what the pipeline sends, field by field."""
        for number, report in enumerate((FACTS, UNDONE, NO_BUILD, STUCK)):
            sent = board._release("shop", replace(report, number=number), {})
            answer = await writer.post(RELEASES, json=sent["body"], headers={"Idempotency-Key": sent["key"]})
            assert answer.status_code == 201, answer.text
            assert answer.json().items() >= sent["body"].items()


class TestAuthorization:
    @pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
    @pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PATCH", "/{}"), ("DELETE", "/{}")])
    async def test_writing_needs_the_token(
        self, client: httpx2.AsyncClient, method: str, path: str, header: dict[str, str]
    ) -> None:
        """Without the token each write is a 401 problem that says which scheme."""
        url = RELEASES + path.format("01912d68-783e-7a00-8000-000000000000")
        answer = await client.request(method, url, json={**NEW} if not path else {"notes": "x"}, headers=header)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize(("given", "status"), [(TOKEN, 201), ("the-token-of-before", 201), ("another", 401)])
    async def test_the_token_of_before_is_accepted_beside_the_new_one(
        self, settings: Settings, given: str, status: int
    ) -> None:
        """While SERVICE_TOKEN is rotated, a caller may write with either, and sees what it wrote as synthetic."""
        app = create_app(settings.model_copy(update={"service_token_previous": SecretStr("the-token-of-before")}))
        headers = {"Authorization": f"Bearer {given}", "Slipway-Synthetic": "true"}
        async with app.router.lifespan_context(app), asgi_client(app) as client:
            assert (await client.post(RELEASES, json=NEW, headers=headers)).status_code == status
            listed = (await client.get(RELEASES, headers=headers)).json()["items"]
        assert bool(listed) is (status == 201)

    async def test_an_unset_token_admits_nobody(self, settings: Settings) -> None:
        """A service that knows neither a token nor a key answers writes with a 503 that names the variables."""
        app = create_app(settings.model_copy(update={"service_token": None, "jwt_secret_key": None}))
        async with app.router.lifespan_context(app), asgi_client(app) as client:
            answer = await client.post(RELEASES, json=NEW, headers={"Authorization": "Bearer x"})
        assert answer.status_code == 503
        assert {"SERVICE_TOKEN", "JWT_SECRET_KEY"} <= set(re.findall("[A-Z_]+", answer.json()["detail"]))


class TestRead:
    async def test_an_unknown_id_is_not_found(self, client: httpx2.AsyncClient) -> None:
        """An id that nobody has is a 404 problem, one that is no id a 422."""
        assert (await client.get(f"{RELEASES}/01912d68-783e-7a00-8000-000000000000")).status_code == 404
        assert (await client.get(f"{RELEASES}/seven")).status_code == 422

    async def test_change_and_removal(self, writer: httpx2.AsyncClient) -> None:
        """A change keeps what it does not name and moves updated_at; a removed release is gone."""
        created = await create(writer, notes="keep")
        url = f"{RELEASES}/{created['id']}"
        changed = (await writer.patch(url, json={"status": "deployed", "url": None})).json()
        assert changed.items() >= {"status": "deployed", "notes": "keep", "version": "1.4.2"}.items()
        assert changed["updated_at"] > created["updated_at"]
        assert (await writer.delete(url)).status_code == 204
        assert [(await writer.get(url)).status_code, (await writer.delete(url)).status_code] == [404, 404]
        assert (await writer.patch(url, json={"notes": "x"})).status_code == 404

    @pytest.mark.parametrize("change", [{}, {"version": "2"}, {"status": None}])
    async def test_refuses_a_change_of_nothing_or_of_identity(
        self, writer: httpx2.AsyncClient, change: dict[str, object]
    ) -> None:
        """What a release is never changes, and an empty change is a mistake."""
        created = await create(writer)
        assert (await writer.patch(f"{RELEASES}/{created['id']}", json=change)).status_code == 422


class TestList:
    async def test_pages_are_complete_and_newest_first(self, writer: httpx2.AsyncClient) -> None:
        """Following next_cursor gives each release once, newest first, though new ones arrive meanwhile."""
        made = [(await create(writer, version=str(number)))["id"] for number in range(5)]
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = (await writer.get(RELEASES, params={"limit": 2, **({"cursor": cursor} if cursor else {})})).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            await create(writer, version="later")
        assert seen == made[::-1]

    async def test_filters_combine(self, writer: httpx2.AsyncClient) -> None:
        """Filters by service, environment and status are joined by and."""
        await create(writer, service="a", environment="x", status="deployed")
        wanted = await create(writer, service="b", environment="x", status="deployed")
        await create(writer, service="b", environment="y", status="deployed")
        await create(writer, service="b", environment="x", status="failed")
        answer = await writer.get(RELEASES, params={"service": "b", "environment": "x", "status": "deployed"})
        assert [item["id"] for item in answer.json()["items"]] == [wanted["id"]]

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=é", "status=gone", "service=%00"]
    )
    async def test_refuses_wrong_parameters(self, client: httpx2.AsyncClient, query: str) -> None:
        """A parameter out of range is a 422 problem that names it."""
        answer = await client.get(f"{RELEASES}?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["location"] == f"query.{query.partition('=')[0]}"


class TestSchema:
    @pytest.mark.parametrize(
        ("field", "value"),
        [("url", ""), ("url", "javascript:x"), ("url", "https://\0"), ("version", "\0"), ("notes", "\0")],
    )
    async def test_says_what_is_refused(self, writer: httpx2.AsyncClient, field: str, value: str) -> None:
        """What the schema calls valid is not answered 422."""
        schemas = (await writer.get("/openapi.json")).json()["components"]["schemas"]
        for name in ("NewRelease", "ReleaseChange"):
            given = schemas[name]["properties"].get(field)
            if given:
                assert not re.search(given.get("pattern") or given["anyOf"][0]["pattern"], value)
        assert (await writer.post(RELEASES, json={**NEW, field: value})).status_code == 422
        assert schemas["ReleaseChange"]["minProperties"] == 1


class TestSynthetic:
    async def test_is_readable_by_id_and_hidden_elsewhere(self, writer: httpx2.AsyncClient) -> None:
        """What the proof writes is never in people's lists, and can be read, changed and removed by id."""
        created = await create(writer, headers=SYNTHETIC, status="deployed")
        url = f"{RELEASES}/{created['id']}"
        assert (await writer.get(url, headers=SYNTHETIC)).json() == created
        assert (await writer.get(RELEASES)).json()["items"] == []
        assert (await writer.get("/api/v1/environments")).json()["items"] == []
        assert (await writer.patch(url, json={"notes": "x"}, headers=SYNTHETIC)).status_code == 200
        assert (await writer.get("/api/v1/environments")).json()["items"] == []
        assert (await writer.delete(url, headers=SYNTHETIC)).status_code == 204

    @pytest.mark.parametrize("path", [RELEASES, "/api/v1/environments"])
    async def test_is_listed_for_a_synthetic_caller_alone(
        self, writer: httpx2.AsyncClient, client: httpx2.AsyncClient, path: str
    ) -> None:
        """With the token and the header, and as it is now: neither answer ever is the other's, cached or not."""
        for count in (1, 2):
            await create(writer, headers=SYNTHETIC, status="deployed", service=f"proof-{count}")
            for _ in range(2):
                assert (await client.get(path)).json()["items"] == []
                assert len((await writer.get(path, headers=SYNTHETIC)).json()["items"]) == count
                assert (await writer.get(path)).json()["items"] == []
                assert (await client.get(path, headers=SYNTHETIC)).json()["items"] == []

    async def test_the_header_without_the_token_is_nothing(self, client: httpx2.AsyncClient) -> None:
        """A stranger cannot hide what they write, as they cannot write; nor see what is hidden."""
        assert (await client.post(RELEASES, json=NEW, headers=SYNTHETIC)).status_code == 401
        wrong = {**SYNTHETIC, "Authorization": "Bearer wrong"}
        assert (await client.get(RELEASES, headers=wrong)).status_code == 200


class TestIdempotency:
    KEY: ClassVar = {"Idempotency-Key": "key-1"}

    async def test_the_same_request_gets_the_first_answer(self, writer: httpx2.AsyncClient) -> None:
        """The same key and body give the first answer again, marked, and make no second row."""
        first = await writer.post(RELEASES, json=NEW, headers=self.KEY)
        await writer.patch(f"{RELEASES}/{first.json()['id']}", json={"notes": "changed since"})
        again = await writer.post(RELEASES, json=dict(reversed(NEW.items())), headers=self.KEY)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        assert len((await writer.get(RELEASES)).json()["items"]) == 1

    @pytest.mark.parametrize("headers", [{}, SYNTHETIC])
    async def test_another_request_under_the_key_is_refused(
        self, writer: httpx2.AsyncClient, headers: dict[str, str]
    ) -> None:
        """Another body under a used key, or the same one as synthetic, is a 422 problem of its own type."""
        await writer.post(RELEASES, json=NEW, headers=self.KEY)
        body = NEW if headers else {**NEW, "version": "2"}
        answer = await writer.post(RELEASES, json=body, headers={**self.KEY, **headers})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:problem-type:idempotency-key-reused")

    async def test_a_hundred_at_once_make_one_row(self, writer: httpx2.AsyncClient) -> None:
        """Of 100 twins at once one is done; the others get its answer or a 409 with Retry-After."""
        answers = await asyncio.gather(*[writer.post(RELEASES, json=NEW, headers=self.KEY) for _ in range(100)])
        by_status = {status: [a for a in answers if a.status_code == status] for status in (201, 409, 503)}
        assert sum(map(len, by_status.values())) == 100
        assert len({answer.content for answer in by_status[201]}) == 1
        assert all(answer.headers["retry-after"] == "1" for answer in by_status[409])
        assert len((await writer.get(RELEASES)).json()["items"]) == 1

    async def test_a_key_lives_for_a_day(
        self, writer: httpx2.AsyncClient, app: FastAPI, services: Services, worker_database: str
    ) -> None:
        """After 24 hours a key is free again, and new keys clear away the expired ones."""
        for number in range(3):
            await writer.post(RELEASES, json=NEW, headers={"Idempotency-Key": f"old-{number}"})
        age = "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'"
        await asyncio.to_thread(psql, services, worker_database, age)
        answer = await writer.post(RELEASES, json={**NEW, "version": "2"}, headers={"Idempotency-Key": "old-0"})
        assert (answer.status_code, "idempotency-replayed" in answer.headers) == (201, False)
        database = app.state.releases.database
        async with database.lease() as connection:
            assert await connection.fetchval("SELECT count(*) FROM idempotency_keys") == 1

    @pytest.mark.parametrize("key", ["", "k" * 256, "has space"])
    async def test_refuses_a_malformed_key(self, writer: httpx2.AsyncClient, key: str) -> None:
        """A key that is empty, too long or not printable is a 422 problem."""
        assert (await writer.post(RELEASES, json=NEW, headers={"Idempotency-Key": key})).status_code == 422
