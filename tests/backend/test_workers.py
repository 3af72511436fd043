"""BACKEND_WORKERS > 1: one service of several processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.backend.process import Service, serve, wait_until
from tests.notes import NOTES

COUNT = f'http_requests_total{{method="GET",route="{NOTES}",status="200"}}'


@pytest.fixture(name="service")
def _service(notes_environ: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "tmp").mkdir()
    with serve({**notes_environ, "BACKEND_WORKERS": "2", "TMPDIR": str(tmp_path / "tmp")}, tmp_path) as service:
        wait_until(lambda: len(service.events("started")) == 2, "there are no two workers")
        yield service


def _workers(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children()


class TestWorkers:
    def test_metrics_are_the_sum_and_survive_a_worker(self, service: Service) -> None:
        """Counters are summed, whoever is asked, and do not drop when a worker is killed and replaced."""
        began = time.monotonic()  # not the process's own word for it, which is up to a second off
        for _ in range(30):
            with service.client() as client:
                client.get(NOTES)
        wait_until(lambda: service.metrics()[COUNT] >= 30, "an answer is not counted")  # it is once it was sent
        assert {service.metrics()[COUNT] for _ in range(10)} == {30}
        first = _workers(service)[0]
        wait_until(lambda: time.monotonic() - began > 1.1, "time stands still")
        first.kill()
        wait_until(lambda: len(service.events("started")) == 3, "the killed worker was not replaced")
        samples = service.metrics()
        assert (samples[COUNT], samples["database_connections_limit"]) == (30, 20)

    def test_all_drain_and_nothing_stays(self, service: Service, tmp_path: Path) -> None:
        """SIGTERM to the first process drains every worker; the exit code is 0 and no file of metrics stays."""
        assert list((tmp_path / "tmp").iterdir()) != []
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        assert len(service.events("draining")) == 2
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_workers_do_not_outlive_a_killed_supervisor(self, service: Service) -> None:
        """`kill -9` of the first process leaves no worker that holds the listener."""
        workers = _workers(service)
        os.kill(service.process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert alive == []
