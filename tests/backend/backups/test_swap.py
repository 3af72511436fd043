"""What was restored takes the place of what serves; a failure and a kill leave what serves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from backend.app import create_app
from backend.backups.errors import BackupFailed
from backend.backups.restore import restore
from backend.backups.swap import swap
from backend.cache import Cache
from backend.logs import configure_logging
from backend.metrics import Metrics
from backend.settings import load_settings
from tests.backend.backups.conftest import Place
from tests.conftest import KEY, TOKEN, asgi_client
from tests.notes import NOTES, TABLES

pytestmark = pytest.mark.usefixtures("turn")


@pytest.fixture(name="new")
async def _new(place: Place, redis_url: str) -> str:
    """A restored database beside the one that serves, which has one row more."""
    place.environ["REDIS_URL"] = redis_url
    new = f"{place.database}-new"
    manifest = await place.back_up()
    await restore(place.server(), await place.check(manifest.name), new, place.say)
    place.run("CREATE TABLE later ()")
    return new


async def _has_later(place: Place, database: str) -> bool:
    return bool(await place.ask("SELECT to_regclass('later') IS NOT NULL", database))


async def _open(place: Place) -> set[str]:
    found = "SELECT array_agg(datname::text) FROM pg_database WHERE datallowconn AND datname LIKE '{}%'"
    return {*(await place.ask(found.format(place.database), "postgres") or ())}


class TestSwap:
    async def test_and_back(self, place: Place, new: str) -> None:
        """What was restored serves, what served is put aside; the same again undoes it."""
        told = await swap(place.server(), place.database, new, place.say)
        before = told["before"]
        assert not await _has_later(place, place.database)
        assert await _has_later(place, before)
        assert await _open(place) == {place.database, before}
        back = await swap(place.server(), place.database, before, place.say)
        assert await _has_later(place, place.database)
        assert await _open(place) == {place.database, back["before"]}

    async def test_again_answers_as_the_first_time(self, place: Place, new: str) -> None:
        """Whoever was killed just after it may call it once more."""
        first = await swap(place.server(), place.database, new, place.say)
        again = await swap(place.server(), place.database, new, place.say)
        assert again == {**first, "seconds": None, "caches": None}

    async def test_ends_sessions_and_caches(self, place: Place, new: str) -> None:
        """A refresh token of the backup's time is none any more, and an answer of before is not served."""
        cache = Cache(place.settings, Metrics("r1"))
        await cache.get("answer")
        found = await cache.get("answer")
        await cache.put("answer", found, b"of before")
        assert (await cache.get("answer")).value == b"of before"
        told = await swap(place.server(), place.database, new, place.say)
        assert (told["sessions"], told["caches"]) == (1, 1)
        assert await place.ask("SELECT count(*) FROM account_sessions") == 0
        assert (await cache.get("answer")).value is None
        await cache.close()

    async def test_without_redis_it_is_said(self, place: Place, new: str) -> None:
        """How long old answers may be served."""
        place.environ["REDIS_URL"] = "unix:///nowhere/redis.sock"
        told = await swap(place.server(), place.database, new, place.say)
        assert told["caches"] is None
        assert any("answers of before may be served for 60 s" in line for line in place.said)

    async def test_of_nothing_is_refused(self, place: Place) -> None:
        """By the name that is missing."""
        with pytest.raises(BackupFailed, match="there is no database not-there: `restore` makes it"):
            await swap(place.server(), place.database, "not-there", place.say)

    async def test_drops_what_was_put_aside_at_the_next_restore(self, place: Place, new: str) -> None:
        """And not before."""
        told = await swap(place.server(), place.database, new, place.say)
        manifest = await place.back_up()
        await restore(place.server(), await place.check(manifest.name), new, place.say)
        assert told["before"] not in await place.databases()


class TestFailure:
    async def test_leaves_both_as_they_were(self, place: Place, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A rename that PostgreSQL refuses: everybody is let in again."""
        place.run(f'CREATE DATABASE "{place.database}-before-taken"')
        monkeypatch.setattr("backend.backups.swap._aside", lambda old: f"{old}-before-taken")
        with pytest.raises(BackupFailed, match=r"not swapped, both are as they were: .* already exists"):
            await swap(place.server(), place.database, new, place.say)
        assert await _open(place) >= {place.database, new}
        assert await _has_later(place, place.database)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    async def test_being_ended_in_the_middle(self, place: Place, new: str, number: signal.Signals) -> None:
        """SIGTERM puts both right; after kill -9 the same call does, and goes on."""
        program = await _stopped_swap(place, new)
        program.send_signal(number)
        await program.wait()
        if number == signal.SIGTERM:
            assert await _open(place) == {place.database, new}
            assert await _has_later(place, place.database)
        else:
            assert await _open(place) == set()
        told = await swap(place.server(), place.database, new, place.say)
        assert await _open(place) == {place.database, told["before"]}
        assert not await _has_later(place, place.database)

    async def test_being_killed_after_the_renames(self, place: Place, new: str) -> None:
        """The same call lets everybody in."""
        told = await swap(place.server(), place.database, new, place.say)
        for name in (place.database, told["before"]):
            place.run(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false', "postgres")
        again = await swap(place.server(), place.database, new, place.say)
        assert again["before"] == told["before"]
        assert again["seconds"] > 0
        assert await _open(place) == {place.database, told["before"]}


async def _stopped_swap(place: Place, new: str) -> asyncio.subprocess.Process:
    """Begin a swap that waits after it has closed both databases."""
    code = """if True:
        import asyncio, sys
        from backend.backups import swap
        from backend.backups.__main__ import main
        async def wait(*_):
            print("closed", flush=True)
            await asyncio.sleep(60)
        swap._end_caches = wait
        sys.exit(main(["swap", *sys.argv[1:]]))"""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, place.database, new, env={**os.environ, **place.environ},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert program.stdout is not None
    assert await program.stdout.readline() == b"closed\n"
    return program


@pytest.mark.usefixtures("notes")
class TestServed:
    """The service while its database is swapped."""

    @pytest.fixture(autouse=True)
    def _notes_table(self, place: Place, redis_url: str) -> None:
        place.run(f'SET ROLE "{place.owner}"; {TABLES}')
        place.environ |= {"SERVICE_TOKEN": TOKEN, "JWT_SECRET_KEY": KEY, "REDIS_URL": redis_url}

    async def test_answers_503_and_never_500(self, place: Place) -> None:
        """Reads and writes while it is swapped and swapped back, several times: 2xx, or 503 with Retry-After."""
        new = f"{place.database}-new"
        manifest = await place.back_up()
        await restore(place.server(), await place.check(manifest.name), new, place.say)
        answers: list[httpx2.Response] = []
        async with _service(place) as client:
            ended = asyncio.Event()
            tasks = [asyncio.create_task(_ask(client, answers, ended)) for _ in range(6)]
            for _ in range(3):
                told = await swap(place.server(), place.database, new, place.say)
                new = told["before"]
                await asyncio.sleep(0.3)
            ended.set()
            await asyncio.gather(*tasks)
            await _works(client)
        codes = {answer.status_code for answer in answers}
        assert codes <= {200, 201, 503}
        assert {200, 201} <= codes
        assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 503)

    @pytest.mark.parametrize("state", ["closed", "renamed"])
    async def test_waits_while_nobody_is_let_in(self, place: Place, state: str) -> None:
        """55000 and 3D000 are a database that is away: 503 with Retry-After, not ready, and then it goes on."""
        closed = f'ALTER DATABASE "{place.database}" ALLOW_CONNECTIONS'
        renamed = 'ALTER DATABASE "{}" RENAME TO "{}"'
        there, gone = place.database, f"{place.database}-gone"
        end = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{there}'"
        async with _service(place) as client:
            await _works(client)
            place.run(f"{closed} false", "postgres")  # as a swap does: else the service is in again before the rename
            await place.ask(end, "postgres")
            if state == "renamed":
                await asyncio.to_thread(place.run, renamed.format(there, gone), "postgres")
            answers = [
                await client.get(NOTES),
                await client.post(NOTES, json={"text": "x"}),
                await client.get("/ready"),
            ]
            assert [answer.status_code for answer in answers] == [503, 503, 503]
            assert answers[0].headers["Retry-After"]
            assert answers[1].headers["Retry-After"]
            assert answers[0].headers["Content-Type"] == "application/problem+json"
            if state == "renamed":
                place.run(renamed.format(gone, there), "postgres")
            place.run(f"{closed} true", "postgres")
            await _works(client)


@asynccontextmanager
async def _service(place: Place) -> AsyncIterator[httpx2.AsyncClient]:
    settings = load_settings(place.environ, secrets_dir=Path("/nowhere"))
    configure_logging(settings)
    app = create_app(settings)
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client


async def _ask(client: httpx2.AsyncClient, answers: list[httpx2.Response], ended: asyncio.Event) -> None:
    while not ended.is_set():
        answers.append(await client.get(NOTES))
        answers.append(await client.post(NOTES, json={"text": "meanwhile"}))
        await asyncio.sleep(0.01)


async def _works(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await client.post(NOTES, json={"text": "again"})).status_code != 201:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
