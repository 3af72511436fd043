"""What the traffic means: whether the new release kept every promise.

These functions are pure: the deploy asks, and acts on the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.proof.comparison import Slower, compare
from pipeline.proof.results import BASELINE, BUILD, Failure, Latency, Share, Snapshot
from pipeline.proof.significance import more_often, upper_bound
from pipeline.releases.model import short
from pipeline.system.text import figure

__all__ = [
    "BAKE",
    "CONFIRM",
    "ENOUGH",
    "Judgement",
    "Limits",
    "baseline_failures",
    "judge",
    "judge_early",
    "rate_of_failures",
    "until_undone",
]

BAKE, CONFIRM = "bake", "confirm"
NEW_ALONE = (BAKE, CONFIRM)  # the phases in which only the new release runs
ENOUGH = 300  # answers of the new release: where none of them failed, at most 1 % do (`upper_bound`)
MORE_FAILURES = 0.05  # how often, at most, a release that fails no more often is refused because it seems to


@dataclass(frozen=True)
class Limits:
    """How many requests may fail, and how much slower the new release may be.

    `max_slowdown` is the factor, `max_latency_ms` the milliseconds (None: any) within which 95 of 100 answers must
    come, whatever was before. `old_counts` is false where a killed deploy left what runs: then only the new release's
    answers judge. `known`: the release was proved here before, and must not be kept from coming back: it is judged on
    errors alone. `before`: of what a rollback brings back, how many requests had failed, of how many.
    """

    max_failures: int = 0
    max_slowdown: float = 1.5
    max_latency_ms: float | None = None
    old_counts: bool = True
    known: bool = False
    before: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Judgement:
    """Whether the release is proved, and why, in one line.

    `more`: why that cannot be told yet; then `reason` is the same. `lacking`: the number of answers that are, as far as
    is known. `confirm`: it looks slow, and a second bake decides.
    `failed`: the part of the reason that counts failed requests; `first`: the example in it.
    """

    ok: bool
    reason: str
    more: str = ""
    lacking: int = 0
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
    against += _shown(traffic) if not (limits.known or rollback) else []
    if against:
        return replace(failed, ok=False, reason="; ".join(against))
    summary = _summary(traffic, list(_judged(traffic, limits, new, rollback)), new)
    if limits.known or rollback:
        return Judgement(ok=True, reason=summary)
    return _judge_latency(traffic, limits, new, old, summary)


def judge_early(traffic: Snapshot, limits: Limits, *, new: str, rollback: bool = False) -> Judgement:
    """Judge the failures alone while the rollout runs: if the judgement is not `ok`, there is no point in going on."""
    return _judge_failures(traffic, limits, new, rollback)


def rate_of_failures(traffic: Snapshot, release: str) -> float | None:
    """Return the largest rate of failures that goes with the answers of `release`, with 95 % confidence.

    None where it did not answer.
    """
    failed, sent = _failures_of([share for share in traffic.shares if share.release == release])
    return upper_bound(failed, sent) if sent else None


def baseline_failures(traffic: Snapshot | None) -> tuple[int, int]:
    """Return how many requests failed before anything was changed, and of how many."""
    return _failures_of([share for share in (traffic.shares if traffic else ()) if share.phase == BASELINE])


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
    failed, sent = _failures_of(judged)
    if rollback and limits.before[0] and more_often(limits.before, (failed, sent)) > MORE_FAILURES:
        return Judgement(ok=True, reason=f"{sent} requests, {failed} failed: no more often than before")
    if failed <= limits.max_failures:
        worse = [] if rollback or not limits.old_counts else _more_failures(traffic, new)
        good = Judgement(ok=True, reason=f"{traffic.sent} requests, {traffic.failed} failed")
        return replace(good, ok=False, reason=worse[0], failed=worse[0]) if worse else good
    first = _first(traffic, judged)
    line = _failed_line(judged, first, f" ({limits.max_failures} allowed)" if limits.max_failures else "")
    return Judgement(ok=False, reason=line, failed=line, first=first)


def _failed_line(shares: Sequence[Share], first: str, note: str) -> str:
    failed = sum((Counter(share.failed) for share in shares), Counter[str]())
    kinds = ", ".join(f"{count} × {kind}" for kind, count in failed.most_common())
    sent = sum(share.sent for share in shares)
    return f"{failed.total()} of {sent} requests failed{note}: {kinds}, {_by_whom(shares)}{first}"


def _failures_of(shares: Sequence[Share]) -> tuple[int, int]:
    """Return how many requests failed, and of how many that say something about the service."""
    return sum(share.sent - share.ok for share in shares), sum(share.telling for share in shares)


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


def _more_failures(traffic: Snapshot, new: str) -> list[str]:
    """Return a line for each request that fails more often than before, where some failures are allowed."""
    old: dict[str, tuple[int, int]] = {}
    now: dict[str, tuple[int, int]] = {}
    for one in traffic.series:
        counts = now if one.release == new or one.phase in NEW_ALONE else old
        failed, sent = counts.get(one.request, (0, 0))
        counts[one.request] = failed + one.failed, sent + one.ok + one.failed
    return [
        f"`{name}` fails more often than before: {failed} of {sent}, before {old[name][0]} of {old[name][1]}"
        for name, (failed, sent) in now.items()
        if name in old and failed and more_often(old[name], (failed, sent)) <= MORE_FAILURES / len(now)
    ]


def _summary(traffic: Snapshot, judged: list[Share], new: str) -> str:
    by_new = [share for share in traffic.shares if share.release == new]
    failures, sent = sum(share.sent - share.ok for share in judged), sum(share.sent for share in judged)
    rate = rate_of_failures(traffic, new)
    sure = f": at most {figure(100 * rate, 2)} % fail (95 % confidence)" if rate is not None else ""
    shown = _latency(traffic, CONFIRM, new) or _latency(traffic, BAKE, new)
    latency = f", p95 {shown.p95:.0f} ms" if shown else ""
    note = ""
    if traffic.unsent:
        note = f"; {traffic.unsent} more could not be sent because the machine is too busy for this rate"
    answered = sum(share.sent for share in by_new)
    return (
        f"{sent} requests, {failures or 'none'} failed; release {short(new)} answered {answered}{sure}{latency}{note}"
    )


def _judge_latency(traffic: Snapshot, limits: Limits, new: str, old: str | None, summary: str) -> Judgement:
    """Judge how fast `new` is, and whether it answered often enough for any judgement."""
    slower, name = Slower(limits.max_slowdown), f"release {short(new)}"
    found = compare(traffic.series, new=new, old=old, slower=slower)
    late = _late(traffic, BAKE, new, limits)
    slow = [str(one) for one in found.lines if one.slow] + ([late] if late else [])
    unsure = [one for one in found.lines if one.unsure]
    if _latency(traffic, CONFIRM, new):
        second = compare(traffic.series, new=new, old=old, slower=slower, phases=[CONFIRM])
        late = _late(traffic, CONFIRM, new, limits) if late else None
        confirmed = [str(one) for one in found.lines if one.slow and second.agrees(one, slower)]
        confirmed += [late] if late else []
        if confirmed:
            return Judgement(ok=False, reason=f"{name} is slow: {', '.join(confirmed)}, confirmed twice", slow=True)
        unsure = [one for one in found.lines if (one.slow or one.unsure) and second.agrees(one, slower) is not False]
        summary += f"; the first window was slow ({', '.join(slow)}), the second was not" if slow else ""
    elif slow:
        line = f"{name} may be slow: {', '.join(slow)}"
        return Judgement(ok=True, reason=line, more=line, confirm=True)
    doubts = [f"the release or the machine is slow: {one}" for one in unsure]
    answers = sum(share.telling for share in traffic.shares if share.release == new)
    if answers < ENOUGH:
        doubts.append(f"{name} gave {answers} answers, and {ENOUGH} are needed for a verdict")
    if doubts:
        return Judgement(ok=True, reason=doubts[0], more=doubts[0], lacking=max(0, ENOUGH - answers))
    return Judgement(ok=True, reason=summary)


def _late(traffic: Snapshot, phase: str, release: str, limits: Limits) -> str | None:
    """Return by how much the 95th percentile of a phase is beyond `max_latency_ms`, in words; None where it is not."""
    latency, limit = _latency(traffic, phase, release), limits.max_latency_ms
    if not latency or limit is None or latency.p95 <= limit:
        return None
    return f"p95 {latency.p95:.0f} ms (limit {limit:.0f} ms)"


def _latency(traffic: Snapshot, phase: str, release: str) -> Latency | None:
    return next((one.latency for one in traffic.shares if (one.phase, one.release) == (phase, release)), None)
