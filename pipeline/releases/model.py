"""The values that the pipeline passes around."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.requests import RequestSpec
from pipeline.system.git import Source

__all__ = ["SHORT", "Artifact", "Loss", "Migration", "Replica", "Running", "Write", "short", "stays"]

SHORT = 12  # hexadecimal digits of a digest or a commit, as docker shortens them


@dataclass(frozen=True)
class Artifact:
    """One immutable release. `name` is made from its content, and its answers carry it in `X-Release`."""

    name: str
    source: Source
    revision: str | None  # the schema revision that its code needs, None without migrations
    requests: tuple[RequestSpec, ...]  # those that its own proof and smoke test send
    needs: tuple[str, ...] = ()  # the secrets without which it does not start; of an older release, none are known


@dataclass(frozen=True)
class Loss:
    """A statement that throws rows away, and how many there are now; None where they cannot be counted."""

    what: str
    rows: int | None


@dataclass(frozen=True)
class Write:
    """A statement that changes rows, and about how many it locks; None where that is unknown."""

    what: str
    rows: int | None


@dataclass(frozen=True)
class Migration:
    """One migration of a release. `sql` is empty where it is Python code; `losses` are those on the real database.

    `contract_after` and `destroys` are its own words: the first revision whose release no longer needs what it drops,
    and why rows may go. `proven`: rules of squawk of which each case in it is known to be harmless. `writes`: the
    statements that lock rows, and how many on the real database; none where it was not asked.
    """

    revision: str
    message: str
    contract_after: str | None
    sql: str
    destroys: str | None = None
    losses: tuple[Loss, ...] = ()
    proven: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True)
class Replica:
    """One process, container or pod of the service, as it was observed."""

    name: str
    release: str
    ready: bool
    state: str  # the engine's own word: RUNNING, BACKOFF, …
    since: str | None  # RFC 3339
    metrics: str | None  # address of its /metrics
    current: bool  # runs what a deploy of its release would start now (secrets and settings included)


@dataclass(frozen=True)
class Running:
    """The replicas that run in an environment, and what should run there."""

    replicas: tuple[Replica, ...]
    wanted: int  # how many there should be
    problems: tuple[str, ...]  # parts that should run and do not: the edge, the database, …
    workers: tuple[Replica, ...] = ()  # other processes of the release, which answer no requests

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases that ready replicas answer with, each once."""
        return tuple(dict.fromkeys(replica.release for replica in self.replicas if replica.ready))

    def complete(self, release: str) -> bool:
        """Return whether all that should run is there, ready, of `release`, and nothing else."""
        both = (*self.replicas, *self.workers)
        wrong = [each for each in both if not (each.ready and each.current and each.release == release)]
        return not self.problems and not wrong and len(self.replicas) == self.wanted


def short(release: str | None) -> str:
    """Return the name of `release` in a form short enough for people to compare."""
    name, plus, settings = (release or "").removeprefix("sha256:").partition("+")
    shown = name if len(name) <= SHORT + 2 else f"{name[:SHORT]}…"
    return f"{shown}{plus}{settings}"


def stays(verdict: str | None, *, undone: bool) -> bool:
    """Return whether a release with this `verdict` serves from then on: it is proved, or kept though inconclusive."""
    return verdict == "proved" or (verdict == "inconclusive" and not undone)
