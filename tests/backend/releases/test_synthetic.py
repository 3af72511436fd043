"""`python -m backend.synthetic remove` on releases: whose rows go, and whose stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import httpx2
import pytest

from tests.services import ROOT, Services, psql

RELEASES = "/api/v1/releases"
Remove: TypeAlias = Callable[..., Any]


@pytest.fixture(name="remove")
def _remove(environ: dict[str, str]) -> Remove:
    """Run the command as a deploy does, with IDS on its standard input; return what it printed."""

    def run(*ids: str, before: datetime | None = None) -> Any:
        when = ["--before", before.isoformat()] if before else []
        done = subprocess.run(
            [sys.executable, "-m", "backend.synthetic", "remove", *when],
            input="".join(f"{ident}\n" for ident in ids),
            env={**os.environ, **environ},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return run


async def write(writer: httpx2.AsyncClient, *, synthetic: bool = True) -> str:
    """Write a release and return its id."""
    headers = {"Slipway-Synthetic": "true"} if synthetic else {}
    body = {"service": "shop", "environment": "production", "version": "1", "status": "deployed"}
    answer = await writer.post(RELEASES, json=body, headers=headers)
    return str(answer.json()["id"])


async def there(writer: httpx2.AsyncClient, *ids: str) -> list[bool]:
    """Whether each of these releases is still there."""
    return [(await writer.get(f"{RELEASES}/{ident}")).status_code == 200 for ident in ids]


async def test_takes_what_the_proof_wrote_and_nothing_else(writer: httpx2.AsyncClient, remove: Remove) -> None:
    """The rows of another proof stay, and those of a person, even if its id is given."""
    mine, other, person = await write(writer), await write(writer), await write(writer, synthetic=False)
    assert remove(mine, person) == {"removed": 1}
    assert await there(writer, mine, other, person) == [False, True, True]


async def test_takes_what_is_older_after_a_killed_deploy(
    writer: httpx2.AsyncClient, remove: Remove, services: Services, worker_database: str
) -> None:
    """Nobody knows its ids; what was written since then is another proof's."""
    old, new, person = await write(writer), await write(writer), await write(writer, synthetic=False)
    for ident in (old, person):
        earlier = f"UPDATE releases SET created_at = now() - interval '1 hour' WHERE id = '{ident}'"
        psql_beside(services, worker_database, earlier)
    assert remove(before=datetime.now(UTC) - timedelta(minutes=1)) == {"removed": 1}
    assert await there(writer, old, new, person) == [False, True, True]


def psql_beside(services: Services, database: str, statement: str) -> None:
    """Run a statement while this thread's event loop runs."""
    from threading import Thread

    thread = Thread(target=psql, args=(services, database, statement))
    thread.start()
    thread.join()
