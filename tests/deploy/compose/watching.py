"""A clone on Compose with what watches it, and what that says: Prometheus, Alertmanager, VictoriaLogs, Jaeger."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.containers import docker, have_image
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import free_port
from tests.project import PROJECT
from tests.tools import missing

__all__ = [
    "PYTHON",
    "alerts",
    "ask",
    "eventually",
    "firing",
    "have_or_skip",
    "images",
    "logged",
    "query",
    "series",
    "watched_clone",
]

FILE = PROJECT.root / "docker/compose.monitoring.yml"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT", "LOGS_PORT", "TRACES_PORT")
GRAFANA = "grafana"  # what it shows can be tried without it
PYTHON = "python:3.13-slim-trixie"
ALWAYS = "Watchdog"


def images() -> dict[str, str]:
    """Return the image of each service but Grafana."""
    services = yaml.safe_load(FILE.read_text("utf-8"))["services"]
    named = {name: one["image"] for name, one in services.items() if name not in (GRAFANA, "deploys")}
    return {**named, "deploys": PYTHON}


def have_or_skip(*names: str) -> None:
    """Have the images `names`; end the test where one of them is not to be had."""
    for image in names:
        try:
            have_image(image)
        except AssertionError as error:
            missing(f"{error}: the image is not to be had")


@contextmanager
def watched_clone(
    template: Path, folder: Path, prepare: Callable[[ComposeCheckout], object] = lambda _: None, **settings: str
) -> Iterator[ComposeCheckout]:
    """Yield a clone whose first release serves and is watched. `prepare` sees it before; `.env` gets `settings`.

    One request in ten is traced, and whichever its caller wants to be.
    """
    have_or_skip(*images().values())
    one = ComposeCheckout.make(template, folder / "clone")
    one.configure(backups='{ keep = "7d 4w", max_age = "24h" }')
    prepare(one)
    one.commit()
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_SAMPLER_ARG": "0.1",
              "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}  # fmt: skip
    ports = {name: str(free_port()) for name in PORTS}
    one.set_env(**{"COMPOSE_PROFILES": "monitoring", **ports, **traces, **settings})
    try:
        one.proved()
        yield one
    finally:
        one.remove(set())
        docker("volume", "rm", f"{one.project}-backups")


def ask(one: ComposeCheckout, path: str, *, port: str = "PROMETHEUS_PORT", **parameters: str) -> Any:
    """Return what the page at `port` answers, as JSON."""
    answer = httpx2.get(f"http://127.0.0.1:{one.settings()[port]}{path}", params=parameters, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def query(one: ComposeCheckout, expression: str) -> list[Any]:
    """Return what Prometheus knows."""
    found: list[Any] = ask(one, "/api/v1/query", query=expression)["data"]["result"]
    return found


def series(one: ComposeCheckout, expression: str, began: float, ended: float) -> list[Any]:
    """Return what Prometheus kept of `expression`, each second between two times."""
    found: list[Any] = ask(one, "/api/v1/query_range", query=expression, start=str(int(began)), end=str(int(ended)),
                           step="1")["data"]["result"]  # fmt: skip
    return found


def alerts(one: ComposeCheckout, began: float) -> dict[str, list[float]]:
    """Return the times since `began` at which each alert fired, by Prometheus' own record; without the Watchdog."""
    found: dict[str, list[float]] = {}
    for each in series(one, f'ALERTS{{alertstate="firing", alertname!="{ALWAYS}"}}', began, time.time()):
        found.setdefault(each["metric"]["alertname"], []).extend(float(at) for at, _ in each["values"])
    return {name: sorted(times) for name, times in found.items()}


def firing(one: ComposeCheckout) -> set[str]:
    """Return the alerts that Alertmanager was told of, but the Watchdog."""
    return {alert["labels"]["alertname"] for alert in ask(one, "/api/v2/alerts", port="ALERTMANAGER_PORT")} - {ALWAYS}


def logged(one: ComposeCheckout, what: str) -> list[dict[str, Any]]:
    """Return the records that VictoriaLogs has for a query in LogsQL."""
    url = f"http://127.0.0.1:{one.settings()['LOGS_PORT']}/select/logsql/query"
    answer = httpx2.post(url, data={"query": what, "limit": "1000"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def eventually(true: Callable[[], object], otherwise: str, seconds: float) -> int:
    """Wait until `true()`, asked each second; return after how many seconds it was."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"{otherwise} within {seconds:.0f} s"
        time.sleep(1)
    return round(time.monotonic() - began)
