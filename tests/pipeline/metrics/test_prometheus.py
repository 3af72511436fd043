"""What is asked of a Prometheus: a real one where there is one, and everything that may answer instead."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.metrics.prometheus import Alert, Prometheus, PrometheusError, reachable
from pipeline.system.hosts import leads_here
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from tests.certificates import certificates
from tests.played import Answer, serving

PROMETHEUS = shutil.which("prometheus")
STARTS_SECONDS = 60
CONFIG = """
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [RULES]
scrape_configs: [{ job_name: backend, static_configs: [{ targets: ["127.0.0.1:PORT"] }] }]
"""
RULES = """
groups:
  - name: tests
    rules:
      - { alert: Watchdog, expr: vector(1) }
      - record: release:requests:increase2m
        expr: sum by (release) (increase(http_requests_total{route!="/ready"}[2m]))
      - { alert: Waiting, expr: vector(1), for: 1h, labels: { severity: ticket } }
      - alert: Failing
        expr: vector(1)
        labels: { severity: page, rollback: "true", release: v1 }
        annotations: { summary: "two\\nlines", runbook_url: "https://example.com/runbook" }
"""
PAGE = """
http_requests_total{{method="GET",route="/a",status="200",release="v1",traffic="user"}} {good}
http_requests_total{{method="GET",route="/a",status="500",release="v1",traffic="synthetic"}} {bad}
http_requests_total{{method="GET",route="/ready",status="503",release="v1",traffic="user"}} {good}
http_request_duration_seconds_bucket{{route="/a",release="v1",le="0.1"}} {bad}
http_request_duration_seconds_bucket{{route="/a",release="v1",le="0.2"}} {good}
http_request_duration_seconds_bucket{{route="/a",release="v1",le="+Inf"}} {good}
"""


@pytest.fixture(name="real", scope="module")
def _real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that scrapes a service with 30 requests a second that are well, and 10 that fail."""
    if not PROMETHEUS:
        pytest.skip("no prometheus here: apt-get install prometheus")
    folder, port, began = tmp_path_factory.mktemp("prometheus"), free_port(), time.monotonic()

    def answer(*_: object) -> Answer:
        passed = time.monotonic() - began
        page = PAGE.format(good=100 + 30 * passed, bad=10 * passed)
        return 200, {"Content-Type": "text/plain; version=0.0.4"}, page.encode()

    with serving(answer) as service:
        (folder / "rules.yml").write_text(RULES)
        config = CONFIG.replace("RULES", str(folder / "rules.yml")).replace("PORT", str(service))
        (folder / "prometheus.yml").write_text(config)
        command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        with held([*command, f"--web.listen-address=127.0.0.1:{port}"], log=folder / "log"):
            prometheus = Prometheus(f"http://127.0.0.1:{port}/")
            for _ in range(STARTS_SECONDS * 5):
                try:
                    if prometheus.rates().requests and len(prometheus.alerts()) > 1 and prometheus.watched("v1"):
                        break
                except PrometheusError:
                    pass  # it starts
                time.sleep(0.2)
            else:
                raise AssertionError((folder / "log").read_text()[-3000:])
            yield prometheus


class TestReal:
    def test_has_the_rates(self, real: Prometheus) -> None:
        """By release, status and traffic, without health checks; the latency is out of the same buckets."""
        rates = real.rates()
        traffic = rates.traffic()
        assert (rates.releases, rates.seconds) == (("v1",), 120)
        assert traffic.requests / traffic.errors == pytest.approx(4, 0.2)
        assert traffic.synthetic == traffic.errors
        assert traffic.p95
        assert 0.1 < traffic.p95 <= 0.2

    def test_has_the_alerts(self, real: Prometheus) -> None:
        """Those that fire come first; the one that always fires is left out."""
        failing, waiting = real.alerts()
        assert (failing.name, failing.state, failing.severity, failing.summary) == (
            *("Failing", "firing", "page", "two lines"),
        )
        assert (failing.runbook, waiting.name, waiting.state) == ("https://example.com/runbook", "Waiting", "pending")
        assert [(one.release, one.rollback) for one in (failing, waiting)] == [("v1", True), (None, False)]
        since = datetime.fromisoformat(failing.since or "")
        assert 0 <= (datetime.now(UTC) - since).total_seconds() < 600

    def test_has_the_requests_of_a_release(self, real: Prometheus) -> None:
        """None of one that it does not know, or that is another namespace's."""
        assert real.watched("v1") > 0
        assert real.watched('v"2') == 0
        assert Prometheus(real.address, namespace="shop").watched("v1") == 0

    def test_says_what_it_does_not_accept(self, real: Prometheus) -> None:
        """In its own words."""
        with pytest.raises(PrometheusError, match=r"answers 400: .*parse error"):
            Prometheus(real.address)._series("{", "release")

    def test_knows_nothing_of_another_namespace(self, real: Prometheus) -> None:
        """Its rates are those of others; an alert without a namespace is everybody's."""
        other = Prometheus(real.address, namespace='shop"')
        assert (other.rates().requests, len(other.alerts())) == ((), 2)


def asked(answer: bytes | Answer, *, token: str | None = None) -> tuple[Prometheus, list[str]]:
    """Ask what answers that for its alerts; return the problem, in a list."""
    whole = answer if isinstance(answer, tuple) else (200, {}, answer)
    with serving(lambda *_: whole) as port:
        prometheus = Prometheus(f"http://127.0.0.1:{port}", token=token)
        with pytest.raises(PrometheusError) as caught:
            prometheus.alerts()
    return prometheus, [line.replace(prometheus.address, "IT") for line in caught.value.problems]


def found(key: str, *entries: Any) -> bytes:
    return json.dumps({"status": "success", "data": {key: entries}}).encode()


STRANGE = "prometheus: IT answers, but not as a Prometheus does: is the address right?"


class TestWrong:
    @pytest.mark.parametrize(
        ("answer", "line"),
        [
            (b"<html>", STRANGE),
            (b"[]", STRANGE),
            (b'{"data": 3}', STRANGE),
            (found("alerts", 3), STRANGE),
            (found("alerts", {"labels": "no"}), STRANGE),
            ((401, {}, b""), "prometheus: IT answers 401: set PROMETHEUS_TOKEN, which is sent to an https address"),
            ((302, {"Location": "/login"}, b""), "prometheus: IT answers 302"),
            ((503, {}, b'{"error": "too\\n\\u001b[31mmany"}'), "prometheus: IT answers 503: too [31mmany"),
            ((200, {"Content-Length": "9"}, b"{"), "prometheus: IT did not answer in time"),
        ],
    )
    def test_says_each_wrong_answer_in_a_line(
        self, answer: bytes | Answer, line: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the address, and the fix where there is one."""
        monkeypatch.setattr("pipeline.metrics.prometheus.TIMEOUT", 0.3)
        assert asked(answer)[1] == [line]

    @pytest.mark.parametrize("series", [{}, {"metric": {"le": "x"}, "value": [0, "1"]}, {"metric": {}, "value": "x"}])
    def test_says_that_a_series_is_none(self, series: dict[str, Any]) -> None:
        """Rates that are no numbers are not taken for numbers."""
        with serving(lambda *_: (200, {}, found("result", series))) as port:
            with pytest.raises(PrometheusError, match="not as a Prometheus does"):
                Prometheus(f"http://127.0.0.1:{port}").rates()

    def test_says_that_nobody_listens(self) -> None:
        """Which is not for long."""
        with pytest.raises(PrometheusError, match=r"^prometheus: http://127.0.0.1:\d+ does not answer: .*refused"):
            Prometheus(f"http://127.0.0.1:{free_port()}").rates()

    def test_waits_for_no_answer_that_does_not_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A byte now and then is no answer."""
        monkeypatch.setattr("pipeline.metrics.prometheus.MOST_BYTES", 100)
        assert asked(b"[" * 1000)[1] == ["prometheus: IT does not come to an end with its answer"]

    def test_says_that_a_token_is_none(self) -> None:
        """Without the token."""
        with pytest.raises(PrometheusError, match=r"^PROMETHEUS_TOKEN: contains characters"):
            Prometheus("https://127.0.0.1:9", token="géheim").rates()


class TestAlerts:
    def test_leaves_out_those_of_other_namespaces(self) -> None:
        """In a cluster, one Prometheus watches many; what has no namespace may concern everybody."""
        names: tuple[tuple[str, dict[str, str]], ...]
        names = (("Ours", {"namespace": "shop"}), ("Theirs", {"namespace": "other"}), ("All", {}), ("Watchdog", {}))
        alerts = [{"labels": {"alertname": name, **labels}, "state": "firing"} for name, labels in names]
        with serving(lambda *_: (200, {}, found("alerts", *alerts))) as port:
            address = f"http://127.0.0.1:{port}"
            assert [one.name for one in Prometheus(address, namespace="shop").alerts()] == ["All", "Ours"]
            everybody = Prometheus(address).alerts()
        assert everybody[0] == Alert("All", "firing", "", "", None, None)
        assert [one.name for one in everybody] == ["All", "Ours", "Theirs"]


class Login:
    """A server that wants the token `right`."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def __call__(self, _: str, __: str, headers: Mapping[str, str], ___: bytes) -> Answer:
        self.seen.append(headers.get("Authorization"))
        return (200, {}, found("alerts")) if self.seen[-1] == "Bearer right" else (403, {}, b"")


class TestToken:
    def test_is_sent_over_https(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """To who has a certificate of an authority that is trusted; a wrong one is named, and not shown."""
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates(tmp_path)))
        with serving(Login(), certificates=tmp_path) as port:
            address = f"https://localhost:{port}"
            assert Prometheus(address, token="right").alerts() == ()
            with pytest.raises(PrometheusError, match=r"answers 403: it does not accept PROMETHEUS_TOKEN$"):
                Prometheus(address, token="wrong").alerts()
            monkeypatch.delenv("SSL_CERT_FILE")
            with pytest.raises(PrometheusError, match=r"does not answer: .*CERTIFICATE_VERIFY_FAILED"):
                Prometheus(address, token="right").alerts()

    def test_is_not_sent_in_the_clear(self) -> None:
        """Over http anybody on the way could read it."""
        login = Login()
        with serving(login) as port:
            with pytest.raises(PrometheusError, match="set PROMETHEUS_TOKEN, which is sent to an https address"):
                Prometheus(f"http://127.0.0.1:{port}", token="right").alerts()
        assert login.seen == [None]


class TestProxy:
    def test_of_the_environment_is_not_for_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor for an address without https."""
        monkeypatch.setitem(os.environ, "HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        with serving(lambda *_: (200, {}, found("alerts"))) as port:
            assert Prometheus(f"http://{socket.gethostbyname('localhost')}:{port}").alerts() == ()


@pytest.mark.parametrize("result", [[{"value": [1, "no"]}], [{"value": []}], [{}]])
def test_says_that_a_count_is_none(result: list[dict[str, Any]]) -> None:
    """One line."""
    with serving(lambda *_: (200, {}, found("result", *result))) as port:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        with pytest.raises(PrometheusError, match="answers, but not as a Prometheus does"):
            prometheus.watched("v1")


@pytest.mark.parametrize(
    ("address", "namespace", "can"),
    [
        (None, None, False),
        ("http://127.0.0.1:9090", None, True),
        ("http://prometheus.monitoring:9090", None, True),
        ("http://prometheus.monitoring:9090", "shop", False),
        ("http://127.0.0.1:9090", "shop", True),
        ("https://metrics.example.com", "shop", True),
    ],
)
def test_is_reachable_where_this_machine_can_ask_it(address: str | None, namespace: str | None, can: bool) -> None:
    """An http address of a cluster it cannot; who is asked gets the token."""
    prometheus = reachable(address, namespace, {"PROMETHEUS_TOKEN": " t "})
    assert (prometheus is not None) is can
    if prometheus:
        assert prometheus.namespace == namespace
        assert prometheus._headers == ({"Authorization": "Bearer t"} if prometheus.address[:6] == "https:" else {})


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:9090", True),
        ("http://[::1]:9090", True),
        ("http://localhost:9090/p", True),
        ("http://prometheus.monitoring:9090", False),
        ("https://10.0.0.1", False),
    ],
)
def test_knows_this_machine(address: str, here: bool) -> None:
    """By the address alone: nobody is asked for a name."""
    assert leads_here(address) is here
