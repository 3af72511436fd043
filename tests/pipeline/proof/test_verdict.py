from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.proof.results import Failure, Latency, Share, Snapshot, TrafficResult
from pipeline.proof.verdict import Judgement, Limits, judge, judge_early
from pipeline.releases.model import short

NEW, OLD = "3f2a9c0b11d2", "77c0de4410aa"
FAST = Latency(p50=4, p95=9, p99=12, max=20)


def share(phase: str, release: str | None, ok: int = 100, latency: Latency | None = FAST, **failed: int) -> Share:
    """What one release answered in one phase; `_5xx` stands for 5xx."""
    return Share(
        phase, release, ok, {kind.strip("_"): count for kind, count in failed.items()}, slow=0, latency=latency
    )


def failure(kind: str, release: str | None, phase: str = "bake", **more: Any) -> Failure:
    """One example."""
    values = {"status": None, "detail": "", "path": "/api/v1/releases", **more}
    return Failure(
        kind=kind, phase=phase, release=release, method="GET", request="list", request_id="", at="", **values
    )


def result(*shares: Share, failures: tuple[Failure, ...] = (), lost: int = 0) -> TrafficResult:
    """The whole of a rollout."""
    return TrafficResult(
        seconds=10, phase="bake", outstanding=0, shares=shares, failures=failures, started=0.0, writes_lost=lost
    )


def verdict(
    *shares: Share, limits: Limits | None = None, old: str | None = OLD, rollback: bool = False, **more: Any
) -> Judgement:
    """The judgement of a rollout from OLD to NEW."""
    return judge(result(*shares, **more), limits or Limits(), new=NEW, old=old, rollback=rollback)


BEFORE = share("baseline", OLD)
HANDOVER = (share("rollout", OLD), share("rollout", NEW))
BAKE = share("bake", NEW)


class TestFailures:
    def test_a_rollout_without_failures_is_proved(self) -> None:
        """The reason says what it rests on."""
        judged = verdict(BEFORE, *HANDOVER, BAKE)
        assert judged == Judgement(ok=True, reason=f"400 requests, none failed; release {NEW} answered 200, p95 9 ms")

    def test_one_failure_is_one_too_many(self) -> None:
        """The line names how many, of what kind, by whom, and the first."""
        first = failure("5xx", NEW, status=500, detail="500 oh")
        judged = verdict(BEFORE, share("bake", NEW, 88, _5xx=12), failures=(first,))
        assert not judged.ok
        assert judged.reason == (
            f"12 of 200 requests failed: 12 × 5xx, all answered by release {NEW} (first: GET /api/v1/releases → 500)"
        )

    def test_the_old_release_must_not_fail_while_it_leaves(self) -> None:
        """A rollout that cuts off the old release's answers fails, though the new one is good."""
        first = failure("reset", None, "rollout", detail="the connection broke")
        judged = verdict(
            BEFORE, share("rollout", OLD, 80, _5xx=2), share("rollout", None, 0, reset=3), BAKE, failures=(first,)
        )
        assert judged.reason == (
            f"5 of 285 requests failed: 3 × reset, 2 × 5xx, 3 answered by no release, 2 answered by release {OLD}"
            " (first: GET /api/v1/releases → the connection broke)"
        )

    @pytest.mark.parametrize(("failed", "ok"), [(2, True), (3, False)])
    def test_as_many_as_are_allowed_may_fail(self, failed: int, ok: bool) -> None:
        """`max_failures` is inclusive."""
        assert verdict(BEFORE, share("bake", NEW, _5xx=failed), limits=Limits(max_failures=2)).ok is ok


class TestABrokenBaseline:
    BROKEN = share("baseline", OLD, 50, _5xx=50)

    def test_does_not_stop_its_own_fix(self) -> None:
        """Where the old release failed before anything was changed, its failures do not judge the new one."""
        assert verdict(self.BROKEN, share("rollout", OLD, 10, _5xx=10), share("rollout", None, 0, timeout=1), BAKE).ok

    def test_does_not_excuse_the_new_release(self) -> None:
        """A fix that fails is none."""
        judged = verdict(self.BROKEN, share("bake", NEW, 90, _5xx=10))
        assert judged.reason.startswith("10 of 100 requests failed: 10 × 5xx, all answered by release")

    def test_what_a_killed_deploy_left_may_fail_later(self) -> None:
        """It may have been a release that turns bad after its first requests: its failures judge nobody else."""
        late = (BEFORE, share("rollout", OLD, 80, _5xx=2), share("rollout", None, 0, _5xx=3), BAKE)
        assert not verdict(*late).ok
        assert verdict(*late, limits=Limits(old_counts=False)).ok
        assert not verdict(*late, share("rollout", NEW, 9, _5xx=1), limits=Limits(old_counts=False)).ok

    def test_blames_the_new_release_for_silence_while_it_runs_alone(self) -> None:
        """Nobody signs a timeout; when only the new release is there, it is the new release's."""
        assert not verdict(self.BROKEN, BAKE, share("bake", None, 0, timeout=4)).ok


class TestTheBuild:
    STARVED = share("build", OLD, 50, timeout=50)

    def test_judges_nobody(self) -> None:
        """The release was not there, and nothing of it was anywhere."""
        assert verdict(self.STARVED, BEFORE, BAKE).ok

    def test_excuses_nobody(self) -> None:
        """What answers again in the baseline must go on answering."""
        assert not verdict(self.STARVED, BEFORE, share("rollout", OLD, 10, _5xx=1), BAKE).ok


class TestWrites:
    def test_a_lost_write_fails(self) -> None:
        """Whatever else was good."""
        lost = failure("lost", NEW, detail="read back: 404", path="/x")
        judged = verdict(BEFORE, BAKE, lost=2, failures=(lost,))
        assert judged == Judgement(ok=False, reason="2 acknowledged writes are gone (first: GET /x → read back: 404)")

    def test_a_lost_write_is_never_forgiven(self) -> None:
        """Neither `max_failures` nor a broken baseline is about data."""
        assert not verdict(TestABrokenBaseline.BROKEN, BAKE, lost=1, limits=Limits(max_failures=9)).ok


class TestSilence:
    def test_nothing_sent_proves_nothing(self) -> None:
        """An empty table of requests is no proof."""
        assert verdict().reason.startswith("nothing was sent")

    def test_the_new_release_must_have_answered(self) -> None:
        """A rollout that quietly left the old release in place is not proved."""
        assert f"no answer came from release {NEW}" in verdict(BEFORE, share("bake", OLD)).reason

    def test_nobody_else_may_answer_once_it_is_alone(self) -> None:
        """An answer under the old release's name is from a replica that should be gone, or is not what it says."""
        judged = verdict(BEFORE, share("bake", NEW), share("bake", OLD))
        assert not judged.ok
        assert f"release {OLD} answered" in judged.reason

    def test_answers_of_health_alone_are_no_evidence(self) -> None:
        """A process that lives does not yet serve: /health counts for what fails, and proves nothing."""
        health = replace(share("bake", NEW, ok=100, latency=None), health=100)
        assert verdict(health, old=None).reason.startswith("nothing was sent")
        assert f"no answer came from release {NEW}" in verdict(BEFORE, health).reason
        judged = verdict(BEFORE, BAKE, replace(share("rollout", None, 20, reset=1), health=20))
        assert judged.reason.startswith("1 of 221 requests failed: 1 × reset")

    def test_a_service_without_the_header_is_told_so(self) -> None:
        """A team that replaced the service may have forgotten `X-Release`."""
        judged = verdict(share("bake", None), old=None)
        assert not judged.ok
        assert "must carry the header X-Release" in judged.reason


def slow(p50: float, p95: float, phase: str = "bake") -> Share:
    """A window of NEW with these latencies."""
    return share(phase, NEW, latency=Latency(p50, p95, p95, p95))


class TestLatency:
    def test_one_slow_window_asks_for_another(self) -> None:
        """A noisy neighbour must not roll back."""
        judged = verdict(BEFORE, slow(20, 1204))
        assert (judged.ok, judged.confirm, judged.slow) == (True, True, False)

    def test_two_slow_windows_fail(self) -> None:
        """The line compares with what was before, and with the limit."""
        judged = verdict(BEFORE, slow(20, 1300), slow(20, 1204, "confirm"))
        assert judged == Judgement(
            ok=False,
            reason=f"release {NEW} is slow: p95 1204 ms against 9 ms before (limit 500 ms), confirmed twice",
            slow=True,
        )

    def test_a_second_window_that_is_fast_acquits(self) -> None:
        """The reason still says what was seen."""
        judged = verdict(BEFORE, slow(20, 1204), slow(5, 10, "confirm"))
        assert (judged.ok, judged.confirm) == (True, False)
        assert "the first window was slow (p95 1204 ms" in judged.reason

    @pytest.mark.parametrize(
        ("p50", "p95", "good"), [(100, 500, True), (100, 501, False), (101, 500, False), (4, 9, True)]
    )
    def test_the_limits_are_a_tenth_and_half_a_second(self, p50: float, p95: float, good: bool) -> None:
        """Of the median 100 ms, of the 95th percentile `max_latency_ms`, inclusive."""
        assert verdict(BEFORE, slow(p50, p95)).confirm is not good

    def test_a_slow_machine_is_no_slow_release(self) -> None:
        """Where the old release was slow already, five times its figures are allowed."""
        before = share("baseline", OLD, latency=Latency(80, 300, 300, 300))
        assert not verdict(before, slow(400, 1500)).confirm
        assert verdict(before, slow(401, 1500)).confirm

    def test_a_first_deploy_has_the_absolute_limits(self) -> None:
        """There is nothing to compare with."""
        assert verdict(slow(20, 1204), old=None).reason.endswith("p95 1204 ms (limit 500 ms), not confirmed")

    def test_the_rollout_itself_may_be_slow(self) -> None:
        """Starting replicas takes the machine's time; only the bake judges."""
        assert not verdict(BEFORE, slow(400, 4000, "rollout"), BAKE).confirm


class TestRollback:
    FAILED = (share("rollout", OLD, 0, _5xx=70), share("rollout", None, 0, reset=7))

    def test_forgives_what_the_failed_release_did(self) -> None:
        """What happened before the bake is why one rolled back."""
        assert verdict(*self.FAILED, BAKE, old=None, rollback=True).ok

    def test_wants_the_restored_release_to_answer_well(self) -> None:
        """What comes after the rollback judges it."""
        assert not verdict(*self.FAILED, share("bake", NEW, 99, _5xx=1), old=None, rollback=True).ok
        assert not verdict(*self.FAILED, share("rollout", NEW), old=None, rollback=True).ok


class TestJudgeEarly:
    def test_says_as_soon_as_it_cannot_be_proved(self) -> None:
        """A rollout that failed requests need not go on."""
        snapshot = Snapshot(seconds=3, phase="rollout", outstanding=0, shares=(share("rollout", NEW, _5xx=1),))
        assert not judge_early(snapshot, Limits(), new=NEW).ok
        assert judge_early(snapshot, Limits(max_failures=1), new=NEW).ok

    def test_does_not_judge_what_cannot_be_known_yet(self) -> None:
        """At first nothing was sent, and nothing came from the new release."""
        assert judge_early(Snapshot(seconds=0, phase="baseline", outstanding=0), Limits(), new=NEW).ok


def test_names_are_shortened_as_people_compare_them() -> None:
    """A digest is known by its first twelve digits."""
    assert (short("sha256:" + "ab" * 32), short("abc-1"), short(None)) == ("abababababab…", "abc-1", "")
