"""The variables that the schemas of the settings declare.

`backend.settings` and `backend.backups.settings` are the only schemas, and this module the only one of the pipeline
that reads them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError

__all__ = [
    "BACKUPS",
    "COMPOSE_IMAGES",
    "MONITORING",
    "Variable",
    "backup_variables",
    "documented",
    "schema_of",
    "variables",
]

BACKUPS = "backend.backups.settings"


@dataclass(frozen=True)
class Variable:
    """One setting: its environment variable, its meaning, and its default as written in `.env`.

    `generate`: `nox -s init` makes this secret. `needed`: outside development, no process starts without it.
    """

    name: str
    section: str
    description: str
    default: str
    secret: bool = False
    generate: bool = False
    needed: bool = False


def _image(name: str, store: str) -> Variable:
    text = f"Image of {store} on compose, for example from a mirror; if unset, the one in docker-compose.yml."
    return Variable(name, section="compose", description=text, default="")


# docker-compose.yml reads these; the service does not.
COMPOSE_IMAGES = (_image("POSTGRES_IMAGE", "PostgreSQL"), _image("REDIS_IMAGE", "Redis"))


def _watching(name: str, text: str, default: str = "", *, secret: bool = False) -> Variable:
    return Variable(name, section="monitoring", description=text, default=default, secret=secret)


def _page(name: str, what: str, port: str) -> Variable:
    return _watching(name, f"Port of {what} on 127.0.0.1 of the host, with the profile monitoring.", port)


# docker/compose.monitoring.yml reads these, and the deploy to it; the service does not.
MONITORING = (
    _watching("COMPOSE_PROFILES", "monitoring: a deploy to compose runs what watches the service beside it."),
    _page("PROMETHEUS_PORT", "Prometheus", "9090"),
    _page("ALERTMANAGER_PORT", "Alertmanager", "9093"),
    _page("GRAFANA_PORT", "Grafana", "3001"),
    _page("LOGS_PORT", "VictoriaLogs", "9428"),
    _page("TRACES_PORT", "Jaeger", "16686"),
    _watching("ALERT_WEBHOOK_URL", "Address that Alertmanager posts alerts to, as JSON.", secret=True),
    _watching("ALERT_SLACK_URL", "Address of an incoming webhook of Slack, for alerts.", secret=True),
    _watching("ALERT_EMAIL_TO", "Address that alerts are mailed to; needs ALERT_EMAIL_FROM and ALERT_SMTP_HOST."),
    _watching("ALERT_EMAIL_FROM", "Address that alerts are mailed from."),
    _watching("ALERT_SMTP_HOST", "HOST:PORT of the server that mails alerts; it must offer TLS."),
    _watching("ALERT_SMTP_USER", "Who logs in there; unset: nobody does."),
    _watching("ALERT_SMTP_PASSWORD", "Password of that user.", secret=True),
    _watching(
        "ALERT_HEARTBEAT_URL",
        "Address that is posted to every 5 minutes while alerts would arrive: let it call you when that ends.",
        secret=True,
    ),
)


def variables() -> list[Variable]:
    """Return every setting of the service, in the order of the class."""
    return _variables(schema_of().Settings)


def backup_variables() -> list[Variable]:
    """Return every setting of the backups, in the order of the class."""
    return _variables(schema_of(BACKUPS).BackupSettings)


def _variables(fields: Any) -> list[Variable]:
    settings = []
    for name, field in fields.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        settings.append(
            Variable(
                name=name.upper(),
                section=str(extra.get("section", "")),
                description=field.description or "",
                default=_written(field.default),
                secret="SecretStr" in str(field.annotation),
                generate=bool(extra.get("generate")),
                needed=bool(extra.get("needed")),
            )
        )
    return settings


def documented() -> list[Variable]:
    """Return all settings that `.env` may contain."""
    return [*variables(), *COMPOSE_IMAGES, *MONITORING, *backup_variables()]


def schema_of(module: str = "backend.settings") -> Any:
    """Import the schema `module`. Raise `UsageError` if the working tree's is broken."""
    # Imported only when it is needed, so that a broken tree gets one line and not a traceback.
    try:
        return importlib.import_module(module)
    except Exception as error:  # a half-saved module may raise anything
        raise UsageError(
            f"{module.replace('.', '/')}.py cannot be imported: {type(error).__name__}: {error}; fix it first"
        ) from error


def _written(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default)
