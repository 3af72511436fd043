"""What is wrong with the rules of `monitoring/`: one line each, with the file and the rule."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.monitoring.made import RULES, rule_files
from pipeline.monitoring.metrics import metric_problem, metrics_in
from pipeline.system.run import CommandFailed, run

__all__ = ["PROMTOOL", "TESTS", "parse_problem", "parse_problems", "rule_problems", "rules_in"]

PROMTOOL = "promtool"
TESTS = "monitoring/tests"
RUNBOOK = "docs/4-runbook.md"
SEVERITIES = ("page", "ticket", "none")
Rule = dict[str, Any]


def rules_in(path: Path) -> list[Rule]:
    """Return the rules of the file `path`, in their order. Raise `ValueError` with what it has instead."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    try:
        rules = [rule for group in document["groups"] for rule in group["rules"]]
    except (KeyError, TypeError):
        raise ValueError("must be a list `groups` of tables with a `name` and `rules`") from None
    for rule in rules:
        if not isinstance(rule, dict) or not isinstance(rule.get("expr"), str) or not {"alert", "record"} & {*rule}:
            raise ValueError(f"a rule has `alert` or `record`, and `expr`, and not {rule!r}")
    return rules


def rule_problems(root: Path, service: Collection[str]) -> list[str]:
    """Return what is wrong with the rules below `root`, whose service exports the metrics `service`."""
    problems: list[str] = []
    found: list[tuple[str, Rule]] = []
    for path in rule_files(root):
        try:
            found += [(f"{RULES}/{path.name}", rule) for rule in rules_in(path)]
        except ValueError as error:
            problems.append(f"{RULES}/{path.name}: {error}")
    recorded = {rule["record"] for _, rule in found if "record" in rule}
    headings = _anchors((root / RUNBOOK).read_text(encoding="utf-8"))
    for where, rule in found:
        name = f"{where}: {rule.get('alert') or rule.get('record')}"
        for metric, of_service in dict.fromkeys(metrics_in(rule["expr"])):
            problem = metric_problem(metric, of_service=of_service, service=service, recorded=recorded)
            problems += [f"{name}: {problem}"] if problem else []
        if "alert" in rule:
            problems += [f"{name}: {problem}" for problem in _alert_problems(root, rule, headings)]
    return problems


def _anchors(text: str) -> set[str]:
    """Return what the headings of the Markdown `text` are called in an address, as GitHub does it."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _alert_problems(root: Path, alert: Rule, headings: Collection[str]) -> Iterator[str]:
    """Yield what the rule `alert` lacks for whoever it calls."""
    labels, annotations = alert.get("labels") or {}, alert.get("annotations") or {}
    if labels.get("severity") not in SEVERITIES:
        yield f"severity: must be one of {', '.join(SEVERITIES)}: `labels: {{severity: ticket}}`"
    if not annotations.get("summary"):
        yield "there is no summary: say what it means, `annotations: {summary: …}`"
    page, _, anchor = str(annotations.get("runbook_url", "")).partition("#")
    if not page.endswith(f"/{RUNBOOK}"):
        yield f"runbook_url: must be the address of a heading of {RUNBOOK}: …/{RUNBOOK}#{alert['alert'].lower()}"
    elif anchor not in headings:
        yield f"{RUNBOOK} has no heading `#{anchor}`: write there what to do, below `### {alert['alert']}`"
    if not (root / TESTS / f"{alert['alert']}.yaml").exists():
        yield f"there is no test: write {TESTS}/{alert['alert']}.yaml, with a series that fires it, and one that not"


def parse_problem(*expressions: str) -> str | None:
    """Return why promtool cannot parse one of the PromQL `expressions`; None where it can, or is not installed."""
    if shutil.which(PROMTOOL) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rule.yaml"
        rules = [{"record": f"a:rule{number}", "expr": one} for number, one in enumerate(expressions)]
        path.write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": rules}]}), encoding="utf-8")
        said = _checked(path)
    return said[-1].rpartition("could not parse expression: ")[2] if said else None


def parse_problems(root: Path) -> list[str] | None:
    """Return what promtool cannot parse in the rules below `root`, None where it is not installed."""
    if shutil.which(PROMTOOL) is None:
        return None
    problems = []
    for path in rule_files(root):
        problems += [f"{RULES}/{path.name}: {line}" for line in _checked(path)]
    return problems


def _checked(path: Path) -> list[str]:
    """Return what promtool says against the rules in `path`."""
    try:
        run([PROMTOOL, "check", "rules", str(path)], level=logging.DEBUG, timeout=60)
    except CommandFailed as error:
        lines = [line.strip() for line in error.output.splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith("Checking ") and not line.endswith("FAILED:")]
        return [line.removeprefix(f"{path}: ") for line in said]
    return []
