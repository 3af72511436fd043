"""What the traffic means: whether the new release kept every promise.

These functions are pure: the deploy asks, and acts on the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.proof.results import BASELINE, BUILD, Failure, Latency, Share, Snapshot
from pipeline.releases.model import short

__all__ = ["BAKE", "CONFIRM", "Judgement", "Limits", "judge", "judge_early", "until_undone"]

BAKE, CONFIRM = "bake", "confirm"
NEW_ALONE = (BAKE, CONFIRM)  # the phases in which only the new release runs
# A noisy machine is not a slow release: the limits grow with the latency of the old release on the same machine.
NOISE = 5
P50_LIMIT_MS = 100
P99_FACTOR = 4  # times max_latency_ms: one answer in a hundred may take longer than five may, but not for ever


@dataclass(frozen=True)
class Limits:
    """How many requests may fail, and within how many milliseconds 95 of 100 answers must come.

    `old_counts` is false where a killed deploy left what runs: then only the new release's answers judge. `must_hide`
    is false for a release that was proved before, which must not be kept from coming back.
    """

    max_failures: int = 0
    max_latency_ms: float = 500
    old_counts: bool = True
    must_hide: bool = True


@dataclass(frozen=True)
class Judgement:
    """Whether the release is proved, and why, in one line.

    `confirm`: it looks slow, and a second bake window decides. `failed`: the part of the reason that counts failed
    requests; `first`: the example in it.
    """

    ok: bool
    reason: str
    confirm: bool = False
    slow: bool = False
    failed: str = ""
    first: str = ""

    def recounted(self, reason: str, shares: Sequence[Share]) -> str:
        """Return `reason`, which has this judgement in it, with the failed requests counted `until_undone`."""
        if not self.failed:
            return reason
        return reason.replace(self.failed, _failed_line(shares, self.first, " until it was undone"))


def judge(traffic: Snapshot, limits: Limits, *, new: str, old: str | None, rollback: bool = False) -> Judgement:
    """Judge the `traffic` of a rollout from release `old` (None: the first deploy) to `new`.

    Call this at the end of the phase `bake` (with a snapshot) and at the very end (with the result). With `rollback`,
    `new` is what a rollback brought back, and what happened before its `bake` belongs to the failed release.
    """
    if not traffic.telling:
        return Judgement(ok=False, reason="nothing was sent, so nothing is proved: declare [[tool.slipway.requests]]")
    failed = _judge_failures(traffic, limits, new, rollback)
    against = [failed.failed] if failed.failed else []
    against += [*_lost(traffic), *_silence(traffic, limits, new, rollback), *_strangers(traffic, new), *_left(traffic)]
    against += _shown(traffic) if limits.must_hide and not rollback else []
    if against:
        return replace(failed, ok=False, reason="; ".join(against))
    return _judge_latency(traffic, list(_judged(traffic, limits, new, rollback)), limits, new, old)


def judge_early(traffic: Snapshot, limits: Limits, *, new: str, rollback: bool = False) -> Judgement:
    """Judge the failures alone while the rollout runs: if the judgement is not `ok`, there is no point in going on."""
    return _judge_failures(traffic, limits, new, rollback)


def until_undone(rollout: Snapshot, back: Snapshot | None) -> list[Share]:
    """Return the shares of all requests that were due before a failed release was undone.

    Those are all of its `rollout`, and on the way `back` those before the release of before served alone.
    """
    return [*rollout.shares, *(share for share in (back.shares if back else ()) if share.phase not in NEW_ALONE)]


def _judged(traffic: Snapshot, limits: Limits, new: str, rollback: bool) -> Iterator[Share]:
    """Yield the shares that count: all, or only the new release's if the old one was already failing on its own.

    What failed during the build is told, and judges nobody: nothing of this release was there.
    """
    # A failure without an answer names no release, but while the new release runs alone it is the new release's.
    broken_before = not limits.old_counts or any(share.failed for share in traffic.shares if share.phase == BASELINE)
    for share in traffic.shares:
        if share.phase == BUILD:
            continue
        alone = share.phase in NEW_ALONE
        if rollback:
            if alone:
                yield share
        elif not broken_before or share.release == new or (share.release is None and alone):
            yield share


def _judge_failures(traffic: Snapshot, limits: Limits, new: str, rollback: bool) -> Judgement:
    judged = list(_judged(traffic, limits, new, rollback))
    if sum(sum(share.failed.values()) for share in judged) <= limits.max_failures:
        return Judgement(ok=True, reason=f"{traffic.sent} requests, {traffic.failed} failed")
    first = _first(traffic, judged)
    line = _failed_line(judged, first, f" ({limits.max_failures} allowed)" if limits.max_failures else "")
    return Judgement(ok=False, reason=line, failed=line, first=first)


def _failed_line(shares: Sequence[Share], first: str, note: str) -> str:
    failed = sum((Counter(share.failed) for share in shares), Counter[str]())
    kinds = ", ".join(f"{count} × {kind}" for kind, count in failed.most_common())
    sent = sum(share.sent for share in shares)
    return f"{failed.total()} of {sent} requests failed{note}: {kinds}, {_by_whom(shares)}{first}"


def _by_whom(shares: Sequence[Share]) -> str:
    counts: Counter[str | None] = Counter()
    for share in shares:
        counts[share.release] += sum(share.failed.values())
    names = [
        (f"answered by {f'release {short(name)}' if name else 'no release'}", n)
        for name, n in counts.most_common()
        if n
    ]
    return f"all {names[0][0]}" if len(names) == 1 else ", ".join(f"{n} {name}" for name, n in names)


def _first(traffic: Snapshot, judged: list[Share]) -> str:
    where = {(share.phase, share.release) for share in judged}
    for failure in traffic.failures:
        if failure.kind not in ("slow", "lost") and (failure.phase, failure.release) in where:
            return f" (first: {_line(failure)})"
    return ""


def _line(failure: Failure) -> str:
    what = str(failure.status) if failure.kind in ("5xx", "status") else failure.detail.split("\n")[0][:120]
    return f"{failure.method} {failure.path} → {what or failure.kind}"


def _lost(traffic: Snapshot) -> list[str]:
    if not traffic.lost:
        return []
    example = next((failure for failure in traffic.failures if failure.kind == "lost"), None)
    first = f" (first: {_line(example)})" if example else ""
    return [f"{traffic.lost} acknowledged {'write is' if traffic.lost == 1 else 'writes are'} gone{first}"]


def _silence(traffic: Snapshot, limits: Limits, new: str, rollback: bool) -> list[str]:
    if any(share.telling for share in _judged(traffic, limits, new, rollback) if share.release == new):
        return []
    nameless = any(share.ok for share in traffic.shares if share.release is None)
    hint = ": its answers must carry the header X-Release with the value of the variable RELEASE" if nameless else ""
    return [f"no answer came from release {short(new)}{hint}"]


def _strangers(traffic: Snapshot, new: str) -> list[str]:
    """Return a line for each other release that answered correctly while the new one should run alone."""
    shares = [
        share for share in traffic.shares if share.phase in NEW_ALONE and share.ok and share.release not in (None, new)
    ]
    return [
        f"release {short(share.release)} answered {share.ok} requests after it should have stopped" for share in shares
    ]


def _left(traffic: Snapshot) -> list[str]:
    return [f"{traffic.left} synthetic writes could not be removed"] if traffic.left else []


def _shown(traffic: Snapshot) -> list[str]:
    shown = " and ".join(f"GET {route}" for route in traffic.shown)
    fix = "leave out what a synthetic caller wrote (docs/2-your-own-service.md)"
    verb = "shows" if len(traffic.shown) == 1 else "show"
    return [f"{shown} {verb} people what the proof wrote: {fix}"] if shown else []


def _judge_latency(traffic: Snapshot, judged: list[Share], limits: Limits, new: str, old: str | None) -> Judgement:
    before = _latency(traffic, BASELINE, old) if old else None
    bake, again = _latency(traffic, BAKE, new), _latency(traffic, CONFIRM, new)
    first, second = _excess(bake, before, limits), _excess(again, before, limits)
    name = short(new)
    if first and second:
        return Judgement(ok=False, reason=f"release {name} is slow: {second}, confirmed twice", slow=True)
    if first and not again:
        return Judgement(ok=True, reason=f"release {name} may be slow: {first}, not confirmed", confirm=True)
    by_new = sum(share.sent for share in traffic.shares if share.release == new)
    sent = sum(share.sent for share in judged)
    failures = sum(sum(share.failed.values()) for share in judged)
    failed = f"{failures} failed" if failures else "none failed"
    shown = again or bake
    latency = f", p95 {shown.p95:.0f} ms" if shown else ""
    note = f"; the first window was slow ({first}), the second was not" if first else ""
    if traffic.unsent:
        note += f"; {traffic.unsent} more could not be sent because the machine is too busy for this rate"
    return Judgement(ok=True, reason=f"{sent} requests, {failed}; release {name} answered {by_new}{latency}{note}")


def _latency(traffic: Snapshot, phase: str, release: str | None) -> Latency | None:
    latencies: Mapping[tuple[str, str | None], Latency | None] = {
        (share.phase, share.release): share.latency for share in traffic.shares
    }
    return latencies.get((phase, release))


def _excess(now: Latency | None, before: Latency | None, limits: Limits) -> str | None:
    """Return which percentile of `now` is beyond its limit, in words; None where none is."""
    if not now:
        return None
    for name, value, past, floor in (
        ("p99", now.p99, before and before.p99, P99_FACTOR * limits.max_latency_ms),
        ("p95", now.p95, before and before.p95, limits.max_latency_ms),
        ("p50", now.p50, before and before.p50, P50_LIMIT_MS),
    ):
        limit = max(floor, NOISE * (past or 0))
        if value > limit:
            against = f"against {past:.0f} ms before " if past is not None else ""
            return f"{name} {value:.0f} ms {against}(limit {limit:.0f} ms)"
    return None
