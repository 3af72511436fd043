"""What a refused client waits for, and nobody else."""

from __future__ import annotations

import asyncio
import json
from time import perf_counter

import pytest

from backend.app import create_app
from backend.limits import tarpit
from backend.limits.tarpit import Tarpit
from backend.logs import configure_logging
from backend.settings import Settings
from tests.conftest import asgi_client
from tests.notes import NOTES


@pytest.mark.usefixtures("notes")
async def test_a_refused_request_waits_and_no_other_does(
    settings: Settings, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The time of the wait is not the service's: logs and metrics leave it out."""
    strict = settings.model_copy(update={"api_rate_limit": 1})
    app = create_app(strict)
    configure_logging(strict)
    took = []
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        for _ in range(2):
            began = perf_counter()
            answer = await client.get(f"{NOTES}?limit=1")
            took.append((answer.status_code, perf_counter() - began))
    (first, served), (second, refused) = took
    assert (first, second) == (200, 429)
    assert served < tarpit.SECONDS[0] < refused
    events = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"request"' in line]
    assert [event["status"] for event in events] == [200, 429]
    assert events[1]["ms"] < tarpit.SECONDS[0] * 1000


async def test_those_that_come_at_once_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the next requests of two hundred connections do not come at once, either; and those beyond a number go on."""
    monkeypatch.setattr(tarpit, "AT_ONCE", 20)
    held = Tarpit()
    seconds = await asyncio.gather(*(held.hold() for _ in range(25)))
    waited = sorted(second for second in seconds if second)
    assert len(waited) == 20
    assert waited[-1] - waited[0] > 0.1
    assert await held.hold() > 0
