"""The files that are generated from the settings schema, as a whole or between two marks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.config.managed import FILES, MIGRATORS, PASSWORDS
from pipeline.config.secrets import SECRET_FILES
from pipeline.config.settings import DECISIVE, PLACED, Variable, documented, env_text, service_secrets, variables
from pipeline.errors import SlipwayError

__all__ = ["SET_BY", "SET_FOR_BACKUPS", "derived_files", "filled"]

WRITE = "`nox -s settings -- --write`"

# What Kubernetes decides itself: name, value, and the comment in k8s/base/settings.env.
CLUSTER_FIXED = (
    ("RELEASE", "dev", "The target puts the release's name here."),
    ("POSTGRES_HOST", "postgres", "The Service of components/postgres; an overlay with a database outside names that."),
    ("POSTGRES_PORT", "5432", ""),
    ("REDIS_HOST", "redis", "The Service of components/redis."),
    ("REDIS_PORT", "6379", ""),
    ("BACKEND_HOST", "0.0.0.0", "The pod is the boundary."),  # noqa: S104 - within a pod
    ("BACKEND_PORT", "8000", ""),
    ("METRICS_PORT", "9090", ""),
    (
        "TRUSTED_PROXIES",
        "*",
        "Whoever connects: network.yaml lets in the edge and the vantage. With a load balancer before it: *,10.0.0.0/8",
    ),
)
# What each target sets for a replica, whatever `.env` says.
SET_BY = {
    "local": ("RELEASE", "POSTGRES_HOST", "POSTGRES_PORT", "REDIS_HOST", "BACKEND_HOST", "METRICS_PORT"),
    "compose": (
        *("RELEASE", "POSTGRES_HOST", "POSTGRES_PORT", "REDIS_HOST", "REDIS_PORT"),
        *("BACKEND_HOST", "BACKEND_PORT", "BACKEND_SOCKET", "METRICS_PORT"),
    ),
    "Kubernetes": tuple(name for name, _, _ in CLUSTER_FIXED),
}
# What each of them sets for the program of backups.
SET_FOR_BACKUPS = ("BACKUP_FOLDER", "BACKUP_KEEP", "POSTGRES_SUPERUSER")
# Longer than a change of endpoints takes to reach every edge: a second at rest, several behind a cloud load balancer.
CLUSTER_OTHER = {"DRAIN_SECONDS": "10"}


def derived_files(root: Path) -> dict[str, str]:
    """Return the text that each of the files should have, by its path below `root`.

    The files of a target that the service has removed (Compose, Kubernetes) are not made again. Raise `SlipwayError` if
    a file has lost its marks.
    """
    made = {".env.example": env_text(), "docs/settings.md": _settings_page()}
    for name, blocks in (("docker-compose.yml", _compose_blocks()), ("k8s/base/backend.yaml", _pod_blocks())):
        if (root / name).exists():
            text = (root / name).read_text(encoding="utf-8")
            for mark, lines in blocks.items():
                text = filled(name, text, mark, lines)
            made[name] = text
    if (root / "k8s/base").exists():
        made["k8s/base/settings.env"] = _kubernetes_text()
    return made


def _compose_blocks() -> dict[str, list[str]]:
    """Return the lines of docker-compose.yml: plain settings, the secrets of a replica, and where their files are."""
    names = [secret.name for secret in service_secrets()]
    stores = [name for name in FILES if name not in MIGRATORS]
    return {
        "settings": [f"{setting.name}: ${{{setting.name}:-{setting.default}}}" for setting in _plain()],
        "secrets": [f"- {name}" for name in (*names, *stores)],
        "secret files": [f'{name}: {{ file: "{SECRET_FILES}/{name}" }}' for name in (*names, *FILES)],
    }


def _pod_blocks() -> dict[str, list[str]]:
    """Return the lines of k8s/base/backend.yaml: which keys of the Secret the volume of the secrets contains."""
    service = next(setting.default for setting in variables() if setting.name == "PROJECT_NAME")

    def source(name: str, *, needed: bool) -> str:
        optional = "" if needed else "optional: true, "
        return f"- secret: {{name: {service}-secrets, {optional}items: [{{key: {name}, path: {name}}}]}}"

    # A URL has the password of its store. Which of them there must be, the plan knows.
    lines = [source(one.name, needed=one.needed and one.name not in PASSWORDS) for one in service_secrets()]
    lines += [source(name, needed=False) for name in FILES if name not in MIGRATORS]
    return {"secrets": lines}


def _plain() -> list[Variable]:
    """Return the settings that are not secret and that no target sets itself."""
    return [setting for setting in variables() if not setting.secret and setting.name not in PLACED]


def filled(name: str, text: str, mark: str, lines: Iterable[str]) -> str:
    """Return `text`, the content of the file `name`, with `lines` between the two comments that `mark` names."""
    first, last = f"# {mark}: made by {WRITE}", f"# {mark}: end"
    match = re.search(rf"^( *){re.escape(first)}\n(?:.*\n)*?\1{re.escape(last)}$", text, re.MULTILINE)
    if match is None:
        raise SlipwayError(f"{name} lacks the lines `{first}` and `{last}`: put them back, around the generated lines")
    block = "\n".join(f"{match[1]}{line}" for line in (first, *lines, last))
    return f"{text[: match.start()]}{block}{text[match.end() :]}"


def _kubernetes_text() -> str:
    """Return the text of k8s/base/settings.env: each plain setting of the service, and what Kubernetes decides."""
    lines = ["# Made from backend/settings.py by `nox -s settings -- --write`. An overlay merges what differs there."]
    for name, value, reason in CLUSTER_FIXED:
        lines += [f"# {reason}"] if reason else []
        lines.append(f"{name}={value}")
    fixed = {name for name, _, _ in CLUSTER_FIXED}
    others = [setting for setting in _plain() if setting.name not in fixed]
    lines += [f"{setting.name}={CLUSTER_OTHER.get(setting.name, setting.default)}" for setting in others]
    return "\n".join(lines) + "\n"


def _settings_page() -> str:
    """Return the text of docs/settings.md."""
    rows = []
    for setting in documented():
        targets = ", ".join(target for target, names in SET_BY.items() if setting.name in (*names, *SET_FOR_BACKUPS))
        rows.append(f"| `{setting.name}` | {_default(setting)} | {targets} | {setting.description} |")
    names = [f"`{name}`" for name in DECISIVE]
    return (
        "# Settings\n\nMade from `backend/settings.py` and `backend/backups/settings.py` by\n"
        "`nox -s settings -- --write`. Set them in `.env` or in the environment, which overrides `.env`; an empty\n"
        "value counts as unset. Each secret can also come from a file: `NAME_FILE=/path`, or a file `NAME` in\n"
        "`/run/secrets`.\n\n"
        f"{', '.join(names[:-1])} and {names[-1]} decide where the data is.\n"
        "Set these only in `.env`: a deploy on `local`, compose or kind refuses another value in the environment.\n"
        "Only when `.env` is created are they copied from the environment.\n\n"
        "`SLIPWAY_STATE`, in the environment alone, is an absolute path: records, releases, secrets, data and `.env`\n"
        "are kept there instead of in `.slipway` of the project. See [Deploying](1-deploying.md#where-the-state-is).\n"
        "`PROMETHEUS_TOKEN`, in the environment alone, is a bearer token for the `prometheus` of an environment; it\n"
        "is sent to an https address only. See [Watch it](1-deploying.md#watch-it).\n"
        "\nA target under *set by* sets the variable for each replica, or for the program of backups, itself,\n"
        "whatever `.env` says; on Kubernetes the overlay may say otherwise, and has the other plain settings. None\n"
        "sets host, port or superuser of a store that others manage.\n\n"
        "| variable | default | set by | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _default(variable: Variable) -> str:
    if variable.generate:
        return "made by `nox -s init`"
    if variable.needed:
        return "none, and needed outside development"
    return f"`{variable.default}`" if variable.default else "none"
