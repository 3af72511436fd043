"""`python -m tests.bench [--json FILE]`: what the service's features cost, as a ratio to a bare ASGI app.

Each round measures every server once, in random order: one worker pinned to one CPU, the load on the others. A ratio is
taken within its round, so a slow moment of the machine hits both of its sides; the median over the rounds is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx2
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.config.project import load_project
from pipeline.config.requests import RequestSpec
from pipeline.engines.embedded import throwaway_postgres, throwaway_valkey
from pipeline.proof.exchange import Exchange
from tests.backend.collector import collecting
from tests.backend.process import free_port
from tests.bench.load import Load, WrongAnswer, measure

__all__ = ["main"]

ROOT = Path(__file__).parent.parent.parent
TOKEN = "a-token-of-the-benchmark"
CONNECTIONS = 64
START_SECONDS = 30


@dataclass
class Row:
    """One line of the table. `bar`: the ratio to hold (performance.md §5)."""

    name: str
    port: int
    path: str
    server: psutil.Process
    bar: float | None = None
    loads: list[Load] = field(default_factory=list)


class CannotMeasure(Exception):
    """A failure of the benchmark itself; the message says what failed."""


def main() -> int:
    """Measure, print the table, write the JSON. Return 1 if that failed, otherwise 0; a missed bar is no error."""
    given = _arguments()
    console = Console(stderr=True)
    try:
        with contextlib.ExitStack() as stack:
            rows = _start(stack, given.traced)
            for number in range(given.rounds):
                console.print(f"round {number + 1} of {given.rounds}", style="dim")
                for row in random.sample(rows, len(rows)):
                    row.loads.append(
                        measure(row.server, row.port, row.path, connections=CONNECTIONS, seconds=given.seconds)
                    )
    except (CannotMeasure, WrongAnswer, OSError) as error:
        console.print(f"could not measure: {error}", style="red")
        return 1
    results = [_result(row, rows[0]) for row in rows]
    console.print(_table(results))
    if given.json:
        document = {"schema": "slipway.bench/1", "connections": CONNECTIONS, "rounds": given.rounds, "rows": results}
        given.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What the service's features cost.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--rounds", type=int, default=7, help="rounds (7)")
    parser.add_argument("--traced", type=float, metavar="SHARE", help="trace this share of the requests (none)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of each measurement (1.5)")
    return parser.parse_args()


def _start(stack: contextlib.ExitStack, traced: float | None) -> list[Row]:
    """Start all servers, wait until they answer, and return the rows to measure. The first row is the floor."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    _pin(os.getpid(), service=False)
    postgres = stack.enter_context(throwaway_postgres())
    valkey = stack.enter_context(throwaway_valkey())
    ports = {name: free_port() for name in ("bare", "framework", "service", "metrics")}
    environ = {
        "PATH": os.environ["PATH"],
        **postgres.environment,
        "REDIS_HOST": valkey.socket,
        "SERVICE_TOKEN": TOKEN,
        "BACKEND_PORT": str(ports["service"]),
        "METRICS_PORT": str(ports["metrics"]),
        "LOG_LEVEL": "DEBUG",  # so that /health writes its access event, too
        "DRAIN_SECONDS": "0",
        "API_RATE_LIMIT": "10000000",  # counted, and never reached
    }
    if traced is not None:
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(collecting()).address
        environ |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(traced)}
    _run("backend.migrations", "upgrade", environ=environ)
    servers = {}
    for name, arguments in (
        ("bare", ["tests.bench.apps", "bare", str(ports["bare"])]),
        ("framework", ["tests.bench.apps", "framework", str(ports["framework"])]),
        ("service", ["backend"]),
    ):
        log = stack.enter_context((folder / f"{name}.log").open("wb"))
        servers[name] = stack.enter_context(_server(arguments, environ, log))
        _await(servers[name], ports[name], folder / f"{name}.log")
    rows = [
        Row("bare ASGI", ports["bare"], "/health", servers["bare"]),
        Row("FastAPI, nothing else", ports["framework"], "/health", servers["framework"]),
        Row("service: id, access log, metrics", ports["service"], "/health", servers["service"], bar=0.24),
    ]
    project = load_project(ROOT)
    specs = {spec.name: spec for spec in project.requests}
    for name, bar in project.bench.items():
        path = _path(specs[name], f"http://127.0.0.1:{ports['service']}")
        rows.append(Row(f"service: {name}", ports["service"], path, servers["service"], bar=bar))
    return rows


@contextlib.contextmanager
def _server(arguments: list[str], environ: Mapping[str, str], log: IO[bytes]) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", *arguments]
    process = subprocess.Popen(command, env=dict(environ), cwd=ROOT, stdout=log, stderr=log)
    try:
        _pin(process.pid, service=True)
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _pin(process: int, *, service: bool) -> None:
    """Pin a server to the first CPU, everything else to the others, where the system supports that."""
    cpus = list(range(psutil.cpu_count() or 1))
    if hasattr(os, "sched_setaffinity") and len(cpus) > 1:
        os.sched_setaffinity(process, cpus[:1] if service else cpus[1:])


def _await(server: psutil.Process, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        if not server.is_running() or server.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
            raise CannotMeasure(f"a server did not start: {log.read_text()[-400:]}")
        time.sleep(0.05)


def _path(spec: RequestSpec, base: str) -> str:
    """Return the path to measure: that of `spec`, or where what it writes is read back."""
    exchange = Exchange.new(spec)
    call = exchange.call()
    if spec.readback is None:
        return call.path
    headers = {**dict(call.headers), "Authorization": f"Bearer {TOKEN}"}
    answer = httpx2.request(call.method, base + call.path, content=call.content, headers=headers)
    if answer.status_code != spec.status:
        what = f"`{spec.name}`, sent as people send it and not as the proof does"
        raise CannotMeasure(f"{what}: the service answered {answer.status_code}: {answer.text}")
    read = exchange.readback(answer.json() if answer.content else None)
    assert read
    return read.path


def _run(module: str, *arguments: str, environ: Mapping[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=dict(environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise CannotMeasure(f"{module} failed: {run.stderr.strip()}")


def _result(row: Row, floor: Row) -> dict[str, str | float | bool | None]:
    ratios = [bare.cpu_us / load.cpu_us for bare, load in zip(floor.loads, row.loads, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "name": row.name,
        "cpu_us_per_request": round(statistics.median(load.cpu_us for load in row.loads), 1),
        "requests_per_second": round(statistics.median(load.per_second for load in row.loads)),
        "ratio": round(ratio, 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "bar": row.bar,
        "ok": None if row.bar is None else ratio >= row.bar,
    }


def _table(results: list[dict[str, str | float | bool | None]]) -> Table:
    table = Table(title=f"server CPU a request, {CONNECTIONS} kept connections, one worker")
    table.add_column("endpoint")
    for heading in ("CPU µs", "req/s", "ratio", "min-max", "bar", ""):
        table.add_column(heading, justify="right")
    for result in results:
        verdict = {None: "", True: "[green]ok[/]", False: "[red]below[/]"}[result["ok"]]  # type: ignore[index]
        table.add_row(
            str(result["name"]),
            f"{result['cpu_us_per_request']}",
            f"{result['requests_per_second']:,}",
            f"{result['ratio']:.3f}",
            f"{result['ratio_min']:.2f}-{result['ratio_max']:.2f}",
            f"≥ {result['bar']}" if result["bar"] else "",
            verdict,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
