"""What watches the service on Compose, as real programs: targets, ports, the way of a request, odd lines of a log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.watching import PYTHON, ask, eventually, images, logged, query
from tests.deploy.conftest import AddRow
from tests.notes.domain import LIST

pytestmark = pytest.mark.e2e

TABLE = "what watches the service on Compose"
# How many targets each job has.
JOBS = {"backend": 2, "edge": 1, "postgres": 1, "redis": 1, "deploys": 1, "collector": 1, "logs": 1, "traces": 1,
        "alertmanager": 1, "prometheus": 1}  # fmt: skip
SERVICES = {"backend", "frontend", "migrate", "backup"}
MANY = 2000  # values of one label
# Text as somebody's container may print it: the end of the last line says that all was read.
PRINT = f"""
import json, time
print("no JSON at all")
print("{{ no JSON either")
print(json.dumps({{"event": "two\\nlines", "level": "info"}}))
print(json.dumps({{"event": "long", "level": "info", "text": "x" * 2**20}}))
for number in range({MANY}):
    print(json.dumps({{"event": "endless", "level": "info", "label": f"value-{{number}}"}}))
print("the end", flush=True)
time.sleep(3600)
"""


def targets(one: ComposeCheckout) -> list[tuple[str, str]]:
    """Return the job and the health of each target."""
    found = ask(one, "/api/v1/targets")["data"]["activeTargets"]
    return sorted((target["labels"]["job"], target["health"]) for target in found)


def test_each_target_is_up(watched: ComposeCheckout) -> None:
    """Both replicas by the name of the service, and no free slot."""
    wanted = sorted((job, "up") for job, count in JOBS.items() for _ in range(count))
    eventually(lambda: targets(watched) == wanted, "not each target is up", 90)
    assert "Watchdog" in {
        alert["labels"]["alertname"] for alert in ask(watched, "/api/v2/alerts", port="ALERTMANAGER_PORT")
    }


def test_nothing_is_open_to_others(watched: ComposeCheckout) -> None:
    """Pages on 127.0.0.1 alone; no figures behind the edge's own port."""
    for name in watched.containers():
        ports = watched.inspect(name)["NetworkSettings"]["Ports"] or {}
        assert {each["HostIp"] for each_port in ports.values() for each in each_port or ()} <= {"127.0.0.1"}, name
    assert watched.request("GET", "/metrics").status_code == 404


def test_the_way_of_a_request_by_its_id(watched: ComposeCheckout, add_row: AddRow) -> None:
    """It is in the engine's log, in the store of the logs, and in Jaeger with its statement, by one trace."""
    identity, trace = f"seen-{time.time_ns()}", f"{time.time_ns():032x}"
    sampled = {"X-Request-ID": identity, "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert watched.request("GET", watched.asked, headers=sampled).status_code == 200
    shown = watched.run("logs", "--request", identity, "--json")
    [line] = map(json.loads, shown.stdout.splitlines())
    assert (line["path"], line["status"], line["trace_id"]) == (watched.asked.partition("?")[0], 200, trace)
    known = f'request_id:"{identity}"'
    took = eventually(lambda: logged(watched, known), "it is not in the store of the logs", 60)
    [record] = logged(watched, known)
    assert (record["service.name"], record["status"], record["_msg"]) == ("backend", "200", "request")
    assert record["trace_id"] == trace
    assert {one["service.name"] for one in logged(watched, "*")} <= SERVICES
    took += eventually(lambda: traces(watched, identity), "its trace is not in Jaeger", 60)
    [found] = traces(watched, identity)
    assert found["traceID"] == trace
    assert LIST in {tag["value"] for span in found["spans"] for tag in span["tags"]}
    add_row(TABLE, f"a request by its id: a line of `logs`, a record and a trace with its statement after {took} s")


def traces(one: ComposeCheckout, identity: str) -> list[Any]:
    """Return what Jaeger has of the request `identity`, once its statement is there."""
    tags = json.dumps({"request_id": identity})
    found: list[Any] = ask(one, "/api/traces", port="TRACES_PORT", service=one.project, tags=tags)["data"]
    return [each for each in found if "SELECT" in {span["operationName"] for span in each["spans"]}]


@pytest.fixture(name="odd")
def _odd(watched: ComposeCheckout) -> Iterator[str]:
    """Run a container of the project that prints odd lines; yield the query of what it printed."""
    labels = {"com.docker.compose.project": watched.project, "com.docker.compose.service": "odd"}
    given = [word for label, value in labels.items() for word in ("--label", f"{label}={value}")]
    name = f"{watched.project}-odd"
    docker("run", "--detach", "--name", name, "--network", "none", "--log-driver", "json-file", "--log-opt",
           f"labels={','.join(labels)}", *given, PYTHON, "python", "-c", PRINT)  # fmt: skip
    try:
        yield '{"service.name"="odd"}'
    finally:
        docker("rm", "--force", name)


def test_odd_lines_are_kept_and_stop_nothing(watched: ComposeCheckout, odd: str, add_row: AddRow) -> None:
    """No JSON, a newline, a megabyte, a label with endless values: what comes after them arrives, too."""
    eventually(lambda: logged(watched, f'{odd} "the end"'), "the last line does not arrive", 90)
    for text in ("no JSON at all", "{ no JSON either"):
        assert logged(watched, f"{odd} {json.dumps(text)}"), text
    assert "two\nlines" in {one["_msg"] for one in logged(watched, f"{odd} two")}
    [counted] = logged(watched, f"{odd} endless | stats count_uniq(label) as values")
    assert int(counted["values"]) == MANY
    kept = [len(one.get("text", one["_msg"])) for one in logged(watched, f'{odd} !endless !"JSON"')]
    add_row(TABLE, f"of a line of 1 MB, {max(kept, default=0)} characters are in one record of the store")
    [collector] = query(watched, 'up{job="collector"}')
    assert collector["value"][1] == "1"


def test_it_goes_when_nobody_asks_for_it(watched: ComposeCheckout) -> None:
    """With the profile off, the next deploy removes it; the service is left alone."""
    before = watched.containers("backend")
    watched.set_env(COMPOSE_PROFILES="")
    outcome = watched.deploy()
    assert outcome.code == 0, str(outcome)
    assert [name for service in images() for name in watched.containers(service)] == []
    assert watched.containers("backend") == before
