"""What asks a Prometheus of the cluster: its script against one, its objects, and the Job as it runs."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.engines.kubectl import Refused
from pipeline.errors import SlipwayError
from pipeline.metrics.prometheus import Prometheus, PrometheusError, questions
from pipeline.system.ports import free_port
from pipeline.targets.kubernetes.fleet import KubernetesFleet
from pipeline.targets.kubernetes.vantage import asker, inquiry
from pipeline.targets.kubernetes.vantage.inquiry import LIFE_SECONDS, RENEW_SECONDS, Inquiry, objects
from tests.pipeline.proof.servers import Reply, Service
from tests.pipeline.targets.kubernetes.vantage.scripts import starting
from tests.played import Answer, serving

IMAGE = f"localhost:5001/slipway@sha256:{'1' * 64}"
ADDRESS = "http://prometheus.monitoring:9090"
ALERTS, COUNT = QUESTIONS = questions("v1", "shop")
FAILING = {"labels": {"alertname": "ReleaseFailing", "rollback": "true"}, "state": "firing"}
OTHER = {"labels": {"alertname": "DiskFilling", "severity": "ticket"}, "state": "firing"}
COUNTED = b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1.5,"620"]}]}}'


def data(**content: Any) -> bytes:
    return json.dumps({"status": "success", "data": content}).encode()


class TestAsker:
    @pytest.fixture(name="start")
    def _start(self, tmp_path: Path) -> Iterator[Any]:
        """Starts the script as the Job does; what is given changes its orders."""
        with starting(asker.__file__, tmp_path / "orders.json") as start:
            told = {"questions": QUESTIONS, "every": 0.1, "warm_up": 5}
            yield lambda address, **orders: start({"address": address, **told, **orders})

    @staticmethod
    def line(process: subprocess.Popen[str]) -> dict[str, Any]:
        """The answers of the next line."""
        assert process.stdout is not None
        answers: dict[str, Any] = json.loads(process.stdout.readline())["answers"]
        return answers

    def test_prints_what_is_answered_and_ends_with_sigterm(self, start: Any) -> None:
        """Again and again; of the alerts those that are a reason, below the path that the address has."""

        def answer(_: str, target: str, *__: object) -> Answer:
            assert target.startswith("/p/api/v1/")
            return 200, {}, data(alerts=[FAILING, OTHER]) if target.endswith("alerts") else COUNTED

        with serving(answer) as port:
            process = start(f"http://127.0.0.1:{port}/p/")
            first, second = self.line(process), self.line(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        assert first == second
        assert (first[ALERTS]["status"], json.loads(first[ALERTS]["body"])) == (200, {"data": {"alerts": [FAILING]}})
        assert first[COUNT] == {"status": 200, "body": COUNTED.decode()}

    def test_asks_again_before_it_says_that_nobody_answers(self, start: Any) -> None:
        """A network policy takes a moment to open the way."""
        service = Service(behave=lambda _, request: Reply(200, cut=0 if request.number < 3 else None))
        service.start()
        try:
            assert {one["status"] for one in self.line(start(service.url)).values()} == {200}
        finally:
            service.stop()
        away = self.line(start(f"http://127.0.0.1:{free_port()}", warm_up=0.2))
        assert {one["problem"].partition(" [")[0] for one in away.values()} == {"does not answer:"}
        assert "refused" in away[ALERTS]["problem"]

    def test_says_that_a_name_is_none(self, start: Any) -> None:
        """In a line of its own words."""
        [said] = self.line(start("http://prometheus.invalid:9090", questions=[ALERTS], warm_up=0)).values()
        assert said["problem"].startswith("does not answer: ")

    def test_gives_up_who_is_silent_or_says_too_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each in words."""
        monkeypatch.setattr(asker, "ANSWER_SECONDS", 0.2)
        monkeypatch.setattr(asker, "MOST_BYTES", 100)
        with serving(lambda *_: (200, {"Content-Length": "9"}, b"[")) as port:
            assert asker.ask(f"http://127.0.0.1:{port}", ALERTS) == {"problem": "did not answer in time"}
        with serving(lambda *_: (200, {}, b"[" * 101)) as port:
            said = {"problem": "does not come to an end with its answer"}
            assert asker.ask(f"http://127.0.0.1:{port}", ALERTS) == said

    @pytest.mark.parametrize("body", ["<html>", "[]", '{"data": 3}', '{"data": {"alerts": [3]}}', '{"error": "no"}'])
    def test_hands_on_what_is_no_list_of_alerts(self, body: str) -> None:
        """Who reads it says what is wrong; a long page is cut."""
        assert asker.brief(body) == body
        assert asker.brief("x" * 9999) == "x" * asker.SAID


class TestObjects:
    def made(self, kind: str, address: str = ADDRESS) -> Any:
        [one] = [one for one in objects("watch-abc", IMAGE, address, QUESTIONS) if one["kind"] == kind]
        return one

    def test_has_the_script_and_the_questions(self) -> None:
        """The script is the one that is tested here."""
        config = self.made("ConfigMap")["data"]
        assert config["asker.py"] == Path(asker.__file__).read_text()
        orders = json.loads(config["orders.json"])
        assert (orders["address"], tuple(orders["questions"]), orders["every"]) == (ADDRESS, QUESTIONS, 5)

    def test_runs_as_restricted_pods_must(self) -> None:
        """Pod Security `restricted`, no account, no secret, an end of its own; a drained node is no end."""
        job = self.made("Job")["spec"]
        pod = job["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == IMAGE
        assert container["command"] == ["python", "-I", "-S", "/watch/asker.py", "/watch/orders.json"]
        assert container["volumeMounts"] == [{"name": "watch", "mountPath": "/watch", "readOnly": True}]
        assert pod["volumes"] == [{"name": "watch", "configMap": {"name": "watch-abc"}}]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        assert (job["activeDeadlineSeconds"], job["ttlSecondsAfterFinished"]) == (LIFE_SECONDS, 30)
        assert job["backoffLimit"] > 0

    @pytest.mark.parametrize(
        ("host", "way"),
        [
            ("prometheus.monitoring:80", {"kubernetes.io/metadata.name": "monitoring"}),
            ("prometheus.monitoring.svc", {"kubernetes.io/metadata.name": "monitoring"}),
            ("prometheus.monitoring.svc.cluster.local.:9090", {"kubernetes.io/metadata.name": "monitoring"}),
            ("prometheus:9090", None),
            ("10.0.0.7:9091", 9091),
            ("[fd00::7]:9091", 9091),
            ("metrics.internal.example.com", 80),
        ],
    )
    def test_opens_the_way_to_prometheus_and_to_names(self, host: str, way: Any) -> None:
        """Into its namespace, by any port, as a Service may have another one than its pods; nobody reaches the pod."""
        spec = self.made("NetworkPolicy", f"http://{host}/p")["spec"]
        pod = self.made("Job")["spec"]["template"]["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"].items() <= pod.items()
        assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
        there, names = spec["egress"]
        assert {port["port"] for port in names["ports"]} == {53}
        if isinstance(way, int):
            assert there == {"ports": [{"protocol": "TCP", "port": way}]}
        elif way:
            assert there == {"to": [{"namespaceSelector": {"matchLabels": way}}]}
        else:
            assert there == {"to": [{"podSelector": {}}]}

    def test_leaves_nothing_for_another_deploy_to_tidy(self) -> None:
        """That removes what has its label and no release has, except for Jobs; the Job's end removes these."""
        owned = {one["kind"]: "app.kubernetes.io/managed-by" in one["metadata"]["labels"]
                 for one in objects("watch-abc", IMAGE, ADDRESS, QUESTIONS)}  # fmt: skip
        assert owned == {"Job": True, "ConfigMap": False, "NetworkPolicy": False}


@dataclass
class Cluster:
    """What an Inquiry asks of kubectl. `said`: the log of the pod that runs, None where none does."""

    said: str | None = None
    pods: list[dict[str, Any]] = field(default_factory=list)  # that do not run
    refuses: str | None = None  # why it applies nothing
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    applied: list[list[dict[str, Any]]] = field(default_factory=list)
    logs: int = 0

    def apply(self, given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.refuses:
            raise Refused(f"kubectl apply: {self.refuses}", self.refuses)
        self.applied.append(list(given))
        made = [{**one, "metadata": {**one["metadata"], "uid": "u1"}} for one in given]
        self.jobs |= {one["metadata"]["name"]: one for one in made if one["kind"] == "Job"}
        return made

    def get(self, kind: str, what: str) -> list[dict[str, Any]]:
        if kind == "job":
            return [self.jobs[what]] if what in self.jobs else []
        name = what.rpartition("=")[2]
        runs = {"metadata": {"name": f"{name}-x", "creationTimestamp": "2"}, "status": {"phase": "Running"}}
        return [*([runs] if self.said is not None else []), *self.pods]

    def ask(self, verb: str, what: str, *options: str, timeout: float = 0) -> str:
        if verb == "delete":
            assert "--cascade=foreground" in options
            self.jobs.pop(what.removeprefix("job/"), None)
        elif verb == "patch":
            self.jobs[what.removeprefix("job/")]["spec"] |= json.loads(options[-1].partition("=")[2])["spec"]
        else:
            assert (verb, options) == ("logs", ("--tail=1", "--since=30s"))
            self.logs += 1
            return self.said or ""
        return ""


def said(body: bytes = b"{}", **more: Any) -> str:
    return json.dumps({"answers": {ALERTS: {"status": 200, "body": body.decode(), **more}, COUNT: {"problem": "x"}}})


class TestInquiry:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inquiry, "START_SECONDS", -1.0)
        monkeypatch.setattr(inquiry, "TICK_SECONDS", 0.0)

    @pytest.fixture(name="now")
    def _now(self) -> list[float]:
        """The time, in a list."""
        return [1000.0]

    def asks(self, cluster: Cluster, now: list[float]) -> Inquiry:
        kubectl: Any = cluster
        return Inquiry(kubectl, IMAGE, ADDRESS, QUESTIONS, clock=lambda: now[0])

    def test_answers_from_the_log_of_its_job(self, now: list[float]) -> None:
        """What is asked one after the other is looked up once; the Job is gone with the context."""
        cluster = Cluster(said(b"one"))
        with self.asks(cluster, now) as answer:
            assert (answer(ALERTS), answer(ALERTS)) == ((200, b"one"), (200, b"one"))
            with pytest.raises(SlipwayError, match=r"^x$"):
                answer(COUNT)
            looked = cluster.logs
            cluster.said, now[0] = said(b"two"), now[0] + 5
            assert answer(ALERTS) == (200, b"two")
            assert cluster.logs == looked + 1
            [name] = cluster.jobs
        assert cluster.jobs == {}
        first, second = cluster.applied
        assert [(one["kind"], one["spec"]["suspend"]) for one in first] == [("Job", True)]
        assert [one["kind"] for one in second] == ["ConfigMap", "NetworkPolicy", "Job"]
        assert second[-1]["spec"]["suspend"] is False
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "u1"}
        assert [one["metadata"]["ownerReferences"] for one in second[:-1]] == [[owner]] * 2

    def test_touches_nothing_before_it_is_asked(self, now: list[float]) -> None:
        """Nor where the block ends so early."""
        cluster = Cluster()
        with self.asks(cluster, now):
            pass
        assert (cluster.applied, cluster.jobs) == ([], {})

    def test_lets_its_job_live_while_it_is_asked(self, now: list[float]) -> None:
        """For two minutes from then; whoever was killed asks no more."""
        cluster = Cluster(said())
        with self.asks(cluster, now) as answer:
            answer(ALERTS)
            [job] = cluster.jobs.values()
            ends = []
            for _ in range(3):
                now[0] += RENEW_SECONDS
                answer(ALERTS)
                ends.append(job["spec"]["activeDeadlineSeconds"])
        assert ends == [LIFE_SECONDS + n * RENEW_SECONDS for n in (1, 2, 3)]

    def test_begins_anew_where_its_job_is_gone(self, now: list[float]) -> None:
        """The machine was asleep for longer than that."""
        cluster = Cluster(said())
        with self.asks(cluster, now) as answer:
            answer(ALERTS)
            [first] = cluster.jobs
            cluster.jobs.clear()
            now[0] += RENEW_SECONDS
            assert answer(ALERTS) == (200, b"{}")
            [second] = cluster.jobs
        assert first != second

    def test_says_why_there_is_no_job_and_tries_again(self, now: list[float]) -> None:
        """Not every five seconds."""
        cluster = Cluster(refuses="exceeded quota")
        with self.asks(cluster, now) as answer:
            for seconds in (0, 5):
                now[0] += seconds
                with pytest.raises(SlipwayError, match=r"^cannot be asked: kubectl apply: exceeded quota$"):
                    answer(ALERTS)
            cluster.refuses, cluster.said = None, said()
            with pytest.raises(SlipwayError, match="exceeded quota"):
                answer(ALERTS)
            now[0] += RENEW_SECONDS
            assert answer(ALERTS) == (200, b"{}")

    @pytest.mark.parametrize(
        ("log", "pods", "line"),
        [
            (None, [], "does not run: no pod was created for it (quota, Pod Security?)"),
            (
                None,
                [
                    {"state": {"terminated": {"reason": "Error", "exitCode": 1}}},
                    {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
                ],
                "does not run: ImagePullBackOff: no such image",
            ),
            (
                None,
                [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}],
                "does not run: it ended: OOMKilled (exit code 137)",
            ),
            ("", [], "has said nothing for 30 s"),
            ("Traceback\n", [], "has said nothing for 30 s"),
        ],
    )
    def test_says_what_is_wrong_with_its_pod(
        self, now: list[float], log: str | None, pods: list[dict[str, Any]], line: str
    ) -> None:
        """In one line: the newest tells."""
        found = [
            {
                "metadata": {"name": f"p{n}", "creationTimestamp": f"{n}"},
                "status": {"phase": "Pending", "containerStatuses": [one]},
            }
            for n, one in reversed(list(enumerate(pods)))
        ]
        cluster = Cluster(log, found)
        with self.asks(cluster, now) as answer:
            with pytest.raises(SlipwayError) as caught:
                answer(ALERTS)
            [name] = cluster.jobs
        assert caught.value.problems[0].startswith(f"cannot be asked: Job {name} {line}")

    def test_that_cannot_be_removed_is_said(self, now: list[float], caplog: pytest.LogCaptureFixture) -> None:
        """It ends by itself."""
        cluster = Cluster(said())
        with self.asks(cluster, now) as answer:
            answer(ALERTS)
            cluster.ask = lambda *_, **__: (_ for _ in ()).throw(SlipwayError("away"))  # type: ignore[method-assign]
        assert "could not be removed, and ends by itself: away" in caplog.text


def test_runs_on_the_image_of_the_release() -> None:
    """Which is on the nodes already."""
    images = SimpleNamespace(place=lambda part: f"registry/app/{part}@sha256:1")
    site: Any = SimpleNamespace(
        kubectl=None, kept=SimpleNamespace(find={"v1": SimpleNamespace(images=images)}.__getitem__)
    )
    bake: Any = None
    asks = KubernetesFleet(site, bake).asking(ADDRESS, QUESTIONS, "v1")
    assert isinstance(asks, Inquiry)
    assert (asks.image, asks.address, asks.questions) == ("registry/app/backend@sha256:1", ADDRESS, QUESTIONS)


class TestPrometheus:
    """One that is asked so is judged as any other."""

    def asked(self, text: str) -> Prometheus:
        kubectl: Any = Cluster(text)
        return Prometheus(ADDRESS, namespace="shop", fetch=Inquiry(kubectl, IMAGE, ADDRESS, QUESTIONS).answer)

    def test_has_alerts_and_counts(self) -> None:
        """By the same questions."""
        body = asker.brief(data(alerts=[FAILING, OTHER]).decode())
        answers = {ALERTS: {"status": 200, "body": body}, COUNT: {"status": 200, "body": COUNTED.decode()}}
        prometheus = self.asked(json.dumps({"answers": answers}))
        assert [one.name for one in prometheus.alerts()] == ["ReleaseFailing"]
        assert prometheus.watched("v1") == 620

    @pytest.mark.parametrize(
        ("answer", "line"),
        [
            ({"problem": "did not answer in time"}, "did not answer in time"),
            ({"status": 503, "body": '{"error": "it starts"}'}, "answers 503: it starts"),
            ({"status": 401, "body": ""}, "answers 401: set PROMETHEUS_TOKEN, which is sent to an https address"),
            ({"status": 200, "body": "<html>"}, "answers, but not as a Prometheus does: is the address right?"),
        ],
    )
    def test_says_what_is_wrong_in_one_line(self, answer: dict[str, Any], line: str) -> None:
        """With its address."""
        with pytest.raises(PrometheusError) as caught:
            self.asked(json.dumps({"answers": {ALERTS: answer}})).alerts()
        assert caught.value.problems == (f"prometheus: {ADDRESS} {line}",)
