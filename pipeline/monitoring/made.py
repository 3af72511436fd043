"""What is made in `monitoring/` and from it: the rules' objectives, and the PrometheusRule for Kubernetes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from pipeline.config.derived import filled
from pipeline.config.slo import Slo
from pipeline.errors import UsageError

__all__ = ["RULES", "made_files", "rule_files"]

RULES = "monitoring/rules"
OBJECTIVES = f"{RULES}/slo.yaml"
COMPONENT = "k8s/components/monitoring"
METRICS = "backend/metrics.py"
USERS = 'job="backend", traffic="user", route!~"/health|/ready"'
MARK = re.compile(r" *# [a-z ]+: (?:made by .*|end)")
HEAD = """\
# Made from monitoring/rules by `nox -s settings -- --write`, because kustomize reads nothing above its own folder.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: backend
  labels: {app.kubernetes.io/component: metrics}
spec:
  groups:
"""


def made_files(root: Path, slo: Slo) -> dict[str, str]:
    """Return the text that each of the files should have, by its path below `root`.

    Where the service has removed `monitoring/` or the component, nothing is made for it. Raise `UsageError` where the
    objective for latency is no end of a bucket, and `SlipwayError` if a file has lost its marks.
    """
    if not (root / OBJECTIVES).exists():
        return {}
    made = {OBJECTIVES: _with_objectives((root / OBJECTIVES).read_text(encoding="utf-8"), slo, root)}
    if (root / COMPONENT).exists():
        texts = {path.name: path.read_text(encoding="utf-8") for path in rule_files(root)}
        texts |= {Path(OBJECTIVES).name: made[OBJECTIVES]}
        made[f"{COMPONENT}/rules.yaml"] = HEAD + "".join(_groups(name, text) for name, text in texts.items())
    return made


def rule_files(root: Path) -> list[Path]:
    """Return the files with rules, sorted by name."""
    return sorted((root / RULES).glob("*.yaml"))


def _with_objectives(text: str, slo: Slo, root: Path) -> str:
    """Return the `text` of slo.yaml with the rules that follow from `slo`."""
    budgets = [
        line
        for name, budget in slo.budgets.items()
        for line in ("- record: slo:budget:ratio", f"  labels: {{slo: {name}}}", f"  expr: vector({_plain(budget)})")
    ]
    fast = [
        "- record: service:fast:rate5m",
        "  expr: |",
        "    sum by (namespace) (",
        "      rate(",
        f'        http_request_duration_seconds_bucket{{{USERS}, le="{_bucket(slo, root)}"}}[5m]',
        "      )",
        "    )",
    ]
    days = f"{slo.window_days}d"
    left = [
        "# 1 is untouched, 0 is used up, below that it is overdrawn.",
        "- record: slo:budget_left:ratio",
        "  expr: |",
        f"    1 - avg_over_time(slo:errors:rate5m[{days}]) / avg_over_time(slo:requests:rate5m[{days}])",
        "    / on (slo) group_left () slo:budget:ratio",
    ]
    text = filled(OBJECTIVES, text, "objectives", [*budgets, *fast])
    return filled(OBJECTIVES, text, "window", left)


def _plain(number: float) -> str:
    """Return `number` with its digits and no exponent, which a reader would have to work out."""
    return f"{number:.8f}".rstrip("0")


def _bucket(slo: Slo, root: Path) -> str:
    """Return the label `le` of the bucket that has what is fast enough."""
    buckets = _buckets(root / METRICS)
    seconds = slo.latency_ms / 1000
    if seconds not in buckets:
        known = ", ".join(f"{1000 * bucket:g}" for bucket in buckets)
        raise UsageError(
            f"pyproject.toml [tool.slipway.slo]: latency_ms: no bucket ends at {slo.latency_ms:g} ms: what is faster is"
            f" not counted: take one of {known}, or add it to BUCKETS in {METRICS}"
        )
    return repr(seconds)


def _buckets(path: Path) -> tuple[float, ...]:
    """Return BUCKETS of the file `path`, which is not imported: the pipeline has none of the service's packages."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BUCKETS":
            return tuple(map(float, ast.literal_eval(node.value)))
    raise UsageError(
        f"{METRICS}: there is no `BUCKETS = (…)`, of which the latency objective has to be one: put it back"
    )


def _groups(name: str, text: str) -> str:
    """Return the groups of the rule file `name`, whose content is `text`, as a part of `spec.groups`."""
    _, found, groups = text.partition("groups:\n")
    if not found:
        raise UsageError(f"{RULES}/{name}: there is no line `groups:`: write the rules below one")
    lines = [line for line in groups.splitlines() if not MARK.fullmatch(line)]  # they are for the file itself
    return "".join(f"  {line}\n" if line else "\n" for line in lines)
