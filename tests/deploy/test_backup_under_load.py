"""A backup while 200 writes a second arrive: what it costs those who write, and what it has of theirs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import httpx2
import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import kept, make_table, told
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

RATE, PART_SECONDS = 200, 12  # writes a second, and how long they are measured before, beside and after backups
MOST_SLOWDOWN = 2.0
FILL = "INSERT INTO testing_big SELECT md5(random()::text) FROM generate_series(1, 1000000)"  # seconds of a dump
BESIDE = "under_load"


@dataclass(frozen=True)
class Written:
    """One write: when it was due and answered (Unix time), and the id of its row."""

    due: float
    answered: float
    ident: str


@contextmanager
def writing(checkout: Checkout) -> Iterator[list[Written]]:
    """Write notes at RATE while the block runs, each when it is due, however long others take. Each must succeed."""
    over, written = threading.Event(), list[Written]()
    headers = {"Authorization": f"Bearer {checkout.settings()['SERVICE_TOKEN']}"}
    url = f"http://localhost:{checkout.port}{NOTES}"

    async def write(client: httpx2.AsyncClient, due: float) -> None:
        answer = await client.post(url, headers=headers, json={"text": "a write", "tag": "w"})
        assert answer.status_code == 201, answer.text
        written.append(Written(due, time.time(), answer.json()["id"]))

    async def write_all() -> None:
        async with httpx2.AsyncClient(timeout=15, trust_env=False) as client, asyncio.TaskGroup() as group:
            due = time.time()
            while not over.is_set():
                group.create_task(write(client, due))
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - time.time()))

    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(write_all())
        except BaseExceptionGroup as error:
            failed.extend(error.exceptions)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield written
    finally:
        over.set()
        thread.join()
    assert failed == []


def p99(writes: list[Written], *spans: tuple[float, float]) -> float:
    """Return the 99th percentile (ms) of what was due in `spans`, which have all of RATE."""
    times = sorted(one.answered - one.due for one in writes if any(begin <= one.due < end for begin, end in spans))
    assert len(times) >= 0.95 * RATE * sum(end - begin for begin, end in spans)
    return times[int(0.99 * len(times))] * 1000


def test_a_backup_slows_nobody_down_and_has_each_write_before_its_snapshot(deployed: Checkout, add_row: AddRow) -> None:
    """At most twice the p99 of before and after it, from the command's begin to its end."""
    make_table(deployed, "testing_big", "text text")
    deployed.sql(FILL)
    kept(deployed)  # the first one makes the program's environment
    with writing(deployed) as writes:
        time.sleep(PART_SECONDS / 4)  # connections are opened
        marks = [time.time()]
        time.sleep(PART_SECONDS)
        marks.append(time.time())
        backup = kept(deployed)
        while time.time() - marks[1] < PART_SECONDS:
            backup = kept(deployed)
        marks.append(time.time())
        time.sleep(PART_SECONDS)
        marks.append(time.time())
    before, beside, after = pairwise(marks)
    without, during = p99(writes, before, after), p99(writes, beside)
    snapshot = datetime.fromisoformat(backup["snapshot"]).timestamp()
    acknowledged = {one.ident for one in writes if one.answered < snapshot}
    assert len(acknowledged) > RATE * PART_SECONDS
    restored = told(deployed, "restore", "--backup", backup["name"], "--database", BESIDE)
    assert restored.code == 0, str(restored)
    there = {*deployed.sql_in(BESIDE, "SELECT array_agg(id::text) FROM testing_notes")}
    assert acknowledged - there == set()
    assert len(there) < len(writes)  # so that what came later is not mistaken for what was kept
    add_row(
        "a backup under writes",
        f"local: {RATE} a second: p99 {without:.0f} ms without, {during:.0f} ms with ({during / without:.1f} ×);"
        f" {len(acknowledged)} acknowledged before the snapshot, each restored",
    )
    assert during <= MOST_SLOWDOWN * without
