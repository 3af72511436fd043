"""What is wrong with the collectors' configurations of `monitoring/`, as far as one sees that without a collector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.tables import there_is

__all__ = ["collector_files", "collector_problems"]

FILES = "monitoring/*/collector.yaml"
SECTIONS = ("connectors", "exporters", "extensions", "processors", "receivers")
# The components that are used here, and the keys that they know: a key that is misspelt stops a collector at its start.
QUEUE = {"batch", "block_on_overflow", "enabled", "num_consumers", "queue_size", "sizer", "storage", "wait_for_result"}
RETRY = {"enabled", "initial_interval", "max_elapsed_time", "max_interval", "multiplier", "randomization_factor"}
OTLP_HTTP = {"auth", "compression", "encoding", "endpoint", "headers", "logs_endpoint", "metrics_endpoint",
             "proxy_url", "retry_on_failure", "sending_queue", "timeout", "tls", "traces_endpoint"}  # fmt: skip
FILE_LOG = {"attributes", "encoding", "exclude", "exclude_older_than", "fingerprint_size", "force_flush_period",
            "include", "include_file_name", "include_file_path", "initial_buffer_size", "max_batches",
            "max_concurrent_files", "max_log_size", "multiline", "operators", "poll_interval", "resource",
            "retry_on_failure", "start_at", "storage"}  # fmt: skip
KEYS: Mapping[str, set[str]] = {
    "batch": {"send_batch_max_size", "send_batch_size", "timeout"},
    "debug": {"sampling_initial", "sampling_thereafter", "verbosity"},
    "file_log": FILE_LOG,
    "file_storage": {"compaction", "create_directory", "directory", "fsync", "recreate", "timeout"},
    "filelog": FILE_LOG,
    "health_check": {"endpoint", "path"},
    "hostmetrics": {"collection_interval", "initial_delay", "root_path", "scrapers"},
    "memory_limiter": {"check_interval", "limit_mib", "limit_percentage", "spike_limit_mib", "spike_limit_percentage"},
    "otlp": {"protocols"},
    "otlp_http": OTLP_HTTP,
    "otlphttp": OTLP_HTTP,
    "transform": {"error_mode", "log_statements", "metric_statements", "trace_statements"},
}
INNER: Mapping[str, set[str]] = {"sending_queue": QUEUE, "retry_on_failure": RETRY}
OPERATORS = {"add", "copy", "filter", "json_parser", "move", "recombine", "regex_parser", "remove", "retain", "router",
             "severity_parser", "time_parser", "trace_parser"}  # fmt: skip
PARTS = ("exporters", "processors", "receivers")
Config = dict[str, Any]


def collector_files(root: Path) -> list[Path]:
    """Return the configurations of collectors below `root`."""
    return sorted(root.glob(FILES))


def collector_problems(root: Path) -> list[str]:
    """Return what is wrong with the collectors' configurations below `root`, one line each."""
    problems = []
    for path in collector_files(root):
        name = path.relative_to(root).as_posix()
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            found = list(_problems(config))
        except yaml.YAMLError as error:
            found = [f"not valid YAML: {' '.join(str(error).split())}"]
        except (AttributeError, KeyError, TypeError):
            found = ["must have tables `receivers`, `exporters` and `service`, as a collector's configuration has"]
        problems += [f"{name}: {problem}" for problem in found]
    return problems


def _problems(config: Config) -> Iterator[str]:
    for section in config.keys() - {*SECTIONS, "service"}:
        yield f"there is no section `{section}`: {there_is(section, [*SECTIONS, 'service'])}"
    for section in SECTIONS:
        for name, table in config.get(section, {}).items():
            yield from _component_problems(f"{section}.{name}", name.partition("/")[0], table or {})
    yield from _service_problems(config)


def _component_problems(where: str, kind: str, table: Config) -> Iterator[str]:
    """Yield what is wrong with the component at `where`, whose type is `kind`."""
    if kind not in KEYS:
        yield f"{where}: no component `{kind}` is used so far: {there_is(kind, KEYS)}"
        return
    for key in sorted(table.keys() - KEYS[kind]):
        yield f"{where}: it has no `{key}`: {there_is(key, KEYS[kind])}"
    for part, keys in INNER.items():
        for key in sorted((table.get(part) or {}).keys() - keys):
            yield f"{where}.{part}: it has no `{key}`: {there_is(key, keys)}"
    for number, operator in enumerate(table.get("operators", ()), 1):
        if operator["type"] not in OPERATORS:
            yield f"{where}: operator {number}: no `{operator['type']}`: {there_is(operator['type'], OPERATORS)}"


def _service_problems(config: Config) -> Iterator[str]:
    """Yield what a pipeline names and nothing defines, and what is defined and used by nothing."""
    service, used = config["service"], {section: set[str]() for section in SECTIONS}
    used["extensions"] |= set(service.get("extensions", ()))
    for table in service["pipelines"].values():
        for part in PARTS:
            used[part] |= set(table.get(part, ()))
    joints = set(config.get("connectors", {}))  # an exporter of one pipeline, a receiver of another
    for section in ("extensions", *PARTS):
        known = set(config.get(section, {}))
        for name in sorted(used[section] - known - joints):
            yield f"service: {section}: no `{name}`: {there_is(name, known)}"
        for name in sorted(known - used[section]):
            yield f"{section}.{name}: no pipeline uses it: take it out, or name it in `service`"
    storage = {name for name in config.get("extensions", {}) if name.startswith("file_storage")}
    for section in ("receivers", "exporters"):
        for name, table in config[section].items():
            given = [(table or {}).get("storage"), ((table or {}).get("sending_queue") or {}).get("storage")]
            for one in filter(None, given):
                if one not in storage:
                    yield f"{section}.{name}: storage: no `{one}`: {there_is(one, storage)}"
