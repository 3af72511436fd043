"""What takes the spans out of the process: the SDK of OpenTelemetry. Imported only where a collector is set."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from backend.settings import Settings

__all__ = ["Batches", "begin_export"]

QUEUED_SPANS = 4096  # about 6 MB; one more is dropped
BATCH_SPANS = 128  # to encode one takes 2 ms, for which other threads wait
EVERY_SECONDS = 1.0
EXPORT_SECONDS = 5.0  # for a collector to take a batch
CLOSE_SECONDS = 0.5  # for it to take the last ones; the end of Python itself takes as long again on a busy machine


def begin_export(settings: Settings) -> tuple[TracerProvider, Callable[[], None]]:
    """Return who makes spans and sends them to the collector of `settings`, and what sends the last ones."""
    # What the SDK has to say of a collector is said here, once; what of a header, a client could fill the log with.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    endpoint = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
    batches = Batches(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS))
    resource = Resource({"service.name": settings.project_name, "service.version": settings.release,
                         "deployment.environment.name": settings.environment})  # fmt: skip
    provider = TracerProvider(sampler=_sampler(settings), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(batches)
    return provider, batches.shutdown


def _sampler(settings: Settings) -> Sampler:
    """Return who decides what is traced."""
    name = settings.otel_traces_sampler.removeprefix("parentbased_")
    ratio = TraceIdRatioBased(settings.otel_traces_sampler_arg)
    root = {"always_on": ALWAYS_ON, "always_off": ALWAYS_OFF}.get(name, ratio)
    return root if name == settings.otel_traces_sampler else ParentBased(root)


class Batches(SpanProcessor):
    """The spans that have ended, until a thread has given them to `exporter`. No request waits for that.

    The SDK's own BatchSpanProcessor waits up to 30 s for its last batch, logs each span that it drops, at the cost of
    the request, and encodes 512 spans at once, for which every request of the process waits.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._log = structlog.get_logger("tracing")
        self._queue = deque[ReadableSpan]()
        self._wake = threading.Event()
        self._closing = self._away = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended, or drop it where too many wait."""
        if len(self._queue) >= QUEUED_SPANS:
            self._dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) == BATCH_SPANS:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what is left, for at most `CLOSE_SECONDS`. The thread ends with the process, if not before."""
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            closing = self._closing  # before the queue is looked at, which grows no more then
            taken = True
            while taken and self._queue:
                taken = self._send([self._queue.popleft() for _ in range(min(BATCH_SPANS, len(self._queue)))])

    def _send(self, batch: list[ReadableSpan]) -> bool:
        """Return whether the collector took `batch`. What it did not take is gone."""
        taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        if not taken:
            self._dropped += len(batch)
            if not self._away:
                self._log.warning("the collector takes no traces; they are dropped until it does")
        elif self._away:
            self._log.info("the collector takes traces again", dropped=self._dropped)
            self._dropped = 0
        self._away = not taken
        return taken
