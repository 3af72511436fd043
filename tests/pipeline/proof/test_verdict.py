from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from pipeline.proof.results import Failure, Latency, Series, Share, Snapshot, TrafficResult
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


def result(
    *shares: Share, failures: tuple[Failure, ...] = (), lost: int = 0, series: tuple[Series, ...] = ()
) -> TrafficResult:
    """The whole of a rollout."""
    return TrafficResult(
        seconds=10,
        phase="bake",
        outstanding=0,
        shares=shares,
        failures=failures,
        series=series,
        started=0.0,
        writes_lost=lost,
    )


def verdict(
    *shares: Share, limits: Limits | None = None, old: str | None = OLD, rollback: bool = False, **more: Any
) -> Judgement:
    """The judgement of a rollout from OLD to NEW."""
    return judge(result(*shares, **more), limits or Limits(), new=NEW, old=old, rollback=rollback)


BEFORE = share("baseline", OLD)
HANDOVER = (share("rollout", OLD), share("rollout", NEW))
BAKE = share("bake", NEW, 300)


class TestFailures:
    def test_a_rollout_without_failures_is_proved(self) -> None:
        """The reason says what it rests on."""
        judged = verdict(BEFORE, *HANDOVER, BAKE)
        line = f"600 requests, none failed; release {NEW} answered 400: at most 0.75 % fail (95 % confidence), p95 9 ms"
        assert judged == Judgement(ok=True, reason=line)

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
            f"5 of 485 requests failed: 3 × reset, 2 × 5xx, 3 answered by no release, 2 answered by release {OLD}"
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
        assert judged.reason.startswith("1 of 421 requests failed: 1 × reset")

    def test_a_service_without_the_header_is_told_so(self) -> None:
        """A team that replaced the service may have forgotten `X-Release`."""
        judged = verdict(share("bake", None), old=None)
        assert not judged.ok
        assert "must carry the header X-Release" in judged.reason


def answers(
    phase: str, release: str, ms: float, *, start: float, n: int = 400, name: str = "list", failed: int = 0
) -> Series:
    """Return `n` answers of a hundred a second, each a little slower or faster than `ms`."""
    noise = [ms * (1 + 0.2 * math.sin(7 * number)) for number in range(n)]
    return Series(name, phase, release, n, failed, [start + number / 100 for number in range(n)], noise)


OLD_ALONE = (answers("baseline", OLD, 4, start=0), answers("rollout", OLD, 4, start=4))
AS_FAST = (*OLD_ALONE, answers("rollout", NEW, 4, start=4))
SLOW_ROLLOUT = (*OLD_ALONE, answers("rollout", NEW, 40, start=4))


def timed(*series: Series, limits: Limits | None = None, old: str | None = OLD, rollback: bool = False) -> Judgement:
    """The judgement of a rollout from OLD to NEW that answered with these."""
    shares = [
        Share(one.phase, one.release, one.ok, {"5xx": one.failed} if one.failed else {}, 0, Latency.of(sorted(one.ms)))
        for one in series
    ]
    return verdict(*shares, limits=limits, old=old, rollback=rollback, series=series)


class TestLatency:
    def test_what_is_as_fast_is_proved(self) -> None:
        """The reason says how many failures go unseen."""
        judged = timed(*AS_FAST, answers("bake", NEW, 4, start=8))
        assert (judged.ok, judged.more) == (True, "")
        assert judged.reason == (
            f"1600 requests, none failed; release {NEW} answered 800: at most 0.37 % fail (95 % confidence), p95 5 ms"
        )

    def test_one_slow_window_asks_for_another(self) -> None:
        """A noisy neighbour must not roll back."""
        judged = timed(*SLOW_ROLLOUT, answers("bake", NEW, 40, start=8))
        assert (judged.ok, judged.confirm, judged.slow) == (True, True, False)
        assert judged.more.startswith(f"release {NEW} may be slow: `list` 40 ms against 4 ms (10 ×, 9.")

    def test_two_slow_windows_fail(self) -> None:
        """The line names the request, and compares."""
        judged = timed(*SLOW_ROLLOUT, answers("bake", NEW, 40, start=8), answers("confirm", NEW, 40, start=12))
        assert (judged.ok, judged.slow) == (False, True)
        assert re.fullmatch(
            rf"release {NEW} is slow: `list` 40 ms against 4 ms \(10 ×, [0-9.]+ to [0-9.]+ with 95 % confidence\),"
            r" 100 % of the answers took over [0-9.]+ ms, before 0 %, confirmed twice",
            judged.reason,
        )

    def test_a_second_window_that_is_fast_acquits(self) -> None:
        """The reason still says what was seen."""
        judged = timed(*SLOW_ROLLOUT, answers("bake", NEW, 40, start=8), answers("confirm", NEW, 4, start=12))
        assert (judged.ok, judged.more) == (True, "")
        assert "the first window was slow (`list` 3" in judged.reason

    def test_a_request_that_was_hardly_sent_in_the_second_window_is_waited_for(self) -> None:
        """What was not seen again is neither confirmed nor refuted."""
        short = answers("confirm", NEW, 40, start=12, n=5)
        judged = timed(*SLOW_ROLLOUT, answers("bake", NEW, 40, start=8), short)
        assert "the machine is slow: `list`" in judged.more

    def test_a_limit_is_optional(self) -> None:
        """`max_latency_ms` is for who has one, and holds without a release before."""
        bake, again = answers("bake", NEW, 40, start=8), answers("confirm", NEW, 40, start=12)
        assert not timed(bake, old=None).more
        limits = Limits(max_latency_ms=30)
        assert timed(bake, old=None, limits=limits).confirm
        judged = timed(bake, again, old=None, limits=limits)
        assert judged.reason == f"release {NEW} is slow: p95 48 ms (limit 30 ms), confirmed twice"

    def test_as_much_slower_as_is_allowed_is_not_slow(self) -> None:
        """`max_slowdown` is the environment's."""
        series = (*SLOW_ROLLOUT, answers("bake", NEW, 40, start=8))
        assert timed(*series).confirm
        assert not timed(*series, limits=Limits(max_slowdown=20)).more

    def test_what_was_proved_before_is_not_kept_from_coming_back(self) -> None:
        """Nor is what a rollback brings back: both are judged on errors alone."""
        series = (*SLOW_ROLLOUT, answers("bake", NEW, 40, start=8))
        assert not timed(*series, limits=Limits(known=True)).more
        assert not timed(*series, rollback=True).more


class TestEvidence:
    def test_few_answers_prove_nothing(self) -> None:
        """Without a failure in 300, at most one in a hundred fails."""
        judged = timed(*OLD_ALONE, answers("bake", NEW, 4, start=8, n=299))
        assert judged.ok
        assert judged.more == f"release {NEW} gave 299 answers, and 300 are needed for a verdict"
        assert judged.lacking == 1
        assert not timed(*OLD_ALONE, answers("bake", NEW, 4, start=8, n=300)).more

    def test_of_what_was_proved_before_few_are_enough(self) -> None:
        """It must not be kept from coming back."""
        few = answers("bake", NEW, 4, start=8, n=10)
        assert not timed(*OLD_ALONE, few, limits=Limits(known=True)).more
        assert not timed(few, old=None, rollback=True).more


class TestMoreFailures:
    def test_than_before_are_refused_though_some_are_allowed(self) -> None:
        """The line names the request."""
        old = answers("baseline", OLD, 4, start=0, failed=1)
        limits = Limits(max_failures=50)
        judged = timed(old, answers("bake", NEW, 4, start=8, failed=20), limits=limits)
        assert judged.reason == "`list` fails more often than before: 20 of 420, before 1 of 401"
        assert not judged.ok
        assert timed(old, answers("bake", NEW, 4, start=8, failed=2), limits=limits).ok


class TestRollback:
    FAILED = (share("rollout", OLD, 0, _5xx=70), share("rollout", None, 0, reset=7))

    def test_forgives_what_the_failed_release_did(self) -> None:
        """What happened before the bake is why one rolled back."""
        assert verdict(*self.FAILED, BAKE, old=None, rollback=True).ok

    def test_does_not_ask_for_more_than_there_was(self) -> None:
        """What failed before anything was changed may fail as often when it is back."""
        back = share("bake", NEW, 90, _5xx=10)
        assert not verdict(*self.FAILED, back, old=None, rollback=True).ok
        assert verdict(*self.FAILED, back, old=None, rollback=True, limits=Limits(before=(20, 200))).ok
        assert not verdict(*self.FAILED, back, old=None, rollback=True, limits=Limits(before=(1, 200))).ok

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
