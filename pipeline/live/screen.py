"""What `nox -s status -- ENV --watch` shows of a look: a screen, a line, or a document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.metrics.prometheus import Alert
from pipeline.metrics.rates import Rates, Traffic
from pipeline.releases.model import short
from pipeline.system.text import duration, figure

__all__ = ["Look", "line_of", "screen_of"]

FIGURES = ("requests/s", "errors/s", "p95")
LEAST = 0.005  # a second, below which a rate is shown as none


@dataclass(frozen=True)
class Look:
    """What was seen at once.

    `status` is the document of `nox -s status`, as it was `seen`: of an earlier look while the engine is `away`.
    `rates` and `alerts` are None where they are not known; `source` is where the rates are from, `notes` are why
    something is not known, and what else was warned of.
    """

    at: datetime
    seen: datetime
    status: Mapping[str, Any]
    away: str | None = None
    rates: Rates | None = None
    source: str = ""
    alerts: tuple[Alert, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def releases(self) -> dict[str, tuple[int, int]]:
        """How many replicas of each release are ready, and how many there are; those that answered have 0 at least."""
        counted = dict.fromkeys((*(one["release"] for one in self.status["replicas"]), *self._answering), (0, 0))
        for one in self.status["replicas"]:
            ready, there = counted[one["release"]]
            counted[one["release"]] = (ready + bool(one["ready"]), there + 1)
        return counted

    @property
    def _answering(self) -> tuple[str, ...]:
        return self.rates.releases if self.rates else ()

    def document(self) -> dict[str, Any]:
        """Return the look as JSON has it, latencies in milliseconds."""
        rates = self.rates
        total = {**_figures(rates.traffic()), "seconds": round(rates.seconds, 1)} if rates else None
        return {
            **self.status,
            "at": self.at.isoformat(timespec="seconds"),
            "seen": self.seen.isoformat(timespec="seconds"),
            "away": self.away,
            "traffic": total,
            "by_release": {one: _figures(rates.traffic(one)) for one in rates.releases} if rates else None,
            "alerts": None if self.alerts is None else [asdict(one) for one in self.alerts],
            "notes": list(self.notes),
        }


def _figures(traffic: Traffic) -> dict[str, float | None]:
    rates = {"requests": traffic.requests, "synthetic": traffic.synthetic, "errors": traffic.errors}
    p95 = None if traffic.p95 is None else round(traffic.p95 * 1000, 2)
    return {**{name: round(rate, 3) for name, rate in rates.items()}, "p95_ms": p95}


def line_of(look: Look, before: Look | None = None) -> str:
    """Return the look as one line, with what is wrong at its end; notes that are those of `before` are left out."""
    status, releases = look.status, look.releases.items()
    parts = [f"{look.at:%H:%M:%S}", status["environment"]]
    parts += [f"{short(release)} {ready}/{there} ready" for release, (ready, there) in releases] or ["no replica"]
    if look.rates:
        parts += [f"{name} {value}" for name, value in zip(FIGURES, _shown(look.rates.traffic()), strict=True)]
    parts += [f"lock: {status['lock']['holder']}"] if status["lock"] else []
    parts += [f"! not seen since {look.seen:%H:%M:%S}: {look.away}"] if look.away else []
    parts += [f"! {one.state}: {one.name} {one.summary}".rstrip() for one in look.alerts or ()]
    notes = look.notes if not before or before.notes != look.notes else ()
    return "  ".join([*parts, *(f"! {one}" for one in (*status["problems"], *notes))])


def screen_of(look: Look, now: datetime) -> RenderableType:
    """Return the whole screen; what is most urgent comes first, because a small window shows no more."""
    status, lock = look.status, look.status["lock"]
    served = f"release {short(status['release'])} (number {status['number']}), proved {_age(status['since'], now)} ago"
    parts: list[RenderableType] = [
        Text.assemble((status["environment"], "bold"), f"  {status['url']}  ", (f"{look.at:%H:%M:%S} UTC", "dim")),
        Text(served if status["release"] else "nothing deployed yet"),
    ]
    if look.away:
        parts.append(Text(f"✗ not seen for {_age(look.seen.isoformat(), now)}: {look.away}", "bold red"))
    if lock:
        holder = f"{lock['holder']} on {lock['host']} (pid {lock['pid']}) for {_age(lock['since'], now)}"
        parts.append(Text(f"lock: {holder}", "yellow"))
    parts += [_traffic(look), *_alerts(look, now), *(Text(note, "dim") for note in look.notes)]
    parts += [*(Text(f"! {one}", "red") for one in status["problems"]), Text()]
    parts += [_releases(look), Text(), _replicas(look, now)] if status["replicas"] else [Text("no replica is running")]
    return Group(*parts)


def _traffic(look: Look) -> Text:
    if not look.rates:
        return Text("traffic: not known", "dim")
    traffic = look.rates.traffic()
    requests, errors, p95 = _shown(traffic)
    share = f" ({figure(100 * traffic.errors / traffic.requests, 2)} %)" if traffic.errors > LEAST else ""
    synthetic = f" ({figure(traffic.synthetic)} of them synthetic)" if traffic.synthetic > LEAST else ""
    return Text.assemble(
        ("traffic: ", "bold"),
        (f"{requests} requests/s{synthetic}, "),
        (f"{errors} errors/s{share}", "bold red" if share else "green"),
        f", p95 {p95}",
        (f"  {look.source}, {duration(look.rates.seconds)}", "dim"),
    )


def _alerts(look: Look, now: datetime) -> list[Text]:
    if not look.alerts:
        return [Text("alerts: not known", "dim") if look.alerts is None else Text("alerts: none", "green")]
    lines = []
    for one in look.alerts:
        words = [one.state, one.name, *([f"({one.severity})"] if one.severity else []), f"for {_age(one.since, now)}"]
        text = f"{' '.join(words)}{f': {one.summary}' if one.summary else ''}"
        lines.append(Text(f"! {text}", "bold red" if one.state == "firing" else "yellow"))
    return lines


def _releases(look: Look) -> Table:
    table = _table("release", "ready", *FIGURES)
    for release, (ready, there) in look.releases.items():
        known = look.rates and release in look.rates.releases
        shown = _shown(look.rates.traffic(release)) if look.rates and known else ("-", "-", "-")
        table.add_row(short(release), Text(f"{ready} of {there}", "" if ready == there else "red"), *shown)
    return table


def _replicas(look: Look, now: datetime) -> Table:
    table = _table("replica", "release", "", "state", "since")
    workers = look.status["workers"]
    for one in (*look.status["replicas"], *workers):
        ready = Text("ready", "green") if one["ready"] else Text("not ready", "red")
        name = f"{one['name']} (worker)" if one in workers else one["name"]
        table.add_row(name, short(one["release"]), ready, one["state"], _age(one["since"], now))
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", min_width=max(len(name), len("not ready") * (not name))
        )
    return table


def _shown(traffic: Traffic) -> tuple[str, str, str]:
    """Return the `FIGURES` of `traffic` as people read them."""
    requests, errors = (figure(rate) if rate > LEAST else "0" for rate in (traffic.requests, traffic.errors))
    return requests, errors, "-" if traffic.p95 is None else _latency(traffic.p95)


def _latency(seconds: float) -> str:
    return f"{figure(seconds)} s" if seconds >= 1 else f"{figure(seconds * 1000)} ms"


def _age(since: str | None, now: datetime) -> str:
    """Return how long ago `since` (RFC 3339) was, in words; "?" where that is not known."""
    try:
        at = datetime.fromisoformat(since or "")
    except ValueError:
        return "?"
    return duration(max(0.0, round((now - at.astimezone(UTC)).total_seconds())))
