"""What `pyproject.toml` says about deploys: `[tool.slipway]`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pipeline.config.backup_policy import BackupPolicy
from pipeline.config.harmless import Harmless
from pipeline.config.policy import Allowance, Policy, allowances
from pipeline.config.requests import RequestSpec, parse_requests
from pipeline.config.slo import Slo
from pipeline.config.sources import Source
from pipeline.config.tables import Table, Text, read_table, there_is
from pipeline.errors import UsageError
from pipeline.system.place import state_folder

__all__ = [
    "LONGEST_WATCH",
    "ComposeEnvironment",
    "Environment",
    "KubernetesEnvironment",
    "LocalEnvironment",
    "Project",
    "load_project",
]

LARGEST = 10_000
LONGEST_WATCH = 60  # minutes: a job on GitHub has to end, and what the traffic writes stays until the end
SHORTEST_LIMIT, LONGER = 60, 10  # of a bake, in seconds and in times of bake_seconds
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of an environment: it is a folder's name and an argument


def _url(url: str) -> str:
    plain = url.replace("{EDGE_PORT}", "8080")
    if "{" in plain:
        raise ValueError("must not have braces: only {EDGE_PORT} is filled in")
    try:
        parts = urlsplit(plain)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, or half an IPv6 address
        whole = False
    if not whole:
        raise ValueError("must be an http or https address")
    return url


def _prometheus(address: str) -> str:
    _url(address)
    parts = urlsplit(address)
    if "{" in address or parts.query or parts.fragment:
        raise ValueError("must be the address alone, without braces, query or fragment")
    if parts.username or parts.password:
        raise ValueError("must have no login in it: PROMETHEUS_TOKEN has a token, for an https address")
    return address


Number = Annotated[float, Field(ge=1, le=LARGEST)]
Day = Annotated[float, Field(ge=1, le=86_400)]
Replicas = Annotated[int, Field(ge=1, le=LARGEST)]


class Environment(Table):
    """One `[tool.slipway.environments.NAME]`; times in seconds, `rate` in requests a second, latency in ms."""

    name: str = Field(exclude=True)
    target: Literal["local", "compose", "kubernetes"] = Field(examples=['"local"'])
    url: Annotated[Text, AfterValidator(_url)] = Field(examples=['"http://localhost:{EDGE_PORT}"'])
    rate: Number = Field(default=50, examples=["50 # requests a second"])
    bake_seconds: Number = 5
    # How long the bake may go on where it says too little; without it ten times bake_seconds, and at least a minute.
    bake_limit_seconds: Day | None = None
    inconclusive: Literal["undo", "keep"] = "undo"  # what becomes of a release of which too little is known
    max_failures: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    max_slowdown: Number = 1.5  # compared with the release before
    max_latency_ms: Number | None = None  # of 95 in 100 answers, whatever was before
    timeout: Number = Field(default=120, examples=["120 # seconds"])
    # What all migrations of a deploy may take together. A statement has 60 s of it, unless it blocks nobody.
    migration_timeout: Day = Field(default=1800, examples=["1800 # seconds"])
    # What must hold of an image before it runs here.
    verify: Policy | None = Field(default=None, examples=['{ key = "cosign.pub" }'])
    # Where the secrets come from; `.env` (of a cluster that is not kind's: its Secret) by default.
    secrets: Source | None = Field(default=None, examples=['{ command = ["sops", "decrypt", "secrets/staging.env"] }'])

    # Without it backups are kept by the same rule, and nobody says that one is missing.
    backups: BackupPolicy | None = Field(default=None, examples=['{ keep = "7d 4w", max_age = "24h" }'])

    # Who knows the service's metrics and alerts. On Kubernetes an http address is one of the cluster, and asked there.
    prometheus: Annotated[Text, AfterValidator(_prometheus)] | None = Field(
        default=None, examples=['"http://127.0.0.1:9090"']
    )
    # How long a deploy listens to its alerts after the release was proved: 0 is not at all.
    watch_minutes: Annotated[float, Field(ge=0, le=LONGEST_WATCH)] = Field(default=0, examples=["10 # 60 at most"])

    @field_validator("watch_minutes")
    @classmethod
    def _can_listen(cls, minutes: float, info: ValidationInfo) -> float:
        if minutes and info.data.get("prometheus", "") is None:  # a wrong address is named by itself
            raise ValueError(
                'needs the address of a Prometheus beside it, for example `prometheus = "http://127.0.0.1:9090"`'
            )
        return minutes

    @property
    def kept(self) -> BackupPolicy:
        """The rule for backups."""
        return self.backups or BackupPolicy()

    @property
    def bake_limit(self) -> float:
        """How many seconds the bake may take, from its beginning to the verdict."""
        return self.bake_limit_seconds or max(SHORTEST_LIMIT, LONGER * self.bake_seconds)


class KubernetesEnvironment(Environment):
    """One on a cluster, in the `namespace` that the `overlay` is applied to."""

    target: Literal["kubernetes"] = "kubernetes"
    overlay: Text = Field(examples=['"k8s/overlays/staging"'])
    context: Text = Field(examples=['"kind-slipway"'])
    namespace: Text = Field(examples=['"slipway"'])
    repository: Text | None = Field(default=None, examples=['"ghcr.io/owner/name"'])  # of images; IMAGE_REPOSITORY wins
    promote_from: Text | None = Field(default=None, examples=['"staging"'])
    elsewhere: ClassVar = {"replicas": "belongs to the overlay on kubernetes"}


ON_KUBERNETES = dict.fromkeys(KubernetesEnvironment.model_fields.keys() - Environment.model_fields, "is for kubernetes")


class ComposeEnvironment(Environment):
    """One on one host with Docker Compose."""

    target: Literal["compose"] = "compose"
    replicas: Replicas = 2
    elsewhere: ClassVar = ON_KUBERNETES


class LocalEnvironment(Environment):
    """One of processes on this machine."""

    target: Literal["local"] = "local"
    replicas: Replicas = 2
    verify: None = None
    elsewhere: ClassVar = {**ON_KUBERNETES, "verify": "is for images, and `local` runs none"}


# A union of pydantic's, discriminated by `target`, says nothing about the other keys while that is wrong.
KINDS: dict[str, type[Environment]] = {
    kind.model_fields["target"].default: kind for kind in (LocalEnvironment, ComposeEnvironment, KubernetesEnvironment)
}


class Project(Table):
    """The repository at `root`: the service's name, its environments, the proof's requests, what makes a release."""

    root: Path = Field(exclude=True)
    name: str = Field(exclude=True)
    environments: dict[str, Environment]
    # The commit of the template that it was made from: `rename` records it.
    template: Text | None = Field(default=None, examples=['"COMMIT"'])
    requests: tuple[RequestSpec, ...]
    source: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("backend",)
    retain: Annotated[int, Field(ge=2)] = Field(default=5, description="the running release and one to go back to")
    allow: tuple[Allowance, ...] = ()  # findings of `scan` that ship all the same
    # What `nox -s bench` measures: a request's name, and the least ratio to a bare ASGI app that is held.
    bench: dict[str, Annotated[float, Field(ge=0.001, le=1)]] = Field(default={}, examples=['{ "list notes" = 0.1 }'])
    harmless: Harmless = Harmless()  # what CI need not test the pipeline for
    slo: Slo = Slo()  # what users are promised: the rules of monitoring/ are made from it
    # What looks like a secret and is none, by the fingerprint that `nox -s lint` names, and why everybody may know it.
    public: dict[str, str] = Field(default={}, examples=['{ FINGERPRINT = "why" }'])

    @field_validator("source")
    @classmethod
    def _is_in_the_project(cls, source: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in source:
            path = Path(name)
            if not name or path.is_absolute() or ".." in path.parts or not (info.data["root"] / path).is_dir():
                raise ValueError(f"there is no folder `{name}` in the project")
        return source

    @field_validator("bench")
    @classmethod
    def _can_be_measured(cls, bench: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        requests = {one.name: one for one in info.data.get("requests", ())}
        for name in bench:
            if name not in requests:
                raise ValueError(f"no request has the name `{name}`: {there_is(name, requests)}")
            if requests[name].method != "GET" and not requests[name].readback:
                raise ValueError(f"`{name}` is neither a GET nor a write that is read back by one")
        return bench

    @field_validator("public")
    @classmethod
    def _has_reasons(cls, public: dict[str, str]) -> dict[str, str]:
        if not all(re.fullmatch("[0-9a-f]{16}", fingerprint) for fingerprint in public):
            # It is not named here: whoever writes a value instead would find it in the log of a job.
            raise ValueError("a key is no fingerprint, 16 digits as `nox -s lint` names them: no value belongs there")
        for fingerprint, reason in public.items():
            if not reason.strip():
                raise ValueError(f"`{fingerprint}` has no reason: say why everybody may know it")
        return public

    def environment(self, name: str) -> Environment:
        """Return the environment `name`. Raise `UsageError` with the known ones where there is none of that name."""
        if name not in self.environments:
            raise UsageError(f"unknown environment `{name}`: {there_is(name, self.environments)}")
        return self.environments[name]

    def state(self, environment: str) -> Path:
        """Return the folder where the pipeline keeps what it knows of `environment`: usually `.slipway/ENVIRONMENT`."""
        return state_folder(self.root) / environment


def load_project(root: Path) -> Project:
    """Read and check pyproject.toml in `root`. Raise `UsageError` with one line for each wrong key and its fix."""
    name, table = _read_tables(root / "pyproject.toml")
    problems = [] if name else ['pyproject.toml [project]: missing key `name`: for example `name = "my-service"`']
    environments = _environments(table.get("environments"), root, problems)
    allow = allowances(table.get("allow", []), problems)
    requests: tuple[RequestSpec, ...] = ()
    try:
        requests = parse_requests(table.get("requests", []))
    except UsageError as error:
        problems += error.problems
    read = {**table, "environments": environments, "requests": requests, "allow": allow}
    project = read_table(Project, read, "pyproject.toml [tool.slipway]", problems, root=root, name=name)
    if project is None or problems:
        raise UsageError(*problems)
    return project


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


def _environments(tables: object, root: Path, problems: list[str]) -> dict[str, Environment]:
    if not isinstance(tables, dict) or not tables:
        problems.append("pyproject.toml: no [tool.slipway.environments.NAME] table; add one, `local` for a start")
        return {}
    good = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            problems.append(f"pyproject.toml [tool.slipway.environments] {name}: must be a table")
            continue
        where = f"pyproject.toml [tool.slipway.environments.{name}]"
        kind = KINDS.get(str(table.get("target")), Environment)
        # Without a valid target it is not known whether these belong there.
        left_out = {"replicas", *ON_KUBERNETES} if kind is Environment else set()
        entries = {key: value for key, value in table.items() if key not in left_out}
        good[name] = read_table(kind, entries, where, problems, context=root, name=name)
        if not NAME.fullmatch(name):
            problems.append(f"{where}: a name is letters, digits, - and _, for example `staging`: rename it")
        source, others = table.get("promote_from"), [one for one in tables if one != name]
        if isinstance(source, str) and source not in others:
            problems.append(f"{where}: promote_from: `{source}` is not another environment: {there_is(source, others)}")
    return {name: env for name, env in good.items() if env}
