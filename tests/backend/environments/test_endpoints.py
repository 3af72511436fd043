"""`/api/v1/environments` from outside."""

from __future__ import annotations

from typing import Any

import httpx2
from fastapi import FastAPI

from backend.cache import Found
from backend.environments.service import ENVIRONMENTS, EnvironmentService

RELEASES = "/api/v1/releases"


async def report(writer: httpx2.AsyncClient, version: str, status: str = "deployed", **fields: str) -> str:
    """Record a release and return its id."""
    body = {"service": "shop", "environment": "production", "version": version, "status": status, **fields}
    return str((await writer.post(RELEASES, json=body)).json()["id"])


async def running(client: httpx2.AsyncClient) -> list[tuple[str, str, str]]:
    """Environment, service and version of everything that runs."""
    items: list[dict[str, Any]] = (await client.get("/api/v1/environments")).json()["items"]
    return [(item["environment"], item["service"], item["version"]) for item in items]


class TestEnvironments:
    async def test_shows_the_newest_deployed_release_of_each(self, writer: httpx2.AsyncClient) -> None:
        """One line for each service and environment; what is pending or failed does not run."""
        await report(writer, "1")
        await report(writer, "2")
        await report(writer, "3", status="failed")
        await report(writer, "9", environment="staging")
        await report(writer, "7", service="api")
        assert await running(writer) == [
            ("production", "api", "7"),
            ("production", "shop", "2"),
            ("staging", "shop", "9"),
        ]

    async def test_a_write_is_seen_by_the_next_read(self, writer: httpx2.AsyncClient) -> None:
        """A new release, a rolled back one and a removed one show at once, though answers are cached."""
        first, second = await report(writer, "1"), await report(writer, "2")
        assert await running(writer) == [("production", "shop", "2")]
        await writer.patch(f"{RELEASES}/{second}", json={"status": "rolled_back"})
        assert await running(writer) == [("production", "shop", "1")]
        await writer.delete(f"{RELEASES}/{first}")
        assert await running(writer) == []

    async def test_the_second_read_is_from_the_cache(self, writer: httpx2.AsyncClient, app: FastAPI) -> None:
        """What was read once is not computed again."""
        await report(writer, "1")
        cache = self._service(app).cache
        await running(writer)
        hits = cache._metrics.cache.labels("hit")._value
        before = hits.get()
        await running(writer)
        assert hits.get() == before + 1

    async def test_an_answer_from_older_rows_is_never_served(self, writer: httpx2.AsyncClient, app: FastAPI) -> None:
        """A slow reader that stores what it computed before a write cannot hide that write."""
        await running(writer)
        cache = self._service(app).cache
        slow: Found = await cache.get(ENVIRONMENTS)
        await report(writer, "1")
        await cache.put(ENVIRONMENTS, slow, b'{"items":[]}')
        assert await running(writer) == [("production", "shop", "1")]

    def _service(self, app: FastAPI) -> EnvironmentService:
        service: EnvironmentService = app.state.environments
        return service
