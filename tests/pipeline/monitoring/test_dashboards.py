"""What is wrong with a dashboard is named before anybody looks at it at night."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.monitoring.dashboards import MOST_PANELS, dashboard_files, dashboard_problems
from pipeline.monitoring.metrics import service_metrics
from tests.project import PROJECT, copied

ROOT = PROJECT.root
STORES = "monitoring/dashboards/stores.json"
needs_promtool = pytest.mark.needs("promtool")


def change(root: Path, made: Callable[[dict[str, Any]], Any]) -> list[str]:
    """Change the dashboard of the stores below ROOT, and return what is wrong then."""
    path = root / STORES
    board = json.loads(path.read_text(encoding="utf-8"))
    made(board)
    path.write_text(json.dumps(board), encoding="utf-8")
    return dashboard_problems(root, service_metrics())


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Path:
    """A copy of what is read."""
    return copied(tmp_path, "monitoring")


class TestDashboards:
    def test_are_three_without_a_fault(self) -> None:
        """`nox -s lint` passes."""
        assert [path.stem for path in dashboard_files(ROOT)] == ["deploys", "service", "stores"]
        assert dashboard_problems(ROOT, service_metrics()) == []

    @pytest.mark.parametrize(
        ("expr", "says"),
        [
            ("max(cache_read_total)", "no metric `cache_read_total`: did you mean `cache_reads_total`?"),
            ('max(pg_reads_total{job="backend"})', "the service has no metric `pg_reads_total`"),
            ("max(slo:burn:rate7h)", "no rule records `slo:burn:rate7h`: did you mean `slo:burn:rate"),
            ("max(slipway_backup_size)", "no deploy, backup or drill leaves `slipway_backup_size`"),
        ],
    )
    def test_ask_for_what_somebody_exports(self, copy: Path, expr: str, says: str) -> None:
        """The line has the file and the panel."""
        [line] = change(copy, lambda board: board["panels"][1]["targets"][0].update(expr=expr))
        assert line.startswith(f"{STORES}: PostgreSQL: longest transaction: ")
        assert says in line

    @needs_promtool
    def test_have_queries_that_parse(self, copy: Path) -> None:
        """By promtool, with a value for what Grafana fills in."""
        [line] = change(copy, lambda board: board["panels"][1]["targets"][0].update(expr="max(pg_up[5m]"))
        assert line.startswith(f"{STORES}: PostgreSQL: longest transaction: cannot be parsed: 1:")

    def test_have_units_and_thresholds(self, copy: Path) -> None:
        """Without, nobody knows what a line means, or whether it is bad."""

        def strip(board: dict[str, Any]) -> None:
            defaults = board["panels"][0]["fieldConfig"]["defaults"]
            del defaults["unit"], defaults["thresholds"]
            board["panels"][1]["targets"] = []

        said = change(copy, strip)
        assert [line.split(": ", 3)[3].split(":")[0] for line in said] == [
            "there is no unit",
            "there are no thresholds",
            "it asks nothing",
        ]

    def test_have_no_more_than_fits(self, copy: Path) -> None:
        """Somebody looks at them in a hurry."""
        [line] = change(copy, lambda board: board["panels"].append(board["panels"][0]))
        assert line.startswith(f"{STORES}: {MOST_PANELS + 1} panels, and at most {MOST_PANELS}")

    def test_are_read_or_named(self, copy: Path) -> None:
        """One that is no dashboard, one that is no JSON, two with one name."""
        shutil.copy(copy / STORES, copy / STORES.replace("stores", "twin"))
        (copy / STORES.replace("stores", "none")).write_text("[]")
        (copy / STORES.replace("stores", "broken")).write_text("{")
        said = "\n".join(dashboard_problems(copy, service_metrics()))
        assert "monitoring/dashboards/broken.json: not valid JSON" in said
        assert "monitoring/dashboards/none.json: there is no" in said
        assert "monitoring/dashboards/twin.json: uid: `stores` is that of stores.json" in said

    def test_lead_to_logs_and_traces_by_a_trace_id(self) -> None:
        """Where they are can be said on the page: another host's ports are others."""
        board = json.loads((ROOT / "monitoring/dashboards/service.json").read_text(encoding="utf-8"))
        asked = {one["name"] for one in board["templating"]["list"]}
        urls = [link["url"] for link in board["links"]]
        assert asked == {"logs", "traces", "trace"}
        assert any(url.startswith("$logs/select/vmui/") and "$trace" in url for url in urls)
        assert "$traces/trace/$trace" in urls
