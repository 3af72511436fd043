"""BACKEND_WORKERS > 1: one service of several processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.backend.process import Service, serve, wait_until
from tests.conftest import TOKEN
from tests.notes import NOTES

COUNT = f'http_requests_total{{method="GET",release="dev",route="{NOTES}",status="200",traffic="user"}}'


@pytest.fixture(name="service")
def _service(notes_environ: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "tmp").mkdir()
    with serve({**notes_environ, "BACKEND_WORKERS": "2", "TMPDIR": str(tmp_path / "tmp")}, tmp_path) as service:
        wait_until(lambda: len(service.events("started")) == 2, "there are no two workers")
        yield service


BEGUN = f"POST {NOTES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
Content-Length: 9\r\n\r\n".encode()


def _is_open(client: socket.socket) -> bool:
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


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
        first.wait()
        ready = set[float]()
        while len(service.events("started")) < 3:
            assert time.monotonic() - began < 30, "the killed worker was not replaced"
            ready.add(service.metrics()["backend_ready"])  # also of one that has not started yet
        assert ready == {1}
        samples = service.metrics()
        assert (samples[COUNT], samples["database_connections_limit"]) == (30, 20)
        assert (samples["backend_worker_starts_total"], samples["backend_ready"]) == (3, 1)
        (told,) = service.events("worker killed; another one takes its place")
        assert (told["worker"], told["code"], told["level"]) == (first.pid, -signal.SIGKILL, "warning")
        with service.client() as client:
            client.get(NOTES)
        wait_until(lambda: service.metrics()[COUNT] == 31, "who took its place does not count on")

    def test_what_a_dead_worker_held_is_not_counted(self, service: Service, tmp_path: Path) -> None:
        """Its requests and connections are gone from the gauges; who takes its place leaves no further file."""
        began, held = time.monotonic(), "http_requests_in_flight"
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(service.connect()) for _ in range(20)]
            for client in clients:
                client.sendall(BEGUN)
                client.setblocking(False)  # noqa: FBT003 - its only parameter
            wait_until(lambda: service.metrics()[held] == 20, "the requests did not arrive")
            wait_until(lambda: service.metrics()["database_connections"] == 10, "the pools do not fill")
            wait_until(lambda: time.monotonic() - began > 1.1, "time stands still")
            max(_workers(service), key=lambda worker: worker.num_fds()).kill()  # either may have accepted nearly all
            wait_until(lambda: len(service.events("started")) == 3, "the killed worker was not replaced")
            alive = sum(_is_open(client) for client in clients)
            assert alive < 20
            assert {service.metrics()[held] for _ in range(10)} == {alive}
        wait_until(lambda: service.metrics()[held] == 0, "requests stay that nobody sends")
        wait_until(lambda: service.metrics()["database_connections"] == 10, "connections are counted that are gone")
        assert {path.stem.rpartition("_")[2] for path in (tmp_path / "tmp").rglob("*.db")} == {"0", "1"}

    def test_draining_and_readiness_are_of_the_replica(self, notes_environ: dict[str, str], tmp_path: Path) -> None:
        """Whichever worker is asked: 1 is ready, not 2; and when it drains, that is 1, too."""
        with serve({**notes_environ, "BACKEND_WORKERS": "2", "DRAIN_SECONDS": "60"}, tmp_path) as service:
            wait_until(lambda: len(service.events("started")) == 2, "there are no two workers")
            told = [service.metrics() for _ in range(10)]
            assert {(each["backend_ready"], each["backend_draining"]) for each in told} == {(1, 0)}
            service.send(signal.SIGTERM)
            wait_until(lambda: len(service.events("draining")) == 2, "it does not drain")
            told = [service.metrics() for _ in range(10)]
            assert {(each["backend_ready"], each["backend_draining"]) for each in told} == {(0, 1)}

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
