"""The running process: draining, signals, listeners, start."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx2
import pytest

from tests.backend.process import Service, serve, start, wait_until
from tests.notes import NOTES

BODY = b'{"text":"as long as it takes"}'
POST = (
    f"POST {NOTES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-service-token-of-tests\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
)


@pytest.fixture(name="environ")
def _environ(notes_environ: dict[str, str]) -> dict[str, str]:
    return notes_environ


@pytest.fixture(name="draining")
def _draining(environ: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    """A service that drains for a minute: as long as a test needs."""
    with serve({**environ, "DRAIN_SECONDS": "60"}, tmp_path) as service:
        yield service


def _begin_post(service: Service) -> socket.socket:
    """A POST whose body has only half arrived: it is in flight until the rest is sent."""
    client = service.connect()
    client.sendall(POST.encode() + BODY[:10])
    wait_until(lambda: service.metrics()["http_requests_in_flight"] == 1, "the request did not arrive")
    return client


def _read_answer(client: socket.socket) -> bytes:
    answer = b""
    while chunk := client.recv(65536):
        answer += chunk
    return answer


class TestDraining:
    def test_still_serves_and_keeps_no_connection(self, draining: Service) -> None:
        """After SIGTERM it is not ready, yet answers old and new connections, the last time on each."""
        with draining.client() as kept:
            assert "connection" not in kept.get("/health").headers
            draining.send(signal.SIGTERM)
            wait_until(lambda: draining.client().get("/ready").status_code == 503, "it stays ready")
            for client in (kept, draining.client()):
                answer = client.get(NOTES)
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")

    def test_finishes_what_is_in_flight(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A request that began before the listener closed is answered, and the exit code is 0."""
        with serve(environ, tmp_path) as service, _begin_post(service) as client:
            service.send(signal.SIGTERM)
            wait_until(lambda: not service.accepts(), "the listener stays open without a drain")
            client.sendall(BODY[10:])
            assert _read_answer(client).startswith(b"HTTP/1.1 201 ")
            assert service.wait() == 0

    def test_answers_what_takes_too_long_before_it_leaves(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A request that never ends gets a 504 after REQUEST_TIMEOUT_SECONDS, and then the exit is orderly."""
        with serve({**environ, "REQUEST_TIMEOUT_SECONDS": "2"}, tmp_path) as service, _begin_post(service) as client:
            service.send(signal.SIGTERM)
            answer = _read_answer(client)
            assert answer.startswith(b"HTTP/1.1 504 ")
            assert b"urn:problem-type:request-timeout" in answer
            assert service.wait() == 0

    def test_goes_on_while_requests_come(self, environ: dict[str, str], tmp_path: Path) -> None:
        """An edge on a busy host learns late that it drains; probes alone keep nobody, and nothing does for ever."""
        for path, asking, latest in (("/ready", 0.9, 2.5), (NOTES, 3.0, 5.0)):
            with serve({**environ, "DRAIN_SECONDS": "1"}, tmp_path) as service:
                service.send(signal.SIGTERM)
                began, statuses = time.monotonic(), set[int]()
                while time.monotonic() - began < asking:
                    with service.client() as client:
                        statuses.add(client.get(path).status_code)
                    time.sleep(0.05)
                assert service.wait() == 0
                assert asking < time.monotonic() - began < latest
                assert statuses - {200} == ({503} if path == "/ready" else set())

    def test_fails_no_request_under_load(self, environ: dict[str, str], tmp_path: Path) -> None:
        """Callers on kept connections that reconnect when told to see no failure until it is their turn to leave."""
        failures: list[str] = []
        answered = 0
        # As long as the slowest caller needs, on a busy machine, to learn that it should leave.
        with serve({**environ, "DRAIN_SECONDS": "2"}, tmp_path) as service:
            left = threading.Event()

            def call() -> None:
                nonlocal answered
                with service.client() as client:
                    while not left.is_set():
                        try:
                            answer = client.get("/ready")
                        except httpx2.TransportError as error:
                            failures.append(repr(error))
                            return
                        answered += 1
                        if answer.status_code == 503:  # what an edge does: this replica gets no more
                            return

            callers = [threading.Thread(target=call) for _ in range(8)]
            for caller in callers:
                caller.start()
            wait_until(lambda: answered > 50, "no load")
            service.send(signal.SIGTERM)
            code = service.wait()
            left.set()
            for caller in callers:
                caller.join()
        assert (failures, code) == ([], 0)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_ends_it_at_once(self, draining: Service, number: signal.Signals) -> None:
        """Whoever signals twice does not wait."""
        draining.send(signal.SIGTERM)
        wait_until(lambda: draining.events("draining"), "it does not drain")
        draining.send(number)
        assert draining.wait() == -number

    def test_ctrl_c_in_development_does_not_wait(self, draining: Service) -> None:
        """SIGINT in development leaves out the drain and keeps the rest: exit code 0."""
        draining.send(signal.SIGINT)
        assert draining.wait() == 0


class TestUnreadLog:
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_stops_no_request(self, workers: str, environ: dict[str, str], tmp_path: Path) -> None:
        """A supervisor that was killed reads no pipe any more: a kept connection is kept, and the exit is orderly."""
        reader, writer = os.pipe()
        with serve({**environ, "BACKEND_WORKERS": workers}, tmp_path, printing=writer) as service:
            os.close(writer)
            os.close(reader)
            with service.connect() as client:
                for _ in range(3):
                    client.sendall(POST.encode() + BODY)
                    with HTTPResponse(client) as answer:
                        answer.begin()
                        answer.read()
                        assert answer.status == 201
            service.send(signal.SIGTERM)
            assert service.wait() == 0

    def test_a_full_disk_stops_no_request(self, environ: dict[str, str], tmp_path: Path) -> None:
        """What cannot be written is dropped."""
        full = os.open("/dev/full", os.O_WRONLY)
        with serve(environ, tmp_path, printing=full) as service, service.client() as client:
            os.close(full)
            assert [client.get(NOTES).status_code for _ in range(3)] == [200] * 3


class TestListening:
    def test_a_taken_port_is_one_line_and_exit_1(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A port that another process has is named, with the variable to change."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            for name in ("BACKEND_PORT", "METRICS_PORT"):
                service = start({**environ, name: port}, tmp_path, on_socket=False)
                assert service.wait() == 1
                (line,) = service.printed().splitlines()
                assert port in line
                assert name in line

    def test_a_taken_socket_is_refused_and_a_dead_one_replaced(self, environ: dict[str, str], tmp_path: Path) -> None:
        """A live service keeps its socket; the file that a killed one left behind is in nobody's way."""
        with serve(environ, tmp_path) as service:
            (tmp_path / "second").mkdir()
            second = start({**environ, "BACKEND_HOST": service.path}, tmp_path / "second")
            assert second.wait() == 1
            assert service.path in second.printed()
            service.send(signal.SIGKILL)
            service.wait()
            with serve(environ, tmp_path) as third, third.client() as client:
                assert client.get("/health").status_code == 200

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_listens_on_a_socket_besides(self, workers: str, environ: dict[str, str], tmp_path: Path) -> None:
        """BACKEND_SOCKET: an edge asks there, a health check the port; it drains on both."""
        path = tmp_path / "besides"
        given = {**environ, "BACKEND_SOCKET": str(path), "BACKEND_WORKERS": workers}
        with serve(given, tmp_path, on_socket=False) as service, service.client() as client:
            with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://edge") as besides:
                assert [one.get("/health").status_code for one in (client, besides)] == [200, 200]
            (tmp_path / "second").mkdir()
            second = start({**environ, "BACKEND_SOCKET": str(path)}, tmp_path / "second", on_socket=False)
            assert second.wait() == 1
            assert "BACKEND_SOCKET" in second.printed()
            service.send(signal.SIGTERM)
            assert service.wait() == 0

    def test_metrics_are_on_their_port_alone(self, environ: dict[str, str], tmp_path: Path) -> None:
        """/metrics answers on METRICS_PORT, and nothing else does; the service's port has no /metrics."""
        with serve(environ, tmp_path, on_socket=False) as service, service.client() as client:
            client.get(f"{NOTES}/seven")
            assert client.get("/metrics").status_code == 404
            assert httpx2.get(f"http://127.0.0.1:{service.metrics_port}/health").status_code == 404
            samples = service.metrics()
            route = f'method="GET",release="dev",route="{NOTES}/{{note_id}}"'
            assert samples[f'http_requests_total{{{route},status="422",traffic="user"}}'] == 1
            assert samples[f'http_request_duration_seconds_count{{{route},traffic="user"}}'] == 1
            unmatched = 'method="GET",release="dev",route="__unmatched__",status="404",traffic="user"'
            assert samples[f"http_requests_total{{{unmatched}}}"] == 1
            assert samples['backend_build_info{release="dev"}'] == 1
            assert samples["database_connections_limit"] == 10


class TestStart:
    def test_logs_are_json_and_hold_no_secret(self, environ: dict[str, str], tmp_path: Path) -> None:
        """Every line of a whole life, uvicorn's too, is an event of the same shape; no secret is in any."""
        with serve(environ, tmp_path) as service:
            with service.client() as client:
                client.post(NOTES, json={}, headers={"Authorization": f"Bearer {environ['SERVICE_TOKEN']}"})
            service.send(signal.SIGTERM)
            service.wait()
            events = [event for name in ("request", "draining", "Shutting down") for event in service.events(name)]
            assert {frozenset({"timestamp", "level", "event", "release"} - event.keys()) for event in events} == {
                frozenset()
            }
            (access,) = [event for event in service.events("request") if event["method"] == "POST"]
            assert (access["status"], access["route"], access["level"]) == (422, NOTES, "info")
            for secret in (environ["SERVICE_TOKEN"], environ["POSTGRES_PASSWORD"]):
                assert secret not in service.printed()
