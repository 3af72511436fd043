"""`/api/v1/items` from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import httpx2
import pytest

from tests.services import ROOT

ITEMS = "/api/v1/items"
NEW = {"name": "lamp"}
SYNTHETIC = {"Slipway-Synthetic": "true"}
UNKNOWN = f"{ITEMS}/01912d68-783e-7a00-8000-000000000000"


async def create(writer: httpx2.AsyncClient, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Make an item and return it."""
    answer = await writer.post(ITEMS, json={**NEW, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def remove(environ: dict[str, str], *ids: str) -> Any:
    """Run the command that removes what the proof wrote; return what it printed."""
    command = [sys.executable, "-m", "backend.synthetic", "remove"]
    given, env = "".join(f"{ident}\n" for ident in ids), {**os.environ, **environ}
    done = subprocess.run(command, input=given, env=env, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


class TestItems:
    async def test_lives_from_its_making_to_its_removal(self, writer: httpx2.AsyncClient) -> None:
        """A new item is read as it was answered, changed, and gone once it is removed."""
        created = await create(writer)
        url = f"{ITEMS}/{created['id']}"
        assert (await writer.get(url)).json() == created
        changed = await writer.patch(url, json={"name": "table"})
        assert (changed.status_code, changed.json()) == (200, {**created, "name": "table"})
        assert (await writer.delete(url)).status_code == 204
        assert (await writer.get(url)).status_code == 404

    @pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
    async def test_an_unknown_id_is_not_found(self, writer: httpx2.AsyncClient, method: str) -> None:
        """An id that nobody has is a 404 problem."""
        answer = await writer.request(method, UNKNOWN, json=NEW if method == "PATCH" else None)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")

    @pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "n" * 129}, {"name": "\x00"}, {**NEW, "unknown": 1}])
    async def test_refuses_a_wrong_field(self, writer: httpx2.AsyncClient, body: dict[str, object]) -> None:
        """A body that is wrong is a 422 problem, and nothing is kept."""
        assert (await writer.post(ITEMS, json=body)).status_code == 422
        assert (await writer.get(ITEMS)).json() == {"items": []}

    @pytest.mark.parametrize(("method", "path"), [("POST", ITEMS), ("PATCH", UNKNOWN), ("DELETE", UNKNOWN)])
    async def test_writing_needs_the_token(self, client: httpx2.AsyncClient, method: str, path: str) -> None:
        """Without the token each write is a 401 problem."""
        assert (await client.request(method, path, json=NEW)).status_code == 401

    async def test_pages_are_complete_and_newest_first(self, writer: httpx2.AsyncClient) -> None:
        """Each item is on one page, newest first, though new ones arrive meanwhile."""
        made = [(await create(writer, name=str(number)))["id"] for number in range(3)]
        first = [item["id"] for item in (await writer.get(f"{ITEMS}?limit=2")).json()["items"]]
        await create(writer, name="later")
        second = [item["id"] for item in (await writer.get(f"{ITEMS}?limit=2&before={first[-1]}")).json()["items"]]
        assert first + second == made[::-1]

    async def test_hides_what_the_proof_writes(self, writer: httpx2.AsyncClient) -> None:
        """A synthetic item is read by its id, and is in no list but the proof's."""
        created = await create(writer, headers=SYNTHETIC)
        assert (await writer.get(f"{ITEMS}/{created['id']}", headers=SYNTHETIC)).json() == created
        assert (await writer.get(ITEMS)).json() == {"items": []}
        assert (await writer.get(ITEMS, headers=SYNTHETIC)).json() == {"items": [created]}

    async def test_goes_by_a_command_if_the_proof_wrote_it(
        self, writer: httpx2.AsyncClient, environ: dict[str, str]
    ) -> None:
        """`REMOVE_SYNTHETIC` takes the rows with the given ids, and none of a person's."""
        mine, theirs = await create(writer, headers=SYNTHETIC), await create(writer)
        assert remove(environ, mine["id"], theirs["id"]) == {"removed": 1}
        assert [item["id"] for item in (await writer.get(ITEMS, headers=SYNTHETIC)).json()["items"]] == [theirs["id"]]

    async def test_the_same_request_is_carried_out_once(self, writer: httpx2.AsyncClient) -> None:
        """The same key and body give the first answer again; another body is a 422 problem."""
        key = {"Idempotency-Key": "key-1"}
        first, again = [await writer.post(ITEMS, json=NEW, headers=key) for _ in range(2)]
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert (await writer.post(ITEMS, json={"name": "table"}, headers=key)).status_code == 422
        assert len((await writer.get(ITEMS)).json()["items"]) == 1
