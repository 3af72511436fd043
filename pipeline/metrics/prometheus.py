"""What a Prometheus, or what has its HTTP API, knows of the service: rates of its metrics, and alerts."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2

from pipeline.errors import SlipwayError
from pipeline.metrics.rates import DURATIONS, PROBED, REQUESTS, Rates, Series
from pipeline.system.hosts import leads_here

__all__ = ["TOKEN", "WINDOW_SECONDS", "Alert", "Fetch", "Prometheus", "PrometheusError", "questions", "reachable"]

TOKEN = "PROMETHEUS_TOKEN"  # noqa: S105 - the name of a variable
# Two scrapes are in it for whoever scrapes each minute, which is the slowest that is usual.
WINDOW_SECONDS = 120
WATCHED = "release:requests:increase2m"  # of monitoring/rules/service.yaml
ALERTS = "/api/v1/alerts"
TIMEOUT = httpx2.Timeout(3, connect=2)
WHOLE_SECONDS, MOST_BYTES = 5.0, 8 * 2**20  # of an answer
SAID = 200  # characters of what it says itself
WATCHDOG = "Watchdog"  # fires always: its silence is what says something, and not here
Fetch = Callable[[str], tuple[int, bytes]]  # of a path with its query: the status and the body of the answer


class PrometheusError(SlipwayError):
    """Prometheus could not be asked, or did not answer as it does: one line, never with the token."""


@dataclass(frozen=True)
class Alert:
    """An alert that is firing or pending; `since` is RFC 3339.

    `release` is the one that it is about, None where it is about none; `rollback`: it is a reason to go back.
    """

    name: str
    state: str
    severity: str
    summary: str
    since: str | None
    runbook: str | None
    release: str | None = None
    rollback: bool = False


class Prometheus:
    """The one at `address`; `token` is sent over https alone, `namespace` leaves out what is of others in a cluster.

    `fetch` asks in the place of this machine. Each method raises `PrometheusError` where it cannot be asked.
    """

    def __init__(
        self, address: str, *, token: str | None = None, namespace: str | None = None, fetch: Fetch | None = None
    ) -> None:
        self.address, self.namespace = address.rstrip("/"), namespace
        self._fetch = fetch or self._fetch_here
        secure = address.startswith("https:")
        self._client = httpx2.Client(
            timeout=TIMEOUT,
            trust_env=secure and not leads_here(address),  # the environment's proxy is for what is elsewhere,
            verify=httpx2.create_ssl_context(trust_env=secure),  # and its authorities are for all
            limits=httpx2.Limits(max_keepalive_connections=0),
        )
        self._headers = {"Authorization": f"Bearer {token}"} if token and secure else {}

    def rates(self) -> Rates:
        """Return what was answered over the last two minutes."""
        return Rates(
            self._series(REQUESTS, "release, traffic, status"), self._series(DURATIONS, "release, le"), WINDOW_SECONDS
        )

    def alerts(self) -> tuple[Alert, ...]:
        """Return the alerts, without the one that fires always; those that fire come first."""
        found = self._list(ALERTS, "alerts")
        try:
            alerts = [_alert(one) for one in found if self._is_ours(one.get("labels") or {})]
        except (AttributeError, TypeError):
            raise self._strange() from None
        return tuple(sorted(alerts, key=lambda alert: (alert.state != "firing", alert.name)))

    def watched(self, release: str) -> float:
        """Return how many requests `release` answered over the last two minutes, by the rules of monitoring/rules."""
        found = self._list(_requests_of(release, self.namespace), "result")
        try:
            counted = sum(float(one["value"][1]) for one in found)
        except (LookupError, TypeError, ValueError):
            raise self._strange() from None
        return counted if math.isfinite(counted) else 0.0

    def _is_ours(self, labels: Mapping[str, str]) -> bool:
        elsewhere = self.namespace and labels.get("namespace") not in (None, "", self.namespace)
        return labels.get("alertname") != WATCHDOG and not elsewhere

    def _series(self, metric: str, labels: str) -> tuple[Series, ...]:
        chosen = [f'route!~"{"|".join(PROBED)}"', *_of_namespace(self.namespace)]
        found = self._list(
            _query(f"sum by ({labels}) (rate({metric}{{{', '.join(chosen)}}}[{WINDOW_SECONDS}s]))"), "result"
        )
        try:
            rates = [({"le": "inf", **one["metric"]}, float(one["value"][1])) for one in found]
            [float(labels["le"]) for labels, _ in rates]
        except (LookupError, TypeError, ValueError):
            raise self._strange() from None
        return tuple((named, rate) for named, rate in rates if math.isfinite(rate))

    def _list(self, question: str, key: str) -> Sequence[Any]:
        """Ask a `question`, a path with its query, and return the list of objects below `key` of the data."""
        try:
            document = json.loads(self._ask(question))
        except ValueError:
            raise self._strange() from None
        data = document.get("data") if isinstance(document, dict) else None
        found = data.get(key) if isinstance(data, dict) else None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._strange()
        return found

    def _ask(self, question: str) -> bytes:
        """Return the body of the answer."""
        try:
            status, body = self._fetch(question)
        except PrometheusError:
            raise
        except SlipwayError as error:
            raise self._error(error.problems[0]) from None
        if status != httpx2.codes.OK:
            raise self._error(f"answers {status}{_why(status, body, bool(self._headers))}")
        return body

    def _fetch_here(self, question: str) -> tuple[int, bytes]:
        until, body = time.monotonic() + WHOLE_SECONDS, b""
        try:
            with self._client.stream("GET", f"{self.address}{question}", headers=self._headers) as answer:
                for chunk in answer.iter_bytes():
                    body += chunk
                    if time.monotonic() > until or len(body) > MOST_BYTES:
                        raise self._error("does not come to an end with its answer")
        except httpx2.TimeoutException:
            raise self._error("did not answer in time") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._error(f"does not answer: {str(error).splitlines()[0] if str(error) else error!r}") from None
        except UnicodeEncodeError:
            raise PrometheusError(f"{TOKEN}: contains characters that are not allowed in a token") from None
        return answer.status_code, body

    def _strange(self) -> PrometheusError:
        return self._error("answers, but not as a Prometheus does: is the address right?")

    def _error(self, what: str) -> PrometheusError:
        return PrometheusError(f"prometheus: {self.address} {what}")


def questions(release: str, namespace: str | None) -> tuple[str, ...]:
    """Return what `alerts` and `watched` ask of a Prometheus for `namespace`: paths with their queries."""
    return ALERTS, _requests_of(release, namespace)


def _requests_of(release: str, namespace: str | None) -> str:
    chosen = [f"release={json.dumps(release)}", *_of_namespace(namespace)]
    return _query(f"sum({WATCHED}{{{', '.join(chosen)}}})")


def _of_namespace(namespace: str | None) -> list[str]:
    return [f"namespace={json.dumps(namespace)}"] if namespace else []


def _query(expression: str) -> str:
    return f"/api/v1/query?{urlencode({'query': expression})}"


def _why(status: int, body: bytes, login: bool, /) -> str:
    """Return what may follow the `status` of a refusal: the fix, or what Prometheus says in its `body`."""
    if status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
        return f": it does not accept {TOKEN}" if login else f": set {TOKEN}, which is sent to an https address"
    try:
        said = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        return ""
    return f": {_line(said)}"


def _alert(found: Mapping[str, Any]) -> Alert:
    labels, words = found.get("labels") or {}, found.get("annotations") or {}
    return Alert(
        name=_line(labels.get("alertname")),
        state=_line(found.get("state")),
        severity=_line(labels.get("severity")),
        summary=_line(words.get("summary")),
        since=found.get("activeAt"),
        runbook=words.get("runbook_url"),
        release=labels.get("release"),
        rollback=labels.get("rollback") == "true",
    )


def _line(text: object) -> str:
    """Return what others wrote as one line that no terminal takes for a command."""
    shown = "".join(sign if sign.isprintable() else " " for sign in str(text or ""))
    return " ".join(shown.split())[:SAID]


def reachable(address: str | None, namespace: str | None, environ: Mapping[str, str] = os.environ) -> Prometheus | None:
    """Return the Prometheus at `address` if this machine can ask it: an http one of a cluster it cannot.

    `namespace` is the environment's on a cluster, None elsewhere; the token is that of `environ`.
    """
    if not address or (namespace and address.startswith("http:") and not leads_here(address)):
        return None
    return Prometheus(address, token=environ.get(TOKEN, "").strip() or None, namespace=namespace)
