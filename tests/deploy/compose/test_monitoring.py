"""What watches the service on Compose, as real programs: targets, figures, logs, alerts; nothing waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from pipeline.monitoring.dashboards import dashboard_files, expressions
from tests.containers import docker, have_image
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.machine import free_port, wait_until
from tests.project import PROJECT
from tests.tools import missing

pytestmark = pytest.mark.e2e

TABLE = "what watches the service on Compose"
FILE = PROJECT.root / "docker/compose.monitoring.yml"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT", "LOGS_PORT", "TRACES_PORT")
GRAFANA = "grafana"  # what it shows can be tried without it
# How many targets each job has.
JOBS = {"backend": 2, "edge": 1, "postgres": 1, "redis": 1, "deploys": 1, "collector": 1, "logs": 1, "traces": 1,
        "alertmanager": 1, "prometheus": 1}  # fmt: skip
SCRAPE_SECONDS = 15


def images() -> dict[str, str]:
    """Return the image of each service but Grafana."""
    services = yaml.safe_load(FILE.read_text("utf-8"))["services"]
    named = {name: one["image"] for name, one in services.items() if name not in (GRAFANA, "deploys")}
    return {**named, "deploys": "python:3.13-slim-trixie"}


@pytest.fixture(scope="module")
def watched(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCheckout]:
    """A clone with the profile on, backups, two deploys, a backup and a drill."""
    for image in images().values():
        try:
            have_image(image)
        except AssertionError as error:
            missing(f"{error}: the image is not to be had")
    one = ComposeCheckout.make(template, tmp_path_factory.mktemp("watched") / "clone")
    one.configure(backups='{ keep = "7d 4w", max_age = "24h" }')
    one.commit()
    one.set_env(COMPOSE_PROFILES="monitoring", **{name: str(free_port()) for name in PORTS})
    one.proved()
    for verb in ("backup", "drill"):
        done = one.run(verb, "--json")
        assert done.code == 0, str(done)
    yield one
    one.remove(set())
    docker("volume", "rm", f"{one.project}-backups")


def ask(one: ComposeCheckout, path: str, *, port: str = "PROMETHEUS_PORT", **parameters: str) -> Any:
    """Return what the page at PORT answers, as JSON."""
    answer = httpx2.get(f"http://127.0.0.1:{one.settings()[port]}{path}", params=parameters, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def targets(one: ComposeCheckout) -> list[tuple[str, str]]:
    """Return the job and the health of each target."""
    found = ask(one, "/api/v1/targets")["data"]["activeTargets"]
    return sorted((target["labels"]["job"], target["health"]) for target in found)


def firing(one: ComposeCheckout) -> set[str]:
    """Return the alerts that Alertmanager was told of, but the Watchdog."""
    return {alert["labels"]["alertname"] for alert in ask(one, "/api/v2/alerts", port="ALERTMANAGER_PORT")} - {
        "Watchdog"
    }


def query(one: ComposeCheckout, expression: str) -> list[Any]:
    """Return what Prometheus knows."""
    found: list[Any] = ask(one, "/api/v1/query", query=expression)["data"]["result"]
    return found


def timed(wanted: Callable[[], bool], what: str, seconds: float) -> int:
    """Wait until WANTED; return after how many seconds it was."""
    begun = time.monotonic()
    wait_until(wanted, what, seconds)
    return round(time.monotonic() - begun)


def test_each_target_is_up(watched: ComposeCheckout) -> None:
    """Both replicas by the name of the service, and no free slot."""
    wanted = sorted((job, "up") for job, count in JOBS.items() for _ in range(count))
    wait_until(lambda: targets(watched) == wanted, "not each target is up", 90)
    assert "Watchdog" in {
        alert["labels"]["alertname"] for alert in ask(watched, "/api/v2/alerts", port="ALERTMANAGER_PORT")
    }


def test_nothing_is_open_to_others(watched: ComposeCheckout) -> None:
    """Pages on 127.0.0.1 alone; no figures behind the edge's own port."""
    for name in watched.containers():
        ports = watched.inspect(name)["NetworkSettings"]["Ports"] or {}
        assert {each["HostIp"] for each_port in ports.values() for each in each_port or ()} <= {"127.0.0.1"}, name
    assert watched.request("GET", "/metrics").status_code == 404


def test_a_request_is_found_in_the_logs(watched: ComposeCheckout) -> None:
    """By its id, as one record with its fields; nothing of another project is there."""
    identity = f"seen-{time.time_ns()}"
    assert watched.request("GET", watched.asked, headers={"X-Request-ID": identity}).status_code == 200
    url = f"http://127.0.0.1:{watched.settings()['LOGS_PORT']}/select/logsql/query"

    def found(what: str) -> list[dict[str, Any]]:
        lines = httpx2.post(url, data={"query": what, "limit": "1000"}, timeout=10).text.splitlines()
        return [json.loads(line) for line in lines]

    wait_until(lambda: bool(found(f'request_id:"{identity}"')), "it is not in the logs", 60)
    [record] = found(f'request_id:"{identity}"')
    assert (record["service.name"], record["status"], record["_msg"]) == ("backend", "200", "request")
    assert {record["service.name"] for record in found("*")} <= {"backend", "frontend", "migrate", "backup"}


def test_each_panel_has_data(watched: ComposeCheckout, add_row: AddRow) -> None:
    """After traffic, two deploys, a backup and a drill; claims are Kubernetes'."""
    watched.change("another release")
    assert watched.deploy().code == 0
    asked = {
        f"{path.stem}: {panel['title']}": expression
        for path in dashboard_files(PROJECT.root)
        for panel in json.loads(path.read_text("utf-8"))["panels"]
        for expression in expressions(panel)
        if "kubelet_" not in expression
    }
    empty = list(asked.values())

    def left() -> bool:
        empty[:] = [expression for expression in empty if not query(watched, expression)]
        return not empty

    wait_until(left, f"these have no data: {empty}", 400)  # the budget is computed every 5 minutes
    add_row(TABLE, f"{len(asked)} queries of panels, each with data")


def test_a_store_that_is_stopped_is_called_out(watched: ComposeCheckout, add_row: AddRow) -> None:
    """And it is over when it is over."""
    wait_until(lambda: not firing(watched), "something fires already", 300)
    [redis] = watched.containers("redis")
    docker("stop", redis)
    fired = timed(lambda: "RedisAway" in firing(watched), "RedisAway does not fire", 180)
    docker("start", redis)
    over = timed(lambda: "RedisAway" not in firing(watched), "RedisAway is not over", 500)
    add_row(TABLE, f"RedisAway fires {fired} s after Redis was stopped, and ends {over} s after its start")


def test_a_replica_that_is_killed_again_and_again_is_called_out(watched: ComposeCheckout, add_row: AddRow) -> None:
    """The engine starts it each time; the edge has another one meanwhile."""
    name = watched.containers("backend")[0]
    begun = time.monotonic()
    for _ in range(4):
        docker("exec", name, "sh", "-c", "kill -9 -1")
        wait_until(lambda: watched.inspect(name)["State"].get("Health", {}).get("Status") == "healthy", "not back", 60)
        time.sleep(2 * SCRAPE_SECONDS)
    timed(lambda: "ReplicaRestarting" in firing(watched), "ReplicaRestarting does not fire", 120)
    add_row(TABLE, f"ReplicaRestarting fires {time.monotonic() - begun:.0f} s after the first of four kills")


def test_a_deploy_does_not_wait_for_prometheus(watched: ComposeCheckout) -> None:
    """It is proved, and brings back what was stopped."""
    [prometheus] = watched.containers("prometheus")
    docker("stop", prometheus)
    watched.change("another release")
    outcome = watched.deploy()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert watched.inspect(prometheus)["State"]["Running"]


def test_it_goes_when_nobody_asks_for_it(watched: ComposeCheckout) -> None:
    """With the profile off, the next deploy removes it; the service is left alone."""
    before = watched.containers("backend")
    watched.set_env(COMPOSE_PROFILES="")
    outcome = watched.deploy()
    assert outcome.code == 0, str(outcome)
    assert [name for service in images() for name in watched.containers(service)] == []
    assert watched.containers("backend") == before
