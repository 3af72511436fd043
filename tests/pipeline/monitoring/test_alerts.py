"""Each alert fires for what it is for and for nothing else: `monitoring/tests`, run by promtool."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.monitoring.made import made_files, rule_files
from tests.pipeline.monitoring.promtool import ALERTS, NOTHING, TESTS, moved, passes, said
from tests.project import PROJECT

# The alerts that are about one, and so end with it.
ABOUT = {"ReleaseFailing": "release", "CertificateEnds": "instance"}
CHANGING = {"instance", "pod", "release", "container_id", "uid"}


def expectations(alert: str) -> list[list[dict[str, Any]]]:
    """What is expected to fire, by each check of the file of ALERT."""
    document = yaml.safe_load((TESTS / f"{alert}.yaml").read_text(encoding="utf-8"))
    checks = [check for test in document["tests"] for check in test["alert_rule_test"]]
    assert {check["alertname"] for check in checks} == {alert}
    return [check["exp_alerts"] for check in checks]


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("alert", ALERTS)
class TestAlert:
    def test_passes_its_tests(self, alert: str) -> None:
        """With its labels and words, to the letter."""
        assert said(TESTS / f"{alert}.yaml") == ""

    def test_has_tests_that_notice_when_a_threshold_moves(self, alert: str, tmp_path: Path) -> None:
        """By 10 % in either direction; what an alert says is not tested where a series far away from it fires it."""
        kept = [what for what, rules in moved(alert) if what != NOTHING and passes(alert, rules, tmp_path)]
        assert kept == []

    def test_has_tests_that_need_only_what_it_reads(self, alert: str, tmp_path: Path) -> None:
        """Otherwise they would notice that a rule is missing, and not that a threshold moves."""
        assert all(passes(alert, rules, tmp_path) for what, rules in moved(alert) if what == NOTHING)


@pytest.mark.parametrize("alert", ALERTS)
class TestExpectations:
    def test_are_that_it_fires_and_that_it_does_not(self, alert: str) -> None:
        """But for the one that always does."""
        found = {bool(fired) for fired in expectations(alert)}
        assert found == ({True} if alert == "Watchdog" else {True, False})

    def test_are_the_same_alert_through_a_rollout(self, alert: str) -> None:
        """A label that a rollout changes would resolve it, and call somebody anew."""
        labels = {label for fired in expectations(alert) for one in fired for label in one["exp_labels"]}
        assert labels & CHANGING == {ABOUT[alert]} if alert in ABOUT else not labels & CHANGING


def test_every_test_is_of_an_alert() -> None:
    """One whose alert was renamed would go on passing for a while, and then be read by nobody."""
    assert {path.stem for path in TESTS.iterdir()} == ALERTS.keys()


def test_what_may_roll_a_release_back() -> None:
    """Only what was seen to fail: none of the causes is a reason to undo."""
    assert {name for name, (_, rule) in ALERTS.items() if rule["labels"].get("rollback") == "true"} == {
        "ErrorBudgetBurning",
        "ReleaseFailing",
    }
    pages = {name for name, (_, rule) in ALERTS.items() if rule["labels"]["severity"] == "page"}
    assert pages == {"ErrorBudgetBurning", "ReleaseFailing", "NothingServes"}


# --- what the objectives count ---


def count(name: str, start: str, **labels: str) -> dict[str, str]:
    """A series of the service of 20 minutes: so many more each 15 seconds."""
    inner = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f'{name}{{job="backend", instance="a:9090", method="GET", {inner}}}', "values": f"0+{start}x80"}


def requests(step: str, status: str, traffic: str = "user", route: str = "/api") -> dict[str, str]:
    """Requests that the service answered."""
    return count("http_requests_total", step, status=status, traffic=traffic, route=route)


def edge(step: str, code: str) -> dict[str, str]:
    """Requests that the edge answered."""
    series = (
        f'caddy_http_request_duration_seconds_count{{job="edge", handler="subroute", server="srv0", code="{code}"}}'
    )
    return {"series": series, "values": f"0+{step}x80"}


def durations(fast: str, all_: str, traffic: str = "user") -> list[dict[str, str]]:
    """Requests by how long they took: within the objective, and all."""
    name, le = "http_request_duration_seconds", repr(PROJECT.slo.latency_ms / 1000)
    known: dict[str, str] = {"route": "/api", "traffic": traffic}
    return [count(f"{name}_bucket", fast, le=le, **known), count(f"{name}_count", all_, **known)]


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    ("series", "objective", "asked", "failed"),
    [
        # The service, where no edge is scraped: users' requests, whoever asks whether it is ready.
        ([requests("12", "200"), requests("3", "500")], "availability", 1, 0.2),
        ([requests("12", "200"), requests("3", "404"), requests("15", "500", "synthetic")], "availability", 1, 0),
        ([requests("15", "200"), requests("15", "503", route="/ready")], "availability", 1, 0),
        # The edge, where it is: also what no replica answered, but not what the proof caused.
        ([edge("12", "200"), edge("3", "502"), requests("12", "200")], "availability", 1, 0.2),
        ([edge("15", "200"), edge("15", "500"), requests("15", "500", "synthetic")], "availability", 1, 0),
        ([edge("15", "200"), requests("15", "500", route="/ready")], "availability", 1, 0),
        # How long it took.
        (durations("12", "15"), "latency", 1, 0.2),
        ([*durations("15", "15"), *durations("0", "15", "synthetic")], "latency", 1, 0),
    ],
)  # fmt: skip
def test_the_budget_is_used_by_users_alone(
    series: list[dict[str, str]], objective: str, asked: float, failed: float, tmp_path: Path
) -> None:
    """Requests and failures a second."""
    shutil.copyfile(PROJECT.root / "monitoring/rules/slo.yaml", tmp_path / "slo.yaml")
    where = f'{{slo="{objective}"}}'
    budget = PROJECT.slo.budgets[objective]
    expected = {"slo:requests:rate5m": asked, "slo:errors:rate5m": failed}
    checks = [
        {
            "expr": f"round({name}{where}, 0.0001)",
            "eval_time": "15m",
            "exp_samples": [{"labels": where, "value": value}],
        }
        for name, value in {**expected, "slo:burn:rate5m": failed / asked / budget}.items()
    ]
    test = {"interval": "15s", "input_series": series, "promql_expr_test": checks}
    document = {"rule_files": ["slo.yaml"], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert said(tmp_path / "test.yaml") == ""


def replica(name: str, release: str, life: str, ready: str, seen: str) -> list[dict[str, str]]:
    """A replica that answers users and the proof: what it exports in its LIFE, when it is READY, what SEEN of it."""
    labels = f'job="backend", instance="{name}:9090"'
    asked = f'{labels}, method="GET", route="/api", release="{release}"'
    return [
        {"series": f"up{{{labels}}}", "values": seen},
        {"series": f"backend_ready{{{labels}}}", "values": ready},
        {"series": f'backend_build_info{{{labels}, release="{release}"}}', "values": life.format("1+0")},
        {"series": f'http_requests_total{{{asked}, traffic="user", status="200"}}', "values": life.format("0+37")},
        {"series": f'http_requests_total{{{asked}, traffic="user", status="500"}}', "values": life.format("1+0")},
        {
            "series": f'http_requests_total{{{asked}, traffic="synthetic", status="200"}}',
            "values": life.format("0+750"),
        },
        {"series": f"database_pool_timeouts_total{{{labels}}}", "values": life.format("0+0")},
        {"series": f"redis_errors_total{{{labels}}}", "values": life.format("0+0")},
        {"series": f"redis_bypassed_total{{{labels}}}", "values": life.format("0+0")},
        {"series": f"process_start_time_seconds{{{labels}}}", "values": life.format("100+0")},
    ]


QUIET: dict[str, list[dict[str, str]]] = {
    "nothing was ever there": [],
    # 15 s each: 15 minutes of two replicas, then of two others. Who comes or goes is scraped in vain for a moment.
    "a deploy and a backup": [
        *replica("a", "old", "{}x60 stale", "1+0x59 0 stale", "1+0x60 0 stale"),
        *replica("b", "old", "{}x62 stale", "1+0x61 0 stale", "1+0x62 stale"),
        *replica("c", "new", "_x58 {}x62", "_x58 0 1+0x61", "_x58 0 1+0x61"),
        *replica("d", "new", "_x60 {}x60", "_x60 0 1+0x59", "_x60 1+0x60"),
        edge("224", "200"),
        {"series": 'up{job="edge", instance="frontend:9091"}', "values": "1+0x120"},
        *({"series": name, "values": "1+0x120"} for name in ("pg_up", "redis_up")),
        {"series": 'slipway_deploy_started_timestamp_seconds{environment="here"}', "values": "0+0x58 870+0x60"},
        {"series": 'slipway_deploy_last_timestamp_seconds{environment="here"}', "values": "60+0x64 975+0x54"},
        {"series": 'slipway_deploy_last_verdict{environment="here", verdict="proved"}', "values": "1+0x120"},
        {"series": 'slipway_backup_last_verdict{environment="here", verdict="done"}', "values": "1+0x120"},
        {"series": 'slipway_backup_last_success_timestamp_seconds{environment="here"}', "values": "0+0x40 610+0x80"},
        {"series": 'slipway_backup_max_age_seconds{environment="here"}', "values": "86400+0x120"},
    ],
}  # fmt: skip


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("what", QUIET)
def test_half_an_hour_in_which_nobody_is_called(what: str, tmp_path: Path) -> None:
    """All rules together: nothing fires but the Watchdog."""
    expr = 'ALERTS{alertname!="Watchdog", alertstate="firing"}'
    checks: list[dict[str, Any]] = [
        {"expr": expr, "eval_time": f"{15 * step}s", "exp_samples": []} for step in range(0, 121, 4)
    ]
    alive = 'ALERTS{alertname="Watchdog", alertstate="firing", severity="none"}'
    checks.append({"expr": alive, "eval_time": "30m", "exp_samples": [{"labels": alive, "value": 1}]})
    test = {"interval": "15s", "input_series": QUIET[what], "promql_expr_test": checks}
    rules = [str(path) for path in rule_files(PROJECT.root)]
    document = {"rule_files": rules, "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert said(tmp_path / "test.yaml") == ""


def test_what_is_made_of_the_objectives_agrees_with_them() -> None:
    """The committed files are what `nox -s settings -- --write` makes."""
    made = made_files(PROJECT.root, PROJECT.slo)
    assert {name: (PROJECT.root / name).read_text(encoding="utf-8") for name in made} == made
