"""Who is told of alerts: the configuration of Alertmanager, made from the settings of `.env`; on Kubernetes, a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from pipeline.config.tables import there_is

__all__ = ["alertmanager_config", "receiver_problems", "route_problems", "unheard"]

FILE = "monitoring/kubernetes/alertmanager.yaml"

PEOPLE, HEARTBEAT, NOBODY = "people", "heartbeat", "nobody"
MAIL = ("ALERT_EMAIL_TO", "ALERT_EMAIL_FROM", "ALERT_SMTP_HOST")
HOST_PORT = re.compile(r"[^\s:/]+:\d{1,5}")
ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")
HEAD = "# Made by a deploy from the ALERT_… settings: docs/14-monitoring.md.\n"
# The same as in the alerts' own addresses: what it means, then what to do.
TEXT = (
    "{{ range .Alerts }}{{ .Status }}: {{ .Labels.alertname }}: {{ .Annotations.summary }}\n"
    "{{ .Annotations.runbook_url }}\n{{ end }}"
)


def alertmanager_config(settings: Mapping[str, str]) -> str:
    """Return Alertmanager's configuration for the `settings` of monitoring, valid ones. It holds secrets."""
    people = _people(settings)
    heartbeat = settings.get("ALERT_HEARTBEAT_URL")
    receivers: list[dict[str, Any]] = [{"name": PEOPLE, **people}, {"name": NOBODY}]
    receivers += [{"name": HEARTBEAT, "webhook_configs": [_webhook(heartbeat, resolved=False)]}] if heartbeat else []
    config = {
        "route": {
            "receiver": PEOPLE,
            "group_by": ["alertname", "namespace", "environment"],
            "group_wait": "10s",
            "group_interval": "1m",
            "repeat_interval": "24h",
            "routes": [
                {
                    "matchers": ['alertname="Watchdog"'],
                    "receiver": HEARTBEAT if heartbeat else NOBODY,
                    "group_wait": "0s",
                    "group_interval": "1m",
                    "repeat_interval": "5m",
                },
                {"matchers": ['severity="none"'], "receiver": NOBODY},
                {"matchers": ['severity="page"'], "receiver": PEOPLE, "repeat_interval": "1h"},
            ],
        },
        "receivers": receivers,
    }
    return HEAD + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _people(settings: Mapping[str, str]) -> dict[str, Any]:
    """Return the ways to people that are set, as a receiver has them."""
    ways: dict[str, Any] = {}
    if url := settings.get("ALERT_WEBHOOK_URL"):
        ways["webhook_configs"] = [_webhook(url)]
    if url := settings.get("ALERT_SLACK_URL"):
        title = "{{ .Status }}: {{ .CommonLabels.alertname }}"
        ways["slack_configs"] = [{"api_url": url, "send_resolved": True, "title": title, "text": TEXT}]
    if settings.get("ALERT_EMAIL_TO"):
        to, sender, host = (settings.get(name, "") for name in MAIL)
        user, password = (settings.get(f"ALERT_SMTP_{name}", "") for name in ("USER", "PASSWORD"))
        login = {"auth_username": user, "auth_password": password} if user else {}
        mail = {"to": to, "from": sender, "smarthost": host, **login, "send_resolved": True, "html": "", "text": TEXT}
        ways["email_configs"] = [mail]
    return ways


def _webhook(url: str, *, resolved: bool = True) -> dict[str, Any]:
    return {"url": url, "send_resolved": resolved}


def unheard(settings: Mapping[str, str]) -> str | None:
    """Return what to do where alerts reach nobody, as a line; None where they reach somebody."""
    if _people(settings):
        return None
    return (
        "alerts reach nobody: set ALERT_WEBHOOK_URL, ALERT_SLACK_URL or ALERT_EMAIL_TO in .env"
        " (docs/14-monitoring.md, Receivers)"
    )


def receiver_problems(settings: Mapping[str, str]) -> list[str]:
    """Return what is wrong with `settings`, one line each with its fix, and without the value: it may be secret."""
    return list(_problems(settings))


def route_problems(root: Path) -> list[str]:
    """Return what is wrong with the receivers of the configuration for Kubernetes below `root`, one line each."""
    path = root / FILE
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {"receivers": [], "route": {}}
        names = [receiver["name"] for receiver in config["receivers"]]
        asked = list(_receivers(config["route"]))
    except yaml.YAMLError as error:
        return [f"{FILE}: not valid YAML: {' '.join(str(error).split())}"]
    except (AttributeError, KeyError, TypeError):
        return [f"{FILE}: must have a table `route` and a list `receivers` of tables, each with a `name`"]
    return [f"{FILE}: route: no receiver `{name}`: {there_is(name, names)}" for name in asked if name not in names]


def _receivers(route: Mapping[str, Any]) -> Iterator[str]:
    """Yield the receivers that `route` and those below it name."""
    if "receiver" in route:
        yield route["receiver"]
    for one in route.get("routes", ()):
        yield from _receivers(one)


def _problems(settings: Mapping[str, str]) -> Iterator[str]:
    for name in ("ALERT_WEBHOOK_URL", "ALERT_SLACK_URL", "ALERT_HEARTBEAT_URL"):
        if (url := settings.get(name)) and not _is_url(url):
            yield f"{name}: must be the address of a web server, such as https://alerts.example.org/hook"
    mail = {name: settings.get(name, "") for name in MAIL}
    if any(mail.values()):
        yield from (
            f"{name}: is not set, and the other settings of mail are: set it too" for name in mail if not mail[name]
        )
    for name in ("ALERT_EMAIL_TO", "ALERT_EMAIL_FROM"):
        if mail[name] and not ADDRESS.fullmatch(mail[name]):
            yield f"{name}: must be an address of mail, such as on-call@example.org"
    if mail["ALERT_SMTP_HOST"] and not HOST_PORT.fullmatch(mail["ALERT_SMTP_HOST"]):
        yield "ALERT_SMTP_HOST: must be HOST:PORT, such as mail.example.org:587"
    if settings.get("ALERT_SMTP_PASSWORD") and not settings.get("ALERT_SMTP_USER"):
        yield "ALERT_SMTP_USER: is not set, and ALERT_SMTP_PASSWORD is: set it too"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
