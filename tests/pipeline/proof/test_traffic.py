from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.proof.cleaning import clean_up
from pipeline.proof.plan import TrafficPlan
from pipeline.proof.results import Failure, TrafficResult
from pipeline.proof.traffic import GeneratorDied, Traffic
from pipeline.proof.verdict import Limits, judge
from tests.pipeline.proof.servers import HANG, Behaviour, Reply, Request, Service, wait_until

MOST_BYTES = 12 * 2**10  # of a file: a second of the journal, and more than the generator says at its end


def run(
    plan: TrafficPlan, *, until: Callable[[Traffic], bool] = lambda traffic: traffic.snapshot().sent > 60
) -> TrafficResult:
    """Traffic for JOB until a condition holds."""
    with Traffic(plan) as traffic:
        wait_until(lambda: until(traffic))
        return traffic.stop()


def of_kind(result: TrafficResult, kind: str) -> list[Failure]:
    """The examples of KIND."""
    return [failure for failure in result.failures if failure.kind == kind]


class TestTraffic:
    def test_proves_a_good_service_and_leaves_nothing(self, plan: TrafficPlan, service: Service) -> None:
        """Every request is answered, every write is read back and removed, and the journal is gone."""
        result = run(plan)
        assert result.failed == result.writes_lost == result.writes_left == 0
        assert result.writes_acknowledged > 10
        assert service.things == {}
        assert not plan.journal.exists()
        assert judge(result, Limits(), new="new", old=None).ok

    def test_counts_by_phase_and_release(self, plan: TrafficPlan, service: Service) -> None:
        """A request belongs to the phase in which it was due and to the release that answered it."""
        service.release = "old"
        with Traffic(replace(plan, phase="baseline")) as traffic:
            wait_until(lambda: traffic.snapshot().sent > 20)
            traffic.phase("bake", plan.requests)
            wait_until(lambda: traffic.snapshot().phase == "bake")
            service.release = "new"
            wait_until(lambda: any(share.release == "new" and share.ok > 20 for share in traffic.snapshot().shares))
            result = traffic.stop()
        answered = {(share.phase, share.release): share.ok for share in result.shares}
        assert answered["baseline", "old"] > 20
        assert answered["bake", "new"] > 20
        assert [phase.name for phase in result.phases] == ["baseline", "bake"]
        assert sum(sum(one.answered.values()) for one in result.bins) == result.ok == sum(answered.values())

    def test_counts_what_is_cut_where_it_is_cut(self, plan: TrafficPlan, service: Service) -> None:
        """A long request of the baseline that ends with its replica is no failure of the time before."""
        service.behave = lambda _, request: HANG if request.method == "GET" else None
        with Traffic(replace(plan, phase="build", timeout=60)) as traffic:
            wait_until(lambda: len(service.requests) > 20)
            traffic.phase("baseline", plan.requests)
            wait_until(lambda: len(service.requests) > 40)
            traffic.phase("rollout")
            wait_until(lambda: traffic.snapshot().phase == "rollout")
            service.behave = None
            service.cut()
            wait_until(lambda: sum(sum(share.failed.values()) for share in traffic.snapshot().shares) > 5)
            result = traffic.stop(at_once=True)
        failed = {share.phase for share in result.shares if share.failed}
        assert failed == {"rollout"}, result

    @pytest.mark.parametrize(
        ("behave", "kind", "detail"),
        [
            (
                lambda _, request: Reply(500, {"title": "boom"}) if request.number >= 50 else None,
                "5xx",
                '500 {"title": "boom"}',
            ),
            (
                lambda _, request: Reply(json={"items": 1}) if request.method == "GET" else None,
                "body",
                "`items` is 1, not []",
            ),
            (lambda _, request: Reply(418) if request.number % 9 == 0 else None, "status", "418"),
            (
                lambda _, request: Reply(json={}, cut=30) if request.number % 9 == 0 else None,
                "reset",
                "the connection broke",
            ),
            (lambda _, request: HANG if request.number in (10, 20, 30) else None, "timeout", "no answer within 0.5 s"),
        ],
    )
    def test_tells_failures_by_kind(
        self, plan: TrafficPlan, service: Service, behave: Behaviour, kind: str, detail: str
    ) -> None:
        """Each way to fail has its kind, and the first five have what an engineer wants to know."""
        service.behave = lambda server, request: behave(server, request) if len(server.requests) < 150 else None
        patience = 0.5 if kind == "timeout" else plan.timeout
        result = run(replace(plan, timeout=patience), until=lambda traffic: traffic.snapshot().sent > 120)
        assert {name for share in result.shares for name in share.failed} == {kind}
        examples = of_kind(result, kind)
        assert 1 <= len(examples) <= 10  # five of the release, five of nobody
        assert examples[0].detail.startswith(detail)
        assert len(examples[0].request_id) == 32
        assert examples[0].release == (None if kind in ("reset", "timeout") else "new")
        assert not judge(result, Limits(), new="new", old=None).ok

    def test_tells_a_service_that_is_gone(self, plan: TrafficPlan, service: Service) -> None:
        """Where nobody listens any more, fresh connections are refused, and no write is thought to be there."""
        with Traffic(plan) as traffic:
            wait_until(lambda: traffic.snapshot().sent > 20)
            service.refuse()
            wait_until(lambda: any("refused" in share.failed for share in traffic.snapshot().shares))
            result = traffic.stop(at_once=True)
        assert of_kind(result, "refused")[0].release is None

    def test_misses_a_write_that_was_acknowledged_and_is_gone(self, plan: TrafficPlan, service: Service) -> None:
        """A write that a read cannot find is lost, whatever the service said."""

        def forget(server: Service, request: Request) -> Reply | None:
            reply = server.answer(request)
            if request.method == "POST" and len(server.things) == 3:
                server.things.pop(reply.json["id"])
            return reply

        service.behave = forget
        result = run(plan)
        assert result.writes_lost >= 1
        told = {(lost.method, lost.status, lost.detail) for lost in of_kind(result, "lost")}
        assert told == {("POST", 404, "read back: 404")}, result
        verdict = judge(result, Limits(), new="new", old=None)
        assert f"{result.writes_lost} acknowledged" in verdict.reason, result

    def test_finds_and_removes_a_write_whose_answer_was_lost(self, plan: TrafficPlan, service: Service) -> None:
        """The same Idempotency-Key gives the first answer again, and with it the place of the write."""

        def swallow(server: Service, request: Request) -> Reply | None:
            reply = server.answer(request)
            first = sum(
                request.headers.get("idempotency-key") == one.headers.get("idempotency-key") for one in server.requests
            )
            return replace(reply, cut=10) if request.method == "POST" and first == 1 else reply

        service.behave = swallow
        result = run(plan)
        assert of_kind(result, "reset")
        assert (result.writes_acknowledged, result.writes_left, service.things) == (0, 0, {})

    def test_stops_at_once_when_told_so(self, plan: TrafficPlan, service: Service) -> None:
        """A rollout that failed is not kept waiting by a release that hangs; what is left is in the journal."""
        service.behave = lambda _, request: HANG if request.method == "GET" else None
        with Traffic(replace(plan, timeout=60)) as traffic:
            wait_until(lambda: len(service.requests) > 40)
            result = traffic.stop(at_once=True)
        assert result.outstanding > 20
        assert result.writes_unread == result.writes_acknowledged > 0
        assert result.failed == 0
        assert service.things == {}


class TestItsEnd:
    def test_removes_what_it_wrote_when_the_deploy_is_killed(
        self, plan: TrafficPlan, service: Service, tmp_path: Path
    ) -> None:
        """`kill -9` of the deploy ends the traffic, and the generator cleans up before it ends."""
        script = tmp_path / "deploy.py"
        script.write_text(
            "import json, sys, threading\n"
            "from pipeline.proof.plan import TrafficPlan\nfrom pipeline.proof.traffic import Traffic\n"
            "with Traffic(TrafficPlan.load(json.load(sys.stdin))):\n    threading.Event().wait()\n"
        )
        root = str(Path(__file__).parents[3])
        deploy = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
        )
        assert deploy.stdin
        deploy.stdin.write(json.dumps(plan.dump()).encode())
        deploy.stdin.close()
        wait_until(lambda: len(service.things) > 5)
        deploy.kill()
        deploy.wait()
        wait_until(lambda: not plan.journal.exists())
        assert service.things == {}

    def test_aborts_without_a_result(self, plan: TrafficPlan, service: Service) -> None:
        """Leaving the traffic without stopping it removes what it wrote."""
        with Traffic(plan):
            wait_until(lambda: len(service.things) > 5)
        assert service.things == {}
        assert not plan.journal.exists()

    def test_a_killed_generator_is_a_failure_and_the_next_deploy_cleans_up(
        self, plan: TrafficPlan, service: Service
    ) -> None:
        """Without its generator nothing is proved; the journal knows what to remove."""
        with Traffic(plan) as traffic:
            wait_until(lambda: len(service.things) > 5)
            assert traffic.pid
            os.kill(traffic.pid, signal.SIGKILL)
            with pytest.raises(GeneratorDied, match=r"died \(-9\)"):
                wait_until(lambda: traffic.snapshot().sent < 0)
            with pytest.raises(GeneratorDied):
                traffic.stop()
        assert plan.journal.stat().st_mode & 0o777 == 0o600
        assert clean_up(plan.journal, service.url, plan.token) == 0
        assert service.things == {}
        assert not plan.journal.exists()

    def test_is_deaf_to_ctrl_c_and_obeys_sigterm(self, plan: TrafficPlan, service: Service) -> None:
        """Ctrl-C is the deploy's to handle; SIGTERM ends the generator, after it cleaned up."""
        with Traffic(plan) as traffic:
            assert traffic.pid
            os.kill(traffic.pid, signal.SIGINT)
            sent = traffic.snapshot().sent
            wait_until(lambda: traffic.snapshot().sent > sent + 20)
            os.kill(traffic.pid, signal.SIGTERM)
            with pytest.raises(GeneratorDied):
                wait_until(lambda: traffic.snapshot().sent < 0)
        assert service.things == {}

    def test_says_why_a_generator_could_not_start(self, plan: TrafficPlan, tmp_path: Path) -> None:
        """The last words of a generator are in the error."""
        with pytest.raises(GeneratorDied, match="No such file or directory"):
            Traffic(replace(plan, journal=tmp_path / "none" / "writes.jsonl")).start()

    @pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit of another process is Linux' own")
    def test_says_why_a_generator_died(self, plan: TrafficPlan) -> None:
        """What ends it comes out of a group of tasks: here its journal cannot grow, as on a full disk."""
        with Traffic(plan) as traffic:
            assert traffic.pid
            resource.prlimit(traffic.pid, resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
            with pytest.raises(GeneratorDied, match=r"died \(1\): OSError: \[Errno 27\] File too large; nothing is"):
                wait_until(lambda: traffic.snapshot().sent < 0)
