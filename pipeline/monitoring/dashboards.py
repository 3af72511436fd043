"""What is wrong with the dashboards of `monitoring/`: one line each, with the file and the panel."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.monitoring.made import rule_files
from pipeline.monitoring.metrics import metric_problem, metrics_in
from pipeline.monitoring.problems import parse_problem, rules_in

__all__ = ["DASHBOARDS", "MOST_PANELS", "dashboard_files", "dashboard_problems", "expressions"]

DASHBOARDS = "monitoring/dashboards"
MOST_PANELS = 8  # what somebody takes in at night
INTERVAL, MINUTES = "$__rate_interval", "5m"  # what Grafana fills in, and a value for it
Panel = Mapping[str, Any]
Parse = Callable[[str], str | None]


def dashboard_files(root: Path) -> list[Path]:
    """Return the dashboards below `root`, sorted by name."""
    return sorted((root / DASHBOARDS).glob("*.json"))


def expressions(panel: Panel) -> list[str]:
    """Return the queries of `panel`, as Prometheus takes them."""
    return [str(target["expr"]).replace(INTERVAL, MINUTES) for target in panel.get("targets", ())]


def dashboard_problems(root: Path, service: Collection[str]) -> list[str]:
    """Return what is wrong with the dashboards below `root`, whose service exports the metrics `service`."""
    recorded = {rule["record"] for path in rule_files(root) for rule in rules_in(path) if "record" in rule}
    problems, names = list[str](), dict[str, str]()
    # A program for each takes long, so it is asked of each only if one of all is wrong.
    parse = parse_problem if parse_problem(*_all_expressions(root)) else lambda _: None
    for path in dashboard_files(root):
        where = f"{DASHBOARDS}/{path.name}"
        try:
            board = json.loads(path.read_text(encoding="utf-8"))
            panels = board["panels"]
            found = [
                f"{panel['title']}: {line}" for panel in panels for line in _of_panel(panel, service, recorded, parse)
            ]
            first = names.setdefault(board["uid"], path.name)
        except ValueError as error:
            problems.append(f"{where}: not valid JSON: {error}")
            continue
        except (KeyError, TypeError) as error:
            problems.append(
                f"{where}: there is no {error}: a dashboard has `uid` and `panels`, each of those a `title`"
            )
            continue
        if len(panels) > MOST_PANELS:
            found.append(f"{len(panels)} panels, and at most {MOST_PANELS} fit into a head: make another dashboard")
        if first != path.name:
            found.append(f"uid: `{board['uid']}` is that of {first}, and Grafana shows one of them: take another one")
        problems += [f"{where}: {line}" for line in found]
    return problems


def _all_expressions(root: Path) -> list[str]:
    found = []
    for path in dashboard_files(root):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # which is said where each is read
            found += [
                one for panel in json.loads(path.read_text(encoding="utf-8"))["panels"] for one in expressions(panel)
            ]
    return found


def _of_panel(panel: Panel, service: Collection[str], recorded: Collection[str], parse: Parse) -> Iterator[str]:
    """Yield what is wrong with one panel; `parse` says why an expression cannot be parsed."""
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    if not defaults.get("unit"):
        yield "there is no unit: `fieldConfig.defaults.unit`, such as `s` or `short`"
    if not defaults.get("thresholds", {}).get("steps"):
        yield "there are no thresholds: `fieldConfig.defaults.thresholds.steps`, if only one"
    asked = expressions(panel)
    if not asked:
        yield "it asks nothing: write an `expr` into `targets`"
    for expression in asked:
        if problem := parse(expression):
            yield f"cannot be parsed: {problem}"
        for metric, of_service in dict.fromkeys(metrics_in(expression)):
            problem = metric_problem(metric, of_service=of_service, service=service, recorded=recorded)
            if problem:
                yield problem
