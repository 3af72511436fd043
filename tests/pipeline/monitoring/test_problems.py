"""What is wrong with a rule is named before it is relied on; what follows from the objectives is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.config.slo import Slo
from pipeline.errors import UsageError
from pipeline.monitoring.made import made_files
from pipeline.monitoring.metrics import metrics_in, service_metrics
from pipeline.monitoring.problems import parse_problems, rule_problems
from tests.project import PROJECT, copied, run_pipeline

ROOT = PROJECT.root
FOLDERS = ("backend", "docs", "k8s", "monitoring", "pipeline")
SERVICE, SLO = "monitoring/rules/service.yaml", "monitoring/rules/slo.yaml"


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Path:
    """A copy of what is read and written."""
    return copied(tmp_path, *FOLDERS)


def change(root: Path, name: str, old: str, new: str) -> None:
    """Replace OLD, which is there, by NEW in the file NAME."""
    text = (root / name).read_text(encoding="utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")


class TestRuleProblems:
    def test_are_none_here(self) -> None:
        """`nox -s lint` passes."""
        assert rule_problems(ROOT, service_metrics()) == []

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("database_pool_timeouts_total", "database_pool_timeout_total",
             "PoolExhausted: the service has no metric `database_pool_timeout_total`: did you mean `database_pool_ti"),
            # redis_exporter has metrics that begin so; asked of the service, they are the service's.
            ("database_pool_timeouts_total", "redis_timeouts_total",
             "PoolExhausted: the service has no metric `redis_timeouts_total`"),
            ("release:errors:increase2m >= 5", "release:error:increase2m >= 5",
             "ReleaseFailing: no rule records `release:error:increase2m`: did you mean `release:errors:increase2m`?"),
            ("backend_build_info{job=\"backend\"}", "slipway_deploy_verdict",
             "ReleasesDiffer: no deploy, backup or drill leaves `slipway_deploy_verdict`: did you mean `slipway"),
            ("backend_build_info{job=\"backend\"}", "unheard_of",
             "ReleasesDiffer: the service has no metric `unheard_of`"),
            ("#poolexhausted", "#poolempty",
             "PoolExhausted: docs/4-runbook.md has no heading `#poolempty`: write there what to do, below `### PoolEx"),
            ("docs/4-runbook.md#poolexhausted", "wiki",
             "PoolExhausted: runbook_url: must be the address of a heading of docs/4-runbook.md"),
            ("severity: page", "severity: urgent", "NothingServes: severity: must be one of page, ticket, none"),
            ("          summary: \"Replicas of different", "          text: \"Replicas of different",
             "ReleasesDiffer: there is no summary"),
            ("alert: PoolExhausted", "alert: PoolEmpty",
             "PoolEmpty: there is no test: write monitoring/tests/PoolEmpty.yaml"),
        ],
    )  # fmt: skip
    def test_name_the_file_and_the_rule(self, copy: Path, old: str, new: str, says: str) -> None:
        """And what it should be, where that can be guessed."""
        change(copy, SERVICE, old, new)
        (problem,) = rule_problems(copy, service_metrics())
        assert problem.startswith(f"{SERVICE}: {says}")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("groups: [", "not valid YAML: "),
            ("rules: []", "must be a list `groups` of tables with a `name` and `rules`"),
            ("groups: [{name: a, rules: [{alert: A}]}]", "a rule has `alert` or `record`, and `expr`, and not"),
        ],
    )
    def test_name_a_file_that_has_no_rules(self, copy: Path, text: str, says: str) -> None:
        """Prometheus would refuse to start."""
        (copy / "monitoring/rules/ours.yaml").write_text(text)
        (problem,) = rule_problems(copy, service_metrics())
        assert problem.startswith(f"monitoring/rules/ours.yaml: {says}")


@pytest.mark.needs("promtool")
class TestParseProblems:
    def test_are_none_here(self) -> None:
        """As Prometheus reads them."""
        assert parse_problems(ROOT) == []

    def test_name_the_file_and_the_place(self, copy: Path) -> None:
        """In promtool's own words."""
        change(copy, SERVICE, "increase(database_pool_timeouts_total", "increase((database_pool_timeouts_total")
        problems = parse_problems(copy)
        assert problems
        assert problems[0].startswith(f"{SERVICE}: ")
        assert "could not parse expression" in problems[0]

    def test_end_lint(self, copy: Path) -> None:
        """With exit code 1."""
        change(copy, SERVICE, "unless on", "unles on")
        done = run_pipeline(copy, "rules")
        assert done.returncode == 1
        assert f"✗ {SERVICE}: " in done.stderr


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_without_promtool_lint_says_so_and_fails_where_nobody_reads_that(ci: str, code: int, tmp_path: Path) -> None:
    """The rest is checked all the same."""
    done = run_pipeline(ROOT, "rules", PATH=str(tmp_path), CI=ci)
    assert done.returncode == code, done.stderr
    assert "no expression in monitoring/ was parsed: there is no promtool" in done.stderr


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up", [("up", False)]),
        ('sum by (job, pod) (rate(a_total{job="backend", x="b{c}"}[5m])) > 0', [("a_total", True)]),
        ('a{le="0.25"} / on (b) group_left (c) d offset 5m unless f', [("a", False), ("d", False), ("f", False)]),
        ('{__name__=~"a|b"} or vector(1) or time() - Inf', []),
        ('increase(a:b:c[1h:5m]) == bool 1e3', [("a:b:c", False)]),
    ],
)  # fmt: skip
def test_the_metrics_of_an_expression(expression: str, found: list[tuple[str, bool]]) -> None:
    """Neither functions nor labels, and whether it is the service that is asked."""
    assert list(metrics_in(expression)) == found


class TestMadeFiles:
    def test_follow_from_the_objectives(self, copy: Path) -> None:
        """Budgets, the bucket and the window, in the rules and in what Kubernetes is given."""
        made = made_files(copy, Slo(availability=99.95, latency_share=95, latency_ms=1000, window_days=28))
        rules = yaml.safe_load(made[SLO])
        budgets = [
            rule for group in rules["groups"] for rule in group["rules"] if rule.get("record") == "slo:budget:ratio"
        ]
        assert [(rule["labels"]["slo"], rule["expr"]) for rule in budgets] == [
            ("availability", "vector(0.0005)"),
            ("latency", "vector(0.05)"),
        ]
        assert 'le="1.0"' in made[SLO]
        assert "avg_over_time(slo:errors:rate5m[28d])" in made[SLO]
        given = yaml.safe_load(made["k8s/components/monitoring/rules.yaml"])["spec"]["groups"]
        assert [group for group in given if group["name"].startswith("slo")] == rules["groups"]

    def test_have_every_rule(self) -> None:
        """What Prometheus reads on one host is what the operator gives it on a cluster."""
        files = sorted((ROOT / "monitoring/rules").glob("*.yaml"))
        groups = [group for path in files for group in yaml.safe_load(path.read_text("utf-8"))["groups"]]
        text = (ROOT / "k8s/components/monitoring/rules.yaml").read_text("utf-8")
        assert yaml.safe_load(text)["spec"]["groups"] == groups

    def test_refuse_a_latency_that_nobody_counts(self) -> None:
        """With those that are."""
        with pytest.raises(UsageError) as caught:
            made_files(ROOT, Slo(latency_ms=300))
        (problem,) = caught.value.problems
        assert problem.startswith("pyproject.toml [tool.slipway.slo]: latency_ms: no bucket ends at 300 ms")
        assert ", 100, 250, 500, 1000, " in problem

    def test_are_checked_and_written_by_the_session(self, copy: Path) -> None:
        """A change of the table or of a rule is named, and one command away."""
        change(copy, "pyproject.toml", "availability = 99.9 ", "availability = 99.5 ")
        done = run_pipeline(copy, "settings")
        assert done.returncode == 1
        why = "does not agree with monitoring/rules and [tool.slipway.slo] of pyproject.toml"
        assert [line.split(" does")[0].split()[-1] for line in done.stderr.splitlines() if why in line] == [
            SLO,
            "k8s/components/monitoring/rules.yaml",
        ]
        assert run_pipeline(copy, "settings", "--write").returncode == 0
        assert run_pipeline(copy, "settings").returncode == 0

    def test_are_none_without_the_folder(self, copy: Path) -> None:
        """A service that is watched otherwise removes it."""
        shutil.rmtree(copy / "monitoring")
        assert made_files(copy, Slo()) == {}
        assert run_pipeline(copy, "rules").returncode == 0
