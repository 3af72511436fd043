"""`/health` and `/ready` from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx2
import pytest
from fastapi import FastAPI

from backend.health.service import CHECK_SECONDS, VERSIONS, needed_revision
from tests.services import Services, psql


@pytest.fixture(name="revision")
def _revision(services: Services, worker_database: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Sets the database's revision, and the right one back afterwards."""
    statement = "UPDATE alembic_version SET version_num = '{}'"
    psql(services, worker_database, statement.format(request.param))
    yield
    psql(services, worker_database, statement.format(needed_revision()))


@pytest.fixture(name="not_applied")
def _not_applied(services: Services, worker_database: str) -> Iterator[None]:
    """The history of the database lacks the newest migration."""
    needed = needed_revision()
    statement = "UPDATE alembic_history SET revision = '{}' WHERE revision = '{}'"
    psql(services, worker_database, statement.format("lacks", needed))
    yield
    psql(services, worker_database, statement.format(needed, "lacks"))


class TestHealth:
    async def test_is_200(self, client: httpx2.AsyncClient) -> None:
        """The process lives."""
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


class TestReady:
    async def test_names_each_check_with_state_and_milliseconds(self, client: httpx2.AsyncClient) -> None:
        """All is well: 200, and each of the four checks says so and how long it took."""
        answer = await client.get("/ready")
        checks = answer.json()["checks"]
        assert (answer.status_code, answer.json()["ready"]) == (200, True)
        assert {name: check["state"] for name, check in checks.items()} == dict.fromkeys(
            ("database", "schema", "redis", "draining"), "ok"
        )
        assert all(check["ms"] >= 0 for check in checks.values())

    @pytest.mark.parametrize("revision", ["0000", "9999"], indirect=True)
    @pytest.mark.usefixtures("revision", "not_applied")
    async def test_a_schema_that_lacks_a_migration_is_not_ready(self, client: httpx2.AsyncClient) -> None:
        """A database that lacks a migration of this release makes 503, however its revision sorts, and says which."""
        answer = await client.get("/ready")
        schema = answer.json()["checks"]["schema"]
        assert (answer.status_code, schema["state"]) == (503, "failed")
        assert f", this release needs {needed_revision()}" in schema["detail"]

    @pytest.mark.parametrize("revision", ["9999"], indirect=True)
    @pytest.mark.usefixtures("revision")
    async def test_a_newer_schema_is_fine(self, client: httpx2.AsyncClient) -> None:
        """A database that a newer release has migrated already still serves this one."""
        assert (await client.get("/ready")).status_code == 200

    async def test_a_draining_process_is_not_ready(self, app: FastAPI, client: httpx2.AsyncClient) -> None:
        """Draining counts, unless it is excluded."""
        app.state.health.drain.active = True
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/ready?exclude=draining")).status_code == 200

    async def test_a_redis_that_is_late_only_degrades(
        self, app: FastAPI, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long its check takes on a busy host, the service is as ready as without Redis."""

        async def late() -> None:
            await asyncio.sleep(2 * CHECK_SECONDS)

        monkeypatch.setattr(app.state.health.cache, "check", late)
        answer = await client.get("/ready?exclude=database&exclude=schema")
        assert (answer.status_code, answer.json()["checks"]["redis"]["state"]) == (200, "degraded")

    async def test_an_excluded_check_is_not_run(self, client: httpx2.AsyncClient) -> None:
        """Excluded checks say so; an unknown name is a 422 problem."""
        checks = (await client.get("/ready?exclude=redis&exclude=schema")).json()["checks"]
        states = {name: check["state"] for name, check in checks.items()}
        assert states == {"database": "ok", "schema": "excluded", "redis": "excluded", "draining": "ok"}
        assert (await client.get("/ready?exclude=weather")).status_code == 422

    def test_the_needed_revision_is_the_newest_migration(self) -> None:
        """The service reads it from the file names, as it does without Alembic."""
        assert needed_revision() == sorted(path.name for path in VERSIONS.glob("0*.py"))[-1][:4]
