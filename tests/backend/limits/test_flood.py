"""Ten thousand sign-ins from one address."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from pipeline.proof.generator import StallClock
from tests.backend.accounts.conftest import AUTH
from tests.backend.process import serve
from tests.conftest import AddRow

pytestmark = pytest.mark.e2e

LOGINS, CONNECTIONS = 10_000, 200
HEALTH_EVERY = 0.02
HEALTH_P99 = 0.05


async def test_ten_thousand_sign_ins_from_one_address(
    notes_environ: dict[str, str], tmp_path: Path, add_row: AddRow
) -> None:
    """Over 200 connections: nearly all are a 429, none is a 500, and others notice nothing."""
    answers = Counter[int]()
    took: list[float] = []
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    clock = StallClock(loop)
    with serve({**notes_environ, "LOG_LEVEL": "INFO"}, tmp_path) as service:

        async def guess(connection: int) -> None:
            reader, writer = await asyncio.open_unix_connection(service.path)
            for number in range(LOGINS // CONNECTIONS):
                body = json.dumps({"username": f"name-{connection}-{number}", "password": "x"}).encode()
                answers[await ask(reader, writer, f"POST {AUTH}/login", body)] += 1
            writer.close()
            await writer.wait_closed()

        async def probe() -> None:
            reader, writer = await asyncio.open_unix_connection(service.path)
            while not over.is_set():
                began, stalled = loop.time(), clock.stalled(loop.time())
                assert await ask(reader, writer, "GET /health") == 200
                ended = loop.time()
                took.append(ended - began - (clock.stalled(ended) - stalled))
                await asyncio.sleep(HEALTH_EVERY)
            writer.close()
            await writer.wait_closed()

        began = loop.time()
        probing = asyncio.create_task(probe())
        await asyncio.gather(*map(guess, range(CONNECTIONS)))
        seconds = loop.time() - began
        over.set()
        await probing
        clock.stop()
    p99 = sorted(took)[len(took) * 99 // 100]
    add_row(
        f"{LOGINS} sign-ins from one address over {CONNECTIONS} connections",
        f"{seconds:.1f} s, {dict(answers)}; p99 of {len(took)} /health: {p99 * 1000:.1f} ms",
    )
    assert answers.total() == LOGINS
    assert answers.keys() <= {401, 429, 503}  # 503: too many passwords at once
    assert answers[429] > 0.95 * LOGINS
    assert p99 < HEALTH_P99


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, body: bytes = b"") -> int:
    """Send a request over a connection that stays, and return the status."""
    head = f"{line} HTTP/1.1\r\nHost: service\r\nX-Forwarded-For: 203.0.113.7\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    lengths = [int(field.partition(":")[2]) for field in fields if field.lower().startswith("content-length:")]
    await reader.readexactly(sum(lengths))
    return int(status.split()[1])
