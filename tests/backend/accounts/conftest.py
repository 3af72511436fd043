"""Accounts for tests, whose one password is `PASSWORD`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import httpx2
import pytest
from argon2 import PasswordHasher

from backend.app import create_app
from backend.limits import login
from backend.settings import Settings
from tests.conftest import asgi_client
from tests.services import Services, psql

AUTH = "/api/v1/auth"
PASSWORD = "a password of tests"
HASH = PasswordHasher(2, 19_456, 1).hash(PASSWORD)
OWN = {"Sec-Fetch-Site": "same-origin"}

Sql: TypeAlias = Callable[[str], None]
Add: TypeAlias = Callable[..., None]
Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test sign in more often than a person may."""
    for name in ("NAME_LIMIT", "ADDRESS_LIMIT", "REFRESH_LIMIT"):
        monkeypatch.setattr(login, name, 1000)


@pytest.fixture(name="sql")
def _sql(services: Services, worker_database: str) -> Sql:
    """Return a function that runs one statement."""
    return lambda statement: psql(services, worker_database, statement)


@pytest.fixture(name="add")
def _add(sql: Sql, empty_database: str) -> Add:
    """Return a function that adds an account."""
    del empty_database

    def add(name: str, role: str = "deployer", *, hashed: str = HASH, disabled: bool = False) -> None:
        since = "now()" if disabled else "NULL"
        sql(f"INSERT INTO accounts (id, name, role, password_hash, disabled_at)"
            f" VALUES ('{uuid4()}', '{name}', '{role}', '{hashed}', {since})")  # fmt: skip

    return add


@pytest.fixture(name="serve")
def _serve(settings: Settings) -> Serve:
    """Return a context manager that serves with other settings, as one more replica; it yields a caller."""

    @asynccontextmanager
    async def serve(scheme: str = "http", **changes: Any) -> AsyncIterator[httpx2.AsyncClient]:
        app = create_app(settings.model_copy(update=changes))
        async with app.router.lifespan_context(app), asgi_client(app) as client:
            client.base_url = httpx2.URL(f"{scheme}://service")
            yield client

    return serve


async def sign_in(client: httpx2.AsyncClient, name: str = "anna", **fields: Any) -> Any:
    """Sign in, and return what was answered."""
    answer = await client.post(f"{AUTH}/login", json={"username": name, "password": PASSWORD, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refresh(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    """Send a refresh token, and return the answer."""
    return await client.post(f"{AUTH}/refresh", json={"refresh_token": token})


def bearer(token: str) -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"Bearer {token}"}
