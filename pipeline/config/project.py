"""What `pyproject.toml` says about deploys: `[tool.slipway]`, checked key by key."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.config.policy import Allowance, Policy, allowances, parse_policy, policy_problems
from pipeline.config.requests import RequestSpec, parse_requests
from pipeline.errors import UsageError

__all__ = ["TARGETS", "Environment", "Project", "load_project"]

FEWEST_RETAINED = 2
LARGEST = 10_000  # of any number here; this also refuses inf and nan
TARGETS = ("local", "compose", "kubernetes")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of an environment: it is a folder's name and an argument
KUBERNETES_KEYS = ("overlay", "context", "namespace", "repository", "promote_from")


@dataclass(frozen=True)
class Environment:
    """One `[tool.slipway.environments.NAME]`; times in seconds, `rate` in requests a second, latency in ms."""

    name: str
    target: str
    url: str
    replicas: int = 2
    rate: float = 50
    bake_seconds: float = 5
    max_failures: int = 0
    max_latency_ms: float = 500
    timeout: float = 120
    overlay: str | None = None
    context: str | None = None
    namespace: str | None = None
    repository: str | None = None  # of images; IMAGE_REPOSITORY wins
    promote_from: str | None = None
    verify: Policy | None = None  # what must hold of an image before it runs here


@dataclass(frozen=True)
class Project:
    """The repository at `root`: the service's name, its environments, the proof's requests, what makes a release."""

    root: Path
    name: str
    environments: dict[str, Environment]
    requests: tuple[RequestSpec, ...]
    source: tuple[str, ...] = ("backend",)
    retain: int = 5
    allow: tuple[Allowance, ...] = ()  # findings of `scan` that ship all the same

    def environment(self, name: str) -> Environment:
        """Return the environment `name`. Raise `UsageError` with the known ones where there is none of that name."""
        if name not in self.environments:
            raise UsageError(f"unknown environment `{name}`: {_there_is(name, self.environments)}")
        return self.environments[name]

    def state(self, environment: str) -> Path:
        """Return the folder where the pipeline keeps what it knows of `environment`: `.slipway/ENVIRONMENT`."""
        return self.root / ".slipway" / environment


def load_project(root: Path) -> Project:
    """Read and check pyproject.toml in `root`. Raise `UsageError` with one line for each wrong key and its fix."""
    service, table = _read_tables(root / "pyproject.toml")
    problems = [] if service else ['pyproject.toml [project]: missing key `name`: for example `name = "my-service"`']
    known = {"allow", "environments", "requests", "source", "retain"}
    problems += [
        f"pyproject.toml [tool.slipway]: unknown key `{key}`: {_there_is(key, known)}" for key in table.keys() - known
    ]
    environments = {}
    for name, entries in _tables(table.get("environments", {}), problems):
        faults = _environment_problems(name, entries, table["environments"])
        problems += faults
        if not faults:
            policy = {"verify": parse_policy(entries["verify"], root)} if "verify" in entries else {}
            environments[name] = Environment(name=name, **{**entries, **policy})
    source, retain = table.get("source", ["backend"]), table.get("retain", 5)
    problems += _release_problems(root, source, retain)
    allow, wrong = allowances(table.get("allow", []))
    problems += wrong
    try:
        requests = parse_requests(table.get("requests", []), "pyproject.toml")
    except UsageError as error:
        problems += error.problems
    if problems:
        raise UsageError(*problems)
    return Project(
        root=root,
        name=service,
        environments=environments,
        requests=requests,
        source=tuple(source),
        retain=retain,
        allow=allow,
    )


def _read_tables(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the name of the project ("" where there is none) and the table `[tool.slipway]`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: not found; run this in the project's folder") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    project, tool = document.get("project"), document.get("tool", {})
    name = project.get("name") if isinstance(project, dict) else None
    table = tool.get("slipway", {}) if isinstance(tool, dict) else tool
    if not isinstance(table, dict):
        raise UsageError("pyproject.toml: [tool.slipway] must be a table: docs/1-deploying.md shows one")
    return name if isinstance(name, str) else "", table


def _tables(value: object, problems: list[str]) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict) or not value:
        problems.append("pyproject.toml: no [tool.slipway.environments.NAME] table; add one, `local` for a start")
        return []
    good = [(name, entries) for name, entries in value.items() if isinstance(entries, dict)]
    problems += [
        f"pyproject.toml [tool.slipway.environments] {name}: must be a table"
        for name, entries in value.items()
        if not isinstance(entries, dict)
    ]
    return good


def _environment_problems(name: str, entries: dict[str, Any], others: dict[str, Any]) -> list[str]:
    where = f"pyproject.toml [tool.slipway.environments.{name}]"
    keys = {field.name: field for field in fields(Environment) if field.name != "name"}
    problems = [f"{where}: unknown key `{key}`: {_there_is(key, keys)}" for key in entries if key not in keys]
    problems += [
        f"{where}: missing key `{key}`: {_example(key)}"
        for key, field in keys.items()
        if field.default is MISSING and key not in entries
    ]
    if "verify" in entries:
        problems += [f"{where}: verify: {problem}" for problem in policy_problems(entries["verify"])]
    for key in entries.keys() & keys.keys() - {"verify"}:
        problem = _value_problem(key, entries[key], str(keys[key].type))
        if problem:
            problems.append(f"{where}: {key}: {problem}")
    if not NAME.fullmatch(name):
        problems.append(f"{where}: a name is letters, digits, - and _, for example `staging`: rename it")
    if isinstance(entries.get("url"), str):
        problems += [f"{where}: url: {problem}" for problem in _url_problems(entries["url"])]
    problems += _target_problems(where, entries)
    source = entries.get("promote_from")
    if source is not None and (source == name or source not in others):
        problems.append(
            f"{where}: promote_from: `{source}` is not another environment: {_there_is(str(source), others)}"
        )
    return problems


def _target_problems(where: str, entries: dict[str, Any]) -> list[str]:
    target = entries.get("target")
    problems = []
    if isinstance(target, str) and target not in TARGETS:
        problems.append(f"{where}: target: `{target}` is not one of {', '.join(TARGETS)}")
    if target == "kubernetes":
        problems += [
            f"{where}: missing key `{key}`: {_example(key)}"
            for key in ("overlay", "context", "namespace")
            if key not in entries
        ]
        if "replicas" in entries:
            problems.append(f"{where}: `replicas` belongs to the overlay on kubernetes: take it out here")
    elif target in TARGETS:
        problems += [f"{where}: `{key}` is for kubernetes: take it out" for key in KUBERNETES_KEYS if key in entries]
    if target == "local" and "verify" in entries:
        problems.append(f"{where}: `verify` is for images, and `local` runs none: take it out")
    return problems


def _value_problem(key: str, value: object, wanted: str) -> str | None:
    kind = wanted.split(" ", maxsplit=1)[0]
    if kind == "str":
        return None if isinstance(value, str) and value else f"must be text; {_example(key)}"
    numbers: tuple[type, ...] = (int,) if kind == "int" else (int, float)
    if not isinstance(value, numbers) or isinstance(value, bool) or (isinstance(value, float) and math.isnan(value)):
        return f"must be a {'whole number' if kind == 'int' else 'number'}; {_example(key)}"
    lowest = {"max_failures": 0, "bake_seconds": 1, "replicas": 1, "rate": 1}.get(key, 1)
    assert isinstance(value, (int, float))
    if value < lowest:
        return f"must be {lowest} or more"
    return None if value <= LARGEST else f"must be {LARGEST} or less"


def _url_problems(url: str) -> list[str]:
    plain = url.replace("{EDGE_PORT}", "8080")
    if "{" in plain:
        return [f"only {{EDGE_PORT}} is filled in; {_example('url')}"]
    try:
        parts = urlsplit(plain)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or half an IPv6 address
        whole = False
    return [] if whole or not url else [f"must be an http or https address; {_example('url')}"]


def _release_problems(root: Path, source: object, retain: object) -> list[str]:
    problems = []
    if not isinstance(source, list) or not source or not all(isinstance(name, str) for name in source):
        problems.append('pyproject.toml [tool.slipway]: source: must be a list of folders, `source = ["backend"]`')
    else:
        problems += [
            f"pyproject.toml [tool.slipway]: source: there is no folder `{name}` in the project"
            for name in source
            if not name or not (root / name).is_dir() or Path(name).is_absolute() or ".." in Path(name).parts
        ]
    if not isinstance(retain, int) or isinstance(retain, bool) or retain < FEWEST_RETAINED:
        problems.append(
            "pyproject.toml [tool.slipway]: retain: must be a whole number of 2 or more"
            " (the running release and one to go back to)"
        )
    return problems


def _example(key: str) -> str:
    examples = {
        "target": '`target = "local"`',
        "url": '`url = "http://localhost:{EDGE_PORT}"`',
        "replicas": "`replicas = 2`",
        "rate": "`rate = 50` (requests a second)",
        "bake_seconds": "`bake_seconds = 5`",
        "max_failures": "`max_failures = 0`",
        "timeout": "`timeout = 120` (seconds)",
        "max_latency_ms": "`max_latency_ms = 500`",
        "overlay": '`overlay = "k8s/overlays/staging"`',
        "context": '`context = "kind-slipway"`',
        "namespace": '`namespace = "slipway"`',
        "repository": '`repository = "ghcr.io/owner/name"`',
        "promote_from": '`promote_from = "staging"`',
    }
    return f"for example {examples[key]}"


def _there_is(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{close[0]}`?" if close else f"there is {', '.join(f'`{other}`' for other in sorted(known))}"
