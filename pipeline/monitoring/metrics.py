"""The metrics that a rule or a dashboard may name: the service's, the pipeline's own, those of exporters."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.config.tables import there_is

__all__ = ["PIPELINE", "metric_problem", "metrics_in", "service_metrics"]

# What a deploy, a backup and a drill leave, with their labels beside `environment`: docs/14-monitoring.md.
PIPELINE: Mapping[str, str] = {
    "slipway_deploy_started_timestamp_seconds": "when the last deploy or rollback began",
    "slipway_deploy_last_timestamp_seconds": "when the last one ended",
    "slipway_deploy_last_seconds": "how long it took",
    "slipway_deploy_last_verdict": "1, labelled `verdict`: as in its report",
    "slipway_backup_last_timestamp_seconds": "when the last one ended",
    "slipway_backup_last_success_timestamp_seconds": "of when the data of the newest whole one is",
    "slipway_backup_max_age_seconds": "how old that may be; only where the environment's table has `backups`",
    "slipway_backup_last_seconds": "how long the last one took",
    "slipway_backup_last_bytes": "the size of the newest whole one",
    "slipway_backup_last_verdict": "1, labelled `verdict`: `done`, `failed`, `interrupted`",
    "slipway_drill_last_timestamp_seconds": "when the last one ended",
    "slipway_drill_last_seconds": "how long the restore took",
    "slipway_drill_last_bytes": "the size of the backup that was tried",
    "slipway_drill_last_verdict": "1, labelled `verdict`: `proved`, `failed`, `interrupted`",
}
# What begins so is an exporter's: which names it has depends on its version.
EXPORTERS = (
    "caddy_",
    "container_",
    "kube_",
    "kubelet_",
    "otelcol_",
    "pg_",
    "probe_",
    "prometheus_",
    "redis_",
    "system_",
)
SCRAPED = ("up",)  # Prometheus' own, of each target
PREFIX = "slipway_"
# Of an expression without its strings, ranges and lists of labels names are left, functions, keywords and numbers.
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
OF_SERVICE, MATCHERS = re.compile(r"\{[^{}]*\bjob=@[^{}]*\}"), re.compile(r"\{[^{}]*\}")
SERVICE = '"backend"'  # the job that it is scraped by
LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
NAME = re.compile(r"(?<![\w:.])([A-Za-z_:][\w:]*)(?![\w:])(@?)(?!\s*\()")
WORDS = {"and", "bool", "by", "group_left", "group_right", "ignoring", "inf", "nan", "offset", "on", "or", "unless",
         "without"}  # fmt: skip


def service_metrics() -> set[str]:
    """Return the names of the series that the service exports, from its registry.

    The module is loaded only here, where the service's packages are: in `nox -s lint`.
    """
    module: Any = importlib.import_module("backend.metrics")
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    families = module.Metrics("lint").registry.collect()
    return {"process_start_time_seconds"} | {
        f"{family.name}{end}" for family in families for end in ends.get(family.type, ("",))
    }


def metrics_in(expression: str) -> Iterator[tuple[str, bool]]:
    """Yield each metric that the PromQL `expression` names, and whether it asks the service for it."""
    text = STRING.sub(lambda match: "@" if match[0] == SERVICE else "", expression)  # one may hold braces
    text = MATCHERS.sub("", OF_SERVICE.sub("@", text))
    for match in NAME.finditer(LABELS.sub(" ", RANGE.sub(" ", text))):
        if match[1].lower() not in WORDS:
            yield match[1], bool(match[2])


def metric_problem(name: str, *, of_service: bool, service: Collection[str], recorded: Collection[str]) -> str | None:
    """Return why a rule cannot have the metric `name`, with the nearest one, or None."""
    if name in recorded or name in SCRAPED or name in service or name in PIPELINE:
        return None
    if ":" in name:
        return f"no rule records `{name}`: {there_is(name, recorded)}"
    if name.startswith(PREFIX):
        return f"no deploy, backup or drill leaves `{name}`: {there_is(name, PIPELINE)}"
    if not of_service and name.startswith(EXPORTERS):
        return None
    return f"the service has no metric `{name}`: {there_is(name, service)}"
