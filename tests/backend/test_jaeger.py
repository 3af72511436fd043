"""Traces in a real store: Jaeger finds a request by its id, and shows what it did."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.backend.process import serve, wait_until
from tests.containers import docker, have_image
from tests.notes import NOTES
from tests.notes.domain import LIST

pytestmark = [pytest.mark.e2e, pytest.mark.needs("docker")]

JAEGER = "jaegertracing/jaeger:2.13.0"
OTLP, API = 4318, 16686
PATIENCE = 30  # seconds


@pytest.fixture(name="jaeger")
def _jaeger() -> Iterator[dict[int, str]]:
    """The addresses of its two ports."""
    ports = [f"--publish=127.0.0.1::{port}" for port in (OTLP, API)]
    ident = docker("run", "--detach", *ports, have_image(JAEGER))
    try:
        yield {port: f"http://{docker('port', ident, str(port)).splitlines()[0]}" for port in (OTLP, API)}
    finally:
        docker("rm", "--force", "--volumes", ident)


def _traces(base: str, service: str, request: str) -> list[dict[str, Any]]:
    tags = json.dumps({"request_id": request})
    try:
        answer = httpx2.get(f"{base}/api/traces", params={"service": service, "tags": tags}, verify=False)
    except httpx2.TransportError:  # it starts
        return []
    found: list[dict[str, Any]] = answer.json()["data"] if answer.status_code == httpx2.codes.OK else []
    return found


def test_a_request_is_found_by_its_id(notes_environ: dict[str, str], jaeger: dict[int, str], tmp_path: Path) -> None:
    """With its statement, by the id of its answer; its trace is the one in the log."""
    environ = {**notes_environ, "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger[OTLP], "PROJECT_NAME": "traced", "RELEASE": "r7"}
    with serve(environ, tmp_path) as service, service.client(timeout=PATIENCE) as client:
        request, began = "", time.monotonic()
        while not _traces(jaeger[API], "traced", request) and time.monotonic() - began < PATIENCE:
            request = client.get(NOTES).headers["X-Request-ID"]  # again: the first ones came before it listened
            time.sleep(2)
        (trace,) = _traces(jaeger[API], "traced", request)
        wait_until(lambda: service.events("request"), "nothing is logged")
        (event,) = [each for each in service.events("request") if each["request_id"] == request]
    assert trace["traceID"] == event["trace_id"]
    names = [span["operationName"] for span in sorted(trace["spans"], key=lambda span: span["startTime"])]
    assert names == [f"GET {NOTES}", "wait for a connection", "SELECT"]
    tags = [tag for span in trace["spans"] for tag in span["tags"] if tag["key"] == "db.query.text"]
    assert [tag["value"] for tag in tags] == [LIST]
    (process,) = trace["processes"].values()
    assert {"key": "service.version", "type": "string", "value": "r7"} in process["tags"]
