"""Traces: what is in them, who is traced, what they never hold; and a collector that is away costs nobody anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs

from backend.app import create_app
from backend.settings import Settings
from backend.tracing import Tracing, _shown, begin_tracing
from backend.tracing_export import BATCH_SPANS, EXPORT_SECONDS, QUEUED_SPANS, Batches
from tests.backend.collector import CollectedSpan, Collector, collecting, silent
from tests.backend.process import serve, wait_until
from tests.conftest import KEY, ROOT, TOKEN, asgi_client
from tests.notes import NOTES, SUMMARY
from tests.notes.domain import LIST

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
WRITER = {"Authorization": f"Bearer {TOKEN}"}
CANARY = "canary-of-a-value"
PATIENCE = 30  # seconds
NOT_TAKEN = "the collector takes no traces; they are dropped until it does"
SDK = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf", "requests")


@dataclass
class Traced:
    """The service in this process, with a collector."""

    settings: Settings
    collector: Collector
    begun: list[Tracing] = field(default_factory=list)

    def make(self, **changed: object) -> FastAPI:
        """The service with these settings."""
        given = self.settings.model_copy(update={"otel_exporter_otlp_endpoint": self.collector.address, **changed})
        tracing = begin_tracing(given)
        assert tracing is not None
        self.begun.append(tracing)
        return create_app(given, tracing=tracing)

    def flush(self) -> None:
        """Send what there is, as at the end of the process."""
        while self.begun:
            self.begun.pop().close()


def parent(*, sampled: bool) -> dict[str, str]:
    """The header of a caller that has a trace."""
    return {"traceparent": f"00-{TRACE}-{CALLER}-{'01' if sampled else '00'}", "tracestate": "theirs=1"}


@pytest.fixture(name="collector")
def _collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(name="traced")
def _traced(settings: Settings, collector: Collector, notes: None) -> Iterator[Traced]:
    traced = Traced(settings, collector)
    yield traced
    traced.flush()


async def ask(app: FastAPI, path: str, method: str = "GET", **options: object) -> httpx2.Response:
    """Send one request to `app`, started for it."""
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        return await client.request(method, path, **options)  # type: ignore[arg-type]


def spans_of(collector: Collector, method: str, route: str) -> tuple[CollectedSpan, list[CollectedSpan]]:
    """The span of the one request to `route`, and those in it."""
    name = f"{method} {route}"
    wait_until(lambda: [span for span in collector.spans() if span.name == name], f"no span {name}")
    (request,) = [span for span in collector.spans() if span.name == name]
    return request, [span for span in collector.spans() if span.parent == request.ident]


class TestContent:
    def test_a_request_with_what_it_did(
        self, notes_environ: dict[str, str], collector: Collector, tmp_path: Path
    ) -> None:
        """In its caller's trace: the request, its wait for a connection, its statement; the log has the same trace."""
        environ = {**notes_environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"{collector.address}/", "RELEASE": "r7"}
        with serve(environ, tmp_path) as service, service.client(timeout=PATIENCE) as client:
            answer = client.get(f"{NOTES}?limit=5", headers=parent(sampled=True))
            request, children = spans_of(collector, "GET", NOTES)
            (event,) = [each for each in service.events("request") if each["path"] == NOTES]
        assert (request.trace, request.parent, request.error) == (TRACE, CALLER, None)
        assert request.attributes == {
            "http.request.method": "GET",
            "http.route": NOTES,
            "http.response.status_code": 200,
            "request_id": answer.headers["X-Request-ID"],
        }
        assert request.resource["service.version"] == "r7"
        assert [span.name for span in children] == ["wait for a connection", "SELECT"]
        wait, statement = children
        assert statement.attributes == {"db.system.name": "postgresql", "db.query.text": LIST}
        assert request.began <= wait.began <= wait.ended <= statement.began < statement.ended <= request.ended
        assert event["trace_id"] == TRACE
        assert {path for path, _, _ in collector.requests} == {"/v1/traces"}

    async def test_a_write_and_the_cache(self, traced: Traced, collector: Collector) -> None:
        """A transaction is its statements; Redis is asked by command."""
        app = traced.make()
        await ask(app, NOTES, "POST", json={"text": "x"}, headers=WRITER)
        _, children = spans_of(collector, "POST", NOTES)
        names = [span.name for span in children]
        assert names == ["wait for a connection", "BEGIN", "INSERT", "COMMIT", "SET"]
        assert children[-1].attributes == {"db.system.name": "redis"}
        await ask(traced.make(), SUMMARY)
        _, children = spans_of(collector, "GET", SUMMARY)
        assert [span.name for span in children][:2] == ["MGET", "wait for a connection"]

    async def test_several_commands_at_once(self, traced: Traced, collector: Collector) -> None:
        """A pipeline of Redis is one span: signing in asks how often somebody has tried."""
        await ask(traced.make(), "/api/v1/auth/login", "POST", json={"username": "nobody", "password": "x" * 20})
        _, children = spans_of(collector, "POST", "/api/v1/auth/login")
        assert children[0].name == "PIPELINE"

    async def test_a_failure(self, traced: Traced, collector: Collector, settings: Settings) -> None:
        """What failed is marked, with the type of the error; a request with 5xx is, too."""
        app = traced.make()

        @app.get("/broken")
        async def broken() -> None:
            async with app.state.health.database.lease() as connection:
                await connection.execute("INSERT INTO testing_notes (id) VALUES ($1)", CANARY)

        assert (await ask(app, "/broken")).status_code == 500
        request, children = spans_of(collector, "GET", "/broken")
        assert (request.error, request.attributes["http.response.status_code"]) == ("", 500)
        assert (children[-1].name, children[-1].error) == ("INSERT", "DataError")

    async def test_probes_and_the_background_have_none(self, traced: Traced, collector: Collector) -> None:
        """Every five seconds somebody asks whether it is ready; its statements are no spans."""
        app = traced.make()
        for path in ("/health", "/ready", NOTES):
            assert (await ask(app, path)).status_code == 200
        spans_of(collector, "GET", NOTES)
        assert {span.trace for span in collector.spans()} == {collector.requests_traced()[0].trace}

    async def test_a_call_of_ones_own(self, traced: Traced, collector: Collector) -> None:
        """The trace goes on where the service calls somebody, by OpenTelemetry's own API."""
        app = traced.make()

        @app.get("/calls")
        async def calls() -> dict[str, str]:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            return headers

        sent = (await ask(app, "/calls", headers=parent(sampled=True))).json()
        request, _ = spans_of(collector, "GET", "/calls")
        assert sent == {"traceparent": f"00-{TRACE}-{request.ident}-01", "tracestate": "theirs=1"}

    def test_a_span_of_ones_own(self, collector: Collector) -> None:
        """OpenTelemetry's own API makes it, and it leaves with the others."""
        code = (
            "from backend.settings import load_settings; from backend.tracing import begin_tracing\n"
            "from opentelemetry import trace\n"
            "tracing = begin_tracing(load_settings())\n"
            "with trace.get_tracer('mine').start_as_current_span('resize'): pass\n"
            "tracing.close()"
        )
        environ = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address}
        subprocess.run([sys.executable, "-c", code], env=environ, check=True, cwd=ROOT)
        assert [span.name for span in collector.spans()] == ["resize"]

    async def test_an_unknown_path_has_no_path(self, traced: Traced, collector: Collector) -> None:
        """Whoever asks for what is not there makes no name of a span."""
        await ask(traced.make(), f"/{CANARY}")
        request, _ = spans_of(collector, "GET", "__unmatched__")
        assert CANARY not in str(request)


class TestSecrets:
    async def test_no_value_leaves(self, traced: Traced, collector: Collector, settings: Settings) -> None:
        """Not one of a query string, a header, a body, a parameter, a key, an error; no secret of the settings."""
        app = traced.make()

        @app.get("/literal")
        async def literal() -> None:
            async with app.state.health.database.lease() as connection:
                await connection.execute(f"SELECT '{CANARY}', 4711 /* {CANARY} */")
                await connection.execute(f"DO $$ BEGIN RAISE EXCEPTION '{CANARY}'; END $$")

        note = {"text": CANARY, "tag": CANARY}
        await ask(app, f"{NOTES}?limit=5&token={CANARY}", headers={"X-Api-Key": CANARY, "Cookie": f"a={CANARY}"})
        await ask(app, NOTES, "POST", json=note, headers={**WRITER, "Idempotency-Key": f"{CANARY}-1"})
        await ask(app, "/api/v1/auth/login", "POST", json={"username": CANARY, "password": CANARY})
        await ask(app, "/literal")
        spans_of(collector, "GET", "/literal")
        sent = b"".join(body + repr(headers).encode() for _, headers, body in collector.requests)
        assert b"RAISE EXCEPTION" not in sent
        password = settings.postgres_password
        assert password is not None
        for value in (CANARY, "4711", TOKEN, KEY, password.get_secret_value()):
            assert value.encode() not in sent, value

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("SELECT a FROM t1 WHERE b = $1 AND c = $12", "SELECT a FROM t1 WHERE b = $1 AND c = $12"),
            ("select 'it''s', E'it\\'s', 'a' || 'b'", "select ?, ?, ? || ?"),
            ('select "a \'b\' 5" from "T"', 'select "a \'b\' 5" from "T"'),
            ("SELECT 1, -2.5e3, .5, 0xff, 1_000, x5, t.c6", "SELECT ?, -?, .?, ?, ?, x5, t.c6"),
            ("SELECT $$a$$, $tag$b $$ c$tag$, $1", "SELECT ?, ?, $1"),
            ("SELECT 'cut off", "SELECT ?"),
            ("SELECT $x$cut off", "SELECT ?"),
            ("SELECT a -- 'it\n, b /* c */ FROM t", "SELECT a , b FROM t"),
            ("\n  WITH x AS (SELECT 1)\n  SELECT", "WITH x AS (SELECT ?) SELECT"),
            ("ALTER ROLE a PASSWORD 'b'", "ALTER ROLE a PASSWORD ?"),
            ("", ""),
        ],
    )
    def test_a_statement_without_literals(self, query: str, shown: str) -> None:
        """Names and parameters stay; what may be a value does not."""
        assert _shown(query)[1] == shown


class TestSampling:
    @pytest.mark.parametrize(
        ("sampler", "share", "alone", "if_sampled", "if_not"),
        [
            ("parentbased_always_on", 1.0, True, True, False),
            ("parentbased_always_off", 1.0, False, True, False),
            ("parentbased_traceidratio", 0.0, False, True, False),
            ("parentbased_traceidratio", 1.0, True, True, False),
            ("traceidratio", 1.0, True, True, True),
            ("traceidratio", 0.0, False, False, False),
            ("always_on", 0.0, True, True, True),
            ("always_off", 1.0, False, False, False),
        ],
    )
    async def test_is_as_the_variables_say(
        self, traced: Traced, collector: Collector, *, sampler: str, share: float, alone: bool, if_sampled: bool,
        if_not: bool,
    ) -> None:  # fmt: skip
        """By its own decision without a caller's trace; with one by the caller's, where it is parent-based."""
        for headers, wanted in (({}, alone), (parent(sampled=True), if_sampled), (parent(sampled=False), if_not)):
            collector.requests.clear()
            app = traced.make(otel_traces_sampler=sampler, otel_traces_sampler_arg=share)
            await ask(app, NOTES, headers=headers)
            traced.flush()
            assert bool(collector.spans()) == wanted, headers


class TestWithoutCollector:
    @pytest.mark.parametrize("there", [True, False])
    def test_imports_nothing(
        self, notes_environ: dict[str, str], collector: Collector, tmp_path: Path, *, there: bool
    ) -> None:
        """What a process has imported when it ends: nothing of the SDK, nor of what that needs."""
        (tmp_path / "sitecustomize.py").write_text(
            "import atexit, pathlib, sys\n"
            f"atexit.register(lambda: pathlib.Path('{tmp_path}/modules').write_text(' '.join(sys.modules)))\n"
        )
        environ = {**notes_environ, "PYTHONPATH": f"{notes_environ['PYTHONPATH']}:{tmp_path}"}
        if there:
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.address
        with serve(environ, tmp_path) as service, service.client(timeout=PATIENCE) as client:
            assert client.get(NOTES, headers=parent(sampled=True)).status_code == 200
            service.send(signal.SIGTERM)
            assert service.wait() == 0
        imported = (tmp_path / "modules").read_text().split()
        assert "backend.tracing" in imported
        for name in SDK:
            assert any(f"{module}.".startswith(f"{name}.") for module in imported) == there, name


class TestFlush:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_last_spans_leave_with_the_process(
        self, notes_environ: dict[str, str], collector: Collector, tmp_path: Path, workers: int
    ) -> None:
        """What is answered last, when the drain is over, is sent, by each of the workers."""
        environ = {**notes_environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "BACKEND_WORKERS": str(workers)}
        body = b'{"text":"x"}'
        head = f"POST {NOTES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}"
        with serve(environ, tmp_path) as service, ExitStack() as stack:
            wait_until(lambda: len(service.events("started")) == workers, "not all workers have started")
            clients = [stack.enter_context(service.connect()) for _ in range(6)]
            for client in clients:
                client.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body[:5])
            wait_until(lambda: service.metrics()["http_requests_in_flight"] == 6, "not all requests have arrived")
            service.send(signal.SIGTERM)
            wait_until(lambda: not service.accepts(), "it still listens")
            for client in clients:
                client.sendall(body[5:])
            assert all(client.recv(4096).startswith(b"HTTP/1.1 201 ") for client in clients)
            assert service.wait() == 0
        posts = [span for span in collector.requests_traced() if span.name == f"POST {NOTES}"]
        assert len({span.trace for span in posts}) == 6


class TestCollectorAway:
    @pytest.mark.parametrize("kind", ["refuses", "never answers"])
    def test_costs_no_request_anything(self, notes_environ: dict[str, str], tmp_path: Path, kind: str) -> None:
        """Each is answered, the exit is orderly and at most a second later, and the log says it once."""
        took: dict[str, float] = {}
        with silent() as mute:
            for name, address in (("none", ""), (kind, mute if kind == "never answers" else "http://127.0.0.1:1")):
                folder = tmp_path / name
                folder.mkdir()
                with serve({**notes_environ, "OTEL_EXPORTER_OTLP_ENDPOINT": address}, folder) as service:
                    with service.client(timeout=PATIENCE) as client:
                        assert {client.get(NOTES).status_code for _ in range(200)} == {200}
                    if name == "refuses":
                        wait_until(lambda: service.events(NOT_TAKEN), "nobody says it")
                    began = time.monotonic()
                    service.send(signal.SIGTERM)
                    assert service.wait() == 0
                    took[name] = time.monotonic() - began
                    assert len(service.events(NOT_TAKEN)) <= 1
                    assert not [line for line in service.printed().splitlines() if '"error"' in line]
        # The next test measures it; here a busy machine adds its own, and one batch alone would take five.
        assert took[kind] - took["none"] < EXPORT_SECONDS - 1

    def test_is_said_when_it_is_there_again(self) -> None:
        """With how many spans were dropped meanwhile, those that found no place among them."""
        exporter = Exporter(SpanExportResult.FAILURE)
        with capture_logs() as logged:
            batches = Batches(exporter)
            end_spans(batches, 1)
            wait_until(lambda: logged, "nobody says it")
            exporter.result = SpanExportResult.SUCCESS
            end_spans(batches, 1)
            wait_until(lambda: len(logged) == 2, "nobody says it")
            batches.shutdown()
        assert [each["event"] for each in logged] == [NOT_TAKEN, "the collector takes traces again"]
        assert logged[1]["dropped"] == 1

    def test_fills_no_memory_and_ends_in_time(self) -> None:
        """While one batch hangs, so many spans wait and the others are dropped; the end waits half a second."""
        exporter = Exporter(SpanExportResult.SUCCESS)
        exporter.go.clear()
        batches = Batches(exporter)
        end_spans(batches, BATCH_SPANS)
        assert exporter.asked.wait(10)
        end_spans(batches, 2 * QUEUED_SPANS)
        assert len(batches._queue) == QUEUED_SPANS
        began = time.monotonic()
        batches.shutdown()
        assert time.monotonic() - began < 1
        exporter.go.set()
        batches._thread.join()
        assert (exporter.taken, batches._dropped) == (BATCH_SPANS + QUEUED_SPANS, QUEUED_SPANS)


class Exporter(SpanExporter):
    """One that answers `result`, once it may `go`."""

    def __init__(self, result: SpanExportResult) -> None:
        self.result, self.taken = result, 0
        self.asked, self.go = threading.Event(), threading.Event()
        self.go.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take `spans`."""
        self.asked.set()
        self.go.wait(10)
        self.go.set()
        self.taken += len(spans)
        return self.result


def end_spans(batches: Batches, count: int) -> None:
    """Make spans that end at once."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(batches)
    for _ in range(count):
        provider.get_tracer("tests").start_span("one", context=trace.set_span_in_context(trace.INVALID_SPAN)).end()
