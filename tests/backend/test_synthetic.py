"""`python -m backend.synthetic remove`, on a real database: whose rows go, and whose stay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import httpx2
import pytest

from backend import domain
from backend.synthetic import main
from tests.services import ROOT, Services, psql

RELEASES = "/api/v1/releases"
Remove: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(name="remove")
def _remove(environ: dict[str, str]) -> Remove:
    """Run the command as a deploy does, with IDS on its standard input."""

    def run(*ids: str, before: datetime | str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        when = before.isoformat() if isinstance(before, datetime) else before
        command = [sys.executable, "-m", "backend.synthetic", "remove", *(["--before", when] if when else [])]
        given = "".join(f"{ident}\n" for ident in ids)
        env = {**os.environ, **environ, **variables}
        return subprocess.run(command, input=given, env=env, cwd=ROOT, capture_output=True, text=True, check=False)

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


class TestRemove:
    async def test_takes_what_the_proof_wrote_and_nothing_else(
        self, writer: httpx2.AsyncClient, remove: Remove
    ) -> None:
        """The rows of another proof stay, and those of a person, even if its id is given; the number is JSON."""
        mine, other, person = await write(writer), await write(writer), await write(writer, synthetic=False)
        done = remove(mine, person)
        assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"removed": 1}, "")
        assert await there(writer, mine, other, person) == [False, True, True]

    async def test_can_be_repeated(self, writer: httpx2.AsyncClient, remove: Remove) -> None:
        """A deploy tries it again when it does not know whether it was done."""
        mine = await write(writer)
        assert [json.loads(remove(mine).stdout)["removed"] for _ in range(2)] == [1, 0]
        assert json.loads(remove().stdout) == {"removed": 0}

    async def test_takes_what_is_older_after_a_killed_deploy(
        self, writer: httpx2.AsyncClient, remove: Remove, services: Services, worker_database: str
    ) -> None:
        """Nobody knows its ids; what was written since then is another proof's."""
        old, new, person = await write(writer), await write(writer), await write(writer, synthetic=False)
        for ident in (old, person):
            earlier = f"UPDATE releases SET created_at = now() - interval '1 hour' WHERE id = '{ident}'"
            psql(services, worker_database, earlier)
        done = remove(before=datetime.now(UTC) - timedelta(minutes=1))
        assert json.loads(done.stdout) == {"removed": 1}
        assert await there(writer, old, new, person) == [False, True, True]

    async def test_takes_both_at_once(self, writer: httpx2.AsyncClient, remove: Remove) -> None:
        """The ids of this proof, and what an earlier one left."""
        ids = [await write(writer) for _ in range(3)]
        assert json.loads(remove(ids[0], before=datetime.now(UTC) + timedelta(minutes=1)).stdout) == {"removed": 3}
        assert await there(writer, *ids) == [False, False, False]

    def test_wants_a_time_that_means_the_same_everywhere(self, remove: Remove) -> None:
        """The database may be in another zone."""
        done = remove(before="2027-01-15T08:00:00")
        assert done.returncode == 2
        assert "must name its time zone" in done.stderr

    def test_says_in_one_line_what_went_wrong(self, remove: Remove) -> None:
        """A deploy reports that line."""
        for done in (remove("no-uuid"), remove(POSTGRES_HOST="/nonexistent"), remove(POSTGRES_DB="gone")):
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("synthetic rows were not removed: ")
            assert len(done.stderr.splitlines()) == 1

    def test_wants_to_be_told_what_to_remove(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A domain of one's own has its own tables."""
        monkeypatch.delattr(domain, "REMOVE_SYNTHETIC")
        assert main(["remove"]) == 2
        assert "backend/domain.py has no REMOVE_SYNTHETIC" in capsys.readouterr().err
