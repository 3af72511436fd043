"""What /metrics tells, and what it cannot be made to tell."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client import generate_latest
from pydantic import SecretStr

from backend.app import create_app
from backend.database import Database
from backend.metrics import Metrics, metrics_app
from backend.server import _check
from backend.settings import Settings
from tests.backend.process import serve, wait_until
from tests.conftest import TOKEN, asgi_client
from tests.notes import NOTES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \| (?P<labels>[^|]*)\|", re.MULTILINE)
SAYS = {"Slipway-Synthetic": "true"}
FAILURES = ("500", "503", "504")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _count(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the sum of the samples of `name` that have these `labels`."""
    samples = [sample for family in metrics.registry.collect() for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@pytest.fixture(name="metrics")
def _metrics() -> Metrics:
    return Metrics("r1")


@pytest.fixture(name="served")
def _served(settings: Settings, metrics: Metrics, notes: None) -> FastAPI:
    del notes
    before = SecretStr("the-service-token-before")
    app = create_app(settings.model_copy(update={"service_token_previous": before}), metrics=metrics)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    return app


class TestTraffic:
    @pytest.mark.parametrize(
        ("headers", "traffic"),
        [
            ({}, "user"),
            (SAYS, "user"),
            (_bearer(TOKEN), "user"),
            ({**SAYS, **_bearer("a-guessed-service-token")}, "user"),
            ({**SAYS, "Authorization": TOKEN}, "user"),
            ({"Slipway-Synthetic": "false", **_bearer(TOKEN)}, "user"),
            ({**SAYS, **_bearer(TOKEN)}, "synthetic"),
            ({**SAYS, **_bearer("the-service-token-before")}, "synthetic"),
        ],
    )
    async def test_synthetic_is_what_the_token_vouches_for(
        self, served: FastAPI, metrics: Metrics, headers: dict[str, str], traffic: str
    ) -> None:
        """Who only says that it is synthetic hides no error, wherever the request is answered."""
        async with asgi_client(served) as client:
            for path in ("/health", "/bug", "/nowhere"):
                await client.get(path, headers=headers)
        for status in ("200", "500", "404"):
            labels = {"status": status, "release": "r1", "traffic": traffic}
            assert _count(metrics, "http_requests_total", **labels) == 1
        assert _count(metrics, "http_requests_total") == 3
        assert _count(metrics, "http_request_duration_seconds_count", release="r1", traffic=traffic) == 3


class TestFromTheStart:
    async def test_each_route_can_fail_without_a_series_that_begins(self, served: FastAPI, metrics: Metrics) -> None:
        """What an alert divides is there at 0, for each operation of OpenAPI and both kinds of traffic, and grows."""
        found = {
            tuple(sample.labels[name] for name in ("method", "route", "status", "traffic"))
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == "http_requests_total"
        }
        paths = served.openapi()["paths"]
        del paths["/bug"]  # which came later
        assert found == {
            (method.upper(), path, status, traffic)
            for path, operations in paths.items()
            for method in operations
            for status in FAILURES
            for traffic in ("user", "synthetic")
        }
        assert _count(metrics, "http_requests_total") == 0
        names = {sample.name for family in metrics.registry.collect() for sample in family.samples}
        assert {"cache_reads_total", "http_requests_limited_total", "database_pool_timeouts_total"} <= names

    async def test_nobody_makes_series_without_end(self, served: FastAPI, metrics: Metrics) -> None:
        """Invented paths and methods are one series each, however many they are."""
        before = len(generate_latest(metrics.registry).splitlines())
        async with asgi_client(served) as client:
            for number in range(30):
                await client.get(f"/{number}")
                await client.request(f"X{number}", f"/{number}")
        assert len(generate_latest(metrics.registry).splitlines()) - before < 100
        assert len(metrics._children) == 1


class TestPool:
    async def test_counts_the_seconds_of_waiting(self, settings: Settings, metrics: Metrics) -> None:
        """What is lent at once adds nothing, and who waits adds the time, got or not."""
        small = {"database_pool_size": 1, "database_max_overflow": 0, "database_pool_timeout": 0.2}
        database = Database(settings.model_copy(update=small), metrics)
        await database.open()
        try:
            async with database.lease():
                opened = _count(metrics, "database_pool_waited_seconds_total")  # the first connection's
                waiting = asyncio.create_task(database.take())
                with pytest.raises(TimeoutError):
                    await waiting
            database.give_back(await database.take(), broken=False)
        finally:
            await database.close()
        assert 0.15 < _count(metrics, "database_pool_waited_seconds_total") - opened < 2
        assert _count(metrics, "database_pool_timeouts_total") == 1


class TestReadiness:
    def test_is_asked_anew_by_each_scrape(self, notes_environ: dict[str, str], tmp_path: Path) -> None:
        """Nobody asks /ready here: without Redis it is ready, and the check of Redis alone fails; then it drains."""
        environ = {**notes_environ, "REDIS_URL": "redis://127.0.0.1:1/0", "DRAIN_SECONDS": "60"}
        with serve(environ, tmp_path) as service:
            wait_until(lambda: service.metrics()["backend_ready"], "it is never ready")
            samples = service.metrics()
            checks = {name: samples[f'backend_check_ok{{check="{name}"}}'] for name in ("database", "schema", "redis")}
            assert checks == {"database": 1, "schema": 1, "redis": 0}
            assert samples["backend_draining"] == 0
            service.send(signal.SIGTERM)
            wait_until(lambda: service.metrics()["backend_draining"], "it does not drain")
            assert service.metrics()["backend_ready"] == 0

    def test_without_a_database_the_metrics_are_there(self, notes_environ: dict[str, str], tmp_path: Path) -> None:
        """When they are needed most."""
        environ = {**notes_environ, "POSTGRES_HOST": str(tmp_path), "DATABASE_POOL_TIMEOUT": "0.1"}
        with serve(environ, tmp_path) as service:
            began, samples = time.monotonic(), service.metrics()
            assert time.monotonic() - began < 5
            assert (samples["backend_ready"], samples['backend_check_ok{check="database"}']) == (0, 0)
            assert samples['backend_check_ok{check="redis"}'] == 1

    def test_a_worker_that_has_yet_to_start_says_nothing(self, tmp_path: Path) -> None:
        """It was made last, and the others are ready all the same."""

        def worker(then: str) -> str:
            code = f"from backend.metrics import *; from prometheus_client import *; metrics = Metrics('r'); {then}"
            given = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
            return subprocess.check_output([sys.executable, "-c", code], env=given, cwd=ROOT, text=True)

        worker("metrics.ready.set(1)")
        page = worker("import backend.metrics; print(generate_latest(backend.metrics._exported(metrics)).decode())")
        assert "backend_ready 1.0" in page

    async def test_a_check_that_breaks_takes_no_metric_away(self, metrics: Metrics, settings: Settings) -> None:
        """It is not ready, as nobody knows; the page is there, and the log says why."""
        del settings  # it has configured the log
        app = FastAPI()
        metrics.ready.set(1)
        app.state.health = None  # before it has started
        await _check(app, metrics)
        assert _count(metrics, "backend_ready") == 1

        class Broken:
            async def readiness(self) -> None:
                raise RuntimeError("permission denied")

        app.state.health = Broken()

        async def check() -> None:
            await _check(app, metrics)

        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=metrics_app(metrics, check)), base_url="http://service"
        ) as client:
            answer = await client.get("/metrics")
        assert answer.status_code == 200
        assert "backend_ready 0.0" in answer.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_page_lists_what_there_is(workers: str, notes_environ: dict[str, str], tmp_path: Path) -> None:
    """docs/metrics.md has each metric of a service that was asked, with its type and labels, and no other."""
    with serve({**notes_environ, "BACKEND_WORKERS": workers}, tmp_path, on_socket=False) as service:
        with service.client() as client:
            client.get(NOTES)
        wait_until(lambda: any(name.startswith("http_request_dur") for name in service.metrics()), "nothing is counted")
        text = httpx2.get(f"http://127.0.0.1:{service.metrics_port}/metrics").text
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    labels = {name: set[str]() for name in types}
    for name, given in re.findall(r"^(\w+?)(?:_bucket)?\{(.*)\} ", text, re.MULTILINE):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', given))
    served = {
        name: (kind, labels[name] - {"le"})
        for name, kind in types.items()
        if not name.startswith(("process_", "python_"))
    }
    listed = {
        row["name"]: (row["type"], set(re.findall(r"`(\w+)`", row["labels"]))) for row in ROW.finditer(PAGE.read_text())
    }
    assert listed == served
    assert any(name.startswith("process_") for name in types) == (workers == "1")


async def test_waits_for_a_file_that_a_starting_worker_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment it is empty; the scrape of that moment is no failure."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    empty = tmp_path / "counter_1.db"
    empty.touch()
    transport = httpx2.ASGITransport(app=metrics_app(Metrics("r"), _nothing), raise_app_exceptions=False)
    asyncio.get_running_loop().call_later(0.05, empty.unlink)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get("/metrics")).status_code == 200


async def _nothing() -> None:
    """Check nothing."""
