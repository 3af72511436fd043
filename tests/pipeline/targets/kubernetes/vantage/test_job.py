"""The second vantage: its script against a service that fails in known ways, its objects, what its view means."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from backend.metrics import Metrics
from pipeline.config.requests import parse_requests
from pipeline.targets.kubernetes.vantage import probe as vantage_probe
from pipeline.targets.kubernetes.vantage.job import View, compare_views, objects, view_of
from tests.pipeline.proof.servers import HANG, LIST, MAKE, Reply, Request, Service
from tests.pipeline.targets.kubernetes.vantage.scripts import starting
from tests.played import serving

IMAGE = f"localhost:5001/slipway@sha256:{'1' * 64}"
READ = {"name": "list", "path": "/things", "status": 200, "weight": 1, "headers": {"Accept-Language": "en"}}


@pytest.fixture(name="service")
def _service() -> Iterator[Service]:
    service = Service()
    service.start()
    yield service
    service.stop()


@pytest.fixture(name="start")
def _start(tmp_path: Path, service: Service) -> Iterator[Any]:
    """Starts the script as the Job does; what is given changes its orders."""
    with starting(vantage_probe.__file__, tmp_path / "job.json") as start:
        job = {"url": service.url, "rate": 100, "seconds": 0.25, "timeout": 0.5, "warm_up": 2, "requests": [READ]}
        yield lambda **orders: start({**job, **orders})


def seen(process: subprocess.Popen[str]) -> View:
    """The view that it ends with."""
    log, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    return view_of(log)


class TestProbe:
    def test_counts_right_answers_by_release(self, start: Any, service: Service) -> None:
        """Each over a connection of its own; what warmed up is not counted."""
        view = seen(start())
        assert (view.sent, view.ok, view.failed, dict(view.by_release)) == (25, 25, 0, {"new": 25})
        assert len({request.connection for request in service.requests}) == len(service.requests) == 26
        assert 0 < view.latency_ms["p50"] <= view.latency_ms["max"]
        assert 0.2 < view.finished - view.started < 5

    @pytest.mark.parametrize(
        ("reply", "kind", "detail"),
        [
            (Reply(503, {"title": "no database"}), "5xx", '503 {"title": "no database"}'),
            (Reply(404), "status", "404"),
            (Reply(200, {"items": []}, cut=20), "reset", "the connection broke before the answer was whole"),
            (Reply(200, {"items": []}, cut=60), "reset", "the connection broke before the answer was whole"),
            (Reply(200, cut=0), "reset", "the connection broke before the answer was whole"),
            (HANG, "timeout", "no answer within 0.5 s"),
        ],
        ids=["5xx", "another status", "headers cut", "body cut", "nothing", "no answer"],
    )
    def test_names_what_went_wrong(self, start: Any, service: Service, reply: Reply, kind: str, detail: str) -> None:
        """Every fifth request fails; the first examples say when, what and how."""
        service.behave = lambda _, request: reply if request.number % 5 == 4 else None
        view = seen(start())
        assert (view.sent, view.failed, dict(view.failures)) == (25, 5, {kind: 5})
        first = view.examples[0]
        assert (first["request"], first["path"]) == ("list", "/things")
        assert first["status"] == (reply.status if kind in ("5xx", "status") else None)
        assert first["detail"].startswith(detail)
        assert len(view.times) == 5
        assert all(view.started - 1 < begin <= end < view.finished + 1 for begin, end in view.times)

    def test_sends_when_it_is_due_whatever_hangs(self, start: Any, service: Service) -> None:
        """Twenty requests that are never answered are still sent in a second: the model is open."""
        service.behave = lambda _, request: HANG if request.number else None
        began = time.monotonic()
        view = seen(start(rate=20, seconds=1, timeout=0.8))
        assert dict(view.failures) == {"timeout": 20}
        assert time.monotonic() - began < 4

    def test_counts_a_service_that_is_away(self, start: Any, service: Service) -> None:
        """Nothing listens: no first answer came, and then each is counted."""
        service.refuse()
        process = start(warm_up=0.3)
        log, _ = process.communicate(timeout=20)
        assert json.loads(log.splitlines()[0])["ready"] is False
        assert dict(view_of(log).failures) == {"refused": 25}

    def test_counts_a_name_that_is_none_apart(self, start: Any) -> None:
        """It is the cluster's DNS that lost it, and not the service."""
        view = seen(start(url="http://no-such-service.invalid:8000", warm_up=0.1, rate=5, seconds=0.4, timeout=5))
        assert dict(view.failures) == {"dns": 2}
        assert compare_views(1, 100, view).startswith(
            "the cluster’s DNS lost it: 2 of 2 failed inside the cluster, too"
        )

    def test_does_not_count_until_it_is_let_in(self, start: Any, service: Service) -> None:
        """A network policy takes a moment to open the way."""
        service.behave = lambda _, request: Reply(503) if request.number < 3 else None
        process = start()
        log, _ = process.communicate(timeout=20)
        assert json.loads(log.splitlines()[0])["ready"] is True
        assert view_of(log).failed == 0

    def test_tells_what_it_saw_when_it_is_ended(self, start: Any, service: Service) -> None:
        """SIGTERM, as of a Job that is deleted: it waits for what is under way, and says it all."""
        process = start(seconds=60)
        assert process.stdout
        assert json.loads(process.stdout.readline())["ready"]
        wait = time.monotonic() + 5
        while len(service.requests) < 10 and time.monotonic() < wait:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        view = seen(process)
        assert 9 <= view.ok == len(service.requests) - 1
        assert view.failed == 0

    def test_is_known_as_the_proof_is(self, start: Any, service: Service, tmp_path: Path) -> None:
        """Synthetic, with the token, each request with an id of its own."""
        (tmp_path / "token").write_text("secret-token\n")
        service.behave = lambda *_: Reply(200)
        seen(start(token_file=str(tmp_path / "token"), requests=[{**READ, "path": "/things?q={unique}"}]))
        sent: list[Request] = service.requests
        assert {request.headers["authorization"] for request in sent} == {"Bearer secret-token"}
        assert {request.headers["slipway-synthetic"] for request in sent} == {"true"}
        assert {request.headers["accept-language"] for request in sent} == {"en"}
        assert (
            len({request.headers["x-request-id"] for request in sent}) == len({request.path for request in sent}) == 26
        )

    def test_mixes_requests_by_weight(self, start: Any, service: Service) -> None:
        """Three of one for one of the other, at any time."""
        service.behave = lambda *_: Reply(200)
        seen(start(rate=80, requests=[{**READ, "weight": 3}, {**READ, "path": "/other"}]))
        paths = [request.path for request in service.requests[1:]]
        assert paths.count("/other") == 5
        assert paths[:4].count("/other") == 1

    @pytest.mark.parametrize(
        ("body", "whole"), [(b"3\r\nabc\r\n0\r\n\r\n", True), (b"3\r\nabc\r\n", False), (b"3\r\na", False)]
    )
    def test_reads_an_answer_in_chunks(self, body: bytes, *, whole: bool) -> None:
        """A proxy may send it so; one that ends early is no answer."""
        content = b"HTTP/1.1 200 OK\r\nX-Release: r\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        if whole:
            assert vantage_probe._parsed(content) == (200, "r", b"abc")
        else:
            with pytest.raises(vantage_probe.RequestFailed, match="before the answer was whole"):
                vantage_probe._parsed(content)


class TestMetrics:
    def test_counts_the_errors_of_people(self) -> None:
        """In what the service's own metrics say; what the kubelet is told while it drains is none of theirs."""
        metrics = Metrics("r")
        for route, status in (
            ("/things", 200),
            ("/things/{id}", 503),
            ("/things", 500),
            ("/ready", 503),
            ("/things", 404),
        ):
            metrics.observe("GET", route, status, 0.01, synthetic=False)
        metrics.observe("GET", "/things", 503, 0.01, synthetic=True)
        assert vantage_probe.errors_in(generate_latest(metrics.registry).decode()) == 3

    @pytest.mark.parametrize(
        ("line", "errors"),
        [
            ('http_requests_total{handler="/things",method="GET",status="5xx"} 4.0', 4),
            ('http_server_requests_total{code="502"} 2', 2),
            ('http_requests_total{code="200",build="500"} 9', 0),
            ('http_request_duration_seconds_count{status="500"} 9', 0),
            ("# HELP http_requests_total Requests.", 0),
        ],
    )
    def test_knows_how_others_name_them(self, line: str, errors: int) -> None:
        """A counter of requests with a status."""
        assert vantage_probe.errors_in(line) == errors

    def test_says_what_each_address_has_counted(self, start: Any, service: Service) -> None:
        """As often as it was told, beside its requests; whoever does not answer is left out."""
        with serving(lambda *_: (200, {}, b'http_requests_total{status="500"} 7\n')) as port:
            service.behave = lambda _, request: Reply(503) if request.number % 5 == 4 else None
            told = {"host": "127.0.0.1", "port": port, "every": 0.1}
            log, _ = start(seconds=0.5, metrics=told).communicate(timeout=20)
        lines = [json.loads(line) for line in log.splitlines() if '"errors"' in line]
        assert len(lines) >= 3
        assert lines[-1] == {"errors": {"127.0.0.1": 7}, "own": lines[-1]["own"]}
        assert 0 <= lines[0]["own"] < lines[-1]["own"] <= 10
        away, _ = start(seconds=0.3, metrics={"host": "127.0.0.1", "port": 1, "every": 0.1}).communicate(timeout=20)
        assert json.loads(away.splitlines()[1]) == {"errors": {}, "own": 0}


class TestObjects:
    def made(self, kind: str) -> list[dict[str, Any]]:
        return [
            one for one in objects(IMAGE, parse_requests([LIST, MAKE]), 90.5, "shop-secrets") if one["kind"] == kind
        ]

    def test_sends_the_reads_of_the_table(self) -> None:
        """The script is the one that is tested here; a write would need somebody to remove it."""
        (config,) = self.made("ConfigMap")
        assert config["data"]["probe.py"] == Path(vantage_probe.__file__).read_text()
        orders = json.loads(config["data"]["job.json"])
        assert [one["path"] for one in orders["requests"]] == ["/things"]
        assert (orders["url"], orders["rate"], orders["seconds"]) == ("http://backend:8000", 10, 90.5)

    def test_asks_for_readiness_where_the_table_has_no_read(self) -> None:
        """There is always something to ask."""
        config = next(
            one for one in objects(IMAGE, parse_requests([MAKE]), 9, "shop-secrets") if one["kind"] == "ConfigMap"
        )
        assert [one["path"] for one in json.loads(config["data"]["job.json"])["requests"]] == ["/ready"]

    def test_runs_as_restricted_pods_must(self) -> None:
        """Pod Security `restricted`, no account, one secret of all, an end of its own."""
        (job,) = self.made("Job")
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("backend", False)
        assert [one["key"] for one in pod["volumes"][1]["secret"]["items"]] == ["SERVICE_TOKEN"]
        assert job["spec"]["activeDeadlineSeconds"] == 151
        assert job["spec"]["backoffLimit"] == 0

    def test_is_given_the_token_that_old_pods_know_too(self) -> None:
        """While SERVICE_TOKEN is rotated, that is the previous one, in the file that the script reads."""
        made = objects(IMAGE, parse_requests([LIST]), 9, "shop-secrets", token="SERVICE_TOKEN_PREVIOUS")
        orders = next(json.loads(one["data"]["job.json"]) for one in made if one["kind"] == "ConfigMap")
        (job,) = (one for one in made if one["kind"] == "Job")
        (item,) = job["spec"]["template"]["spec"]["volumes"][1]["secret"]["items"]
        assert item == {"key": "SERVICE_TOKEN_PREVIOUS", "path": "SERVICE_TOKEN"}
        assert orders["token_file"] == "/run/secrets/SERVICE_TOKEN"

    def test_opens_two_ways_and_no_other(self) -> None:
        """From the vantage to the service, its metrics and DNS; nobody reaches the vantage."""
        own, lets_in = self.made("NetworkPolicy")
        assert own["spec"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "vantage"}
        assert own["spec"]["ingress"] == []
        assert [[port["port"] for port in rule["ports"]] for rule in own["spec"]["egress"]] == [[8000, 9090], [53, 53]]
        assert [port["port"] for port in lets_in["spec"]["ingress"][0]["ports"]] == [8000, 9090]
        assert lets_in["spec"]["ingress"][0]["from"][0]["podSelector"] == own["spec"]["podSelector"]


class TestViewOf:
    @pytest.mark.parametrize(
        ("log", "problem"),
        [
            ("", "it said nothing: did its pod start?"),
            ('{"ready": true, "at": 1}\n', "it ended before it could tell what it saw"),
            (
                "Traceback\nFileNotFoundError: /run/secrets/SERVICE_TOKEN\n",
                "FileNotFoundError: /run/secrets/SERVICE_TOKEN",
            ),
        ],
    )
    def test_says_why_there_is_none(self, log: str, problem: str) -> None:
        """A killed pod, a script that broke."""
        assert view_of(log) == View(problem=problem)
        assert compare_views(3, 100, view_of(log)) == f"the view from inside the cluster is missing: {problem}"


class TestJudge:
    GOOD = View(sent=900, ok=900, by_release={"new": 900})

    def test_says_that_the_edge_lost_it(self) -> None:
        """As many as failed outside would have shown inside."""
        said = compare_views(120, 18000, self.GOOD)
        assert said == "the edge lost it: the same release answered 900 requests inside the cluster without a failure"

    def test_does_not_say_so_of_a_few(self) -> None:
        """Three of 18000 would hardly show among 900."""
        said = compare_views(3, 18000, self.GOOD)
        assert said.startswith("the edge may have lost it: ")
        assert said.endswith("but 3 of 18000 would be 0.1 there")

    def test_says_that_the_service_lost_it(self) -> None:
        """With the first example."""
        example = {"at": 1.0, "path": "/things", "detail": "503 no database"}
        inside = View(sent=900, ok=890, failed=10, failures={"5xx": 10}, examples=[example])
        assert compare_views(120, 18000, inside) == (
            "the service lost it: 10 of 900 failed inside the cluster, too: 10 × 5xx"
            " (first: GET /things → 503 no database)"
        )

    def test_has_the_good_word_too(self) -> None:
        """Nothing failed anywhere."""
        assert compare_views(0, 18000, View(sent=9, ok=9, by_release={"a": 4, "b": 5})) == (
            "the same releases answered 9 requests inside the cluster without a failure"
        )
