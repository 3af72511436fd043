"""An environment without an engine: releases in a dict, replicas in a list, a schema of applied migrations.

What decides is real: the records and the lock in a folder, the check of each answer, the counts, the verdict. Made up
are the fleet and the database alone, and what goes wrong in them is a switch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config.project import ComposeEnvironment, Environment, LocalEnvironment, Project
from pipeline.errors import DeployFailed, NotReady, SlipwayError
from pipeline.images.build import PushedImages
from pipeline.proof.answers import Answer, Call, NoAnswer
from pipeline.proof.exchange import Exchange
from pipeline.proof.report import Report
from pipeline.proof.smoke import Smoked
from pipeline.releases.lock import Holder, held_by, hold_lock
from pipeline.releases.model import Artifact, Replica, Running
from pipeline.releases.records import Record, Records
from pipeline.system.progress import Progress
from pipeline.system.streams import Stream
from pipeline.targets import Fleet, Releases, Target, Watch
from tests.pipeline.deploy.fake_backups import FakeBackups
from tests.pipeline.deploy.fake_database import FakeDatabase
from tests.pipeline.deploy.fake_secrets import FakeSecrets
from tests.pipeline.deploy.script import Script

__all__ = ["FakeDatabase", "FakeFleet", "FakeReleases", "FakeSecrets", "FakeTarget", "FakeWatch", "NotedRecords"]

FAST_MS, SLOW_MS = 5.0, 900.0
IDENT = "1" * 32


class NotedRecords(Records):
    """Real ones, that note what was asked of them and fail when told to."""

    def __init__(self, target: FakeTarget) -> None:
        super().__init__(target.project.state(target.env.name) / "releases")
        self._target = target

    def note(self, record: Record, **facts: Any) -> None:
        """Fail as `note STAGE`, without a line of its own."""
        self._target.fail_if_told(f"note {facts.get('stage', 'release')}")
        super().note(record, **facts)

    def refresh(self) -> None:
        """Do what others do elsewhere: nothing."""
        self._target.do("refresh")

    def publish(self, record: Record) -> None:
        """Note the number."""
        self._target.do("publish", str(record.number))

    def prune(self) -> None:
        """Prune as always."""
        self._target.do("prune records")
        super().prune()


@dataclass
class FakeReleases(Releases):
    """Releases in a dict. `tree` is what `build` makes; `promoted`, `images` and `objects` are what it answers."""

    script: Script
    fleet: FakeFleet
    tree: Artifact
    kept: dict[str, Artifact] = field(default_factory=dict)
    promoted: str | None = None
    images: PushedImages | None = None
    objects: list[str] = field(default_factory=list)  # the answer of `objections`
    attested: list[Report] = field(default_factory=list)

    def build(self) -> Artifact:
        """Keep the release of the working tree."""
        self.script.do("build")
        self.kept[self.tree.name] = self.tree
        return self.tree

    def recorded(self, name: str) -> Artifact:
        """Find a release that was built and not removed."""
        if name not in self.kept:
            raise SlipwayError(f"release {name} is gone: build it again")
        return self.kept[name]

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Tell the names apart."""
        return [] if new.name == old.name else [f"release {old.name} to {new.name}"]

    def prune(self, retained: list[str]) -> None:
        """Remove what is neither retained nor running."""
        self.script.do("prune")
        kept = {*retained, *(each.release for each in self.fleet.replicas)}
        self.kept = {name: release for name, release in self.kept.items() if name in kept}

    def adopt(self, reference: str | None) -> str | None:
        """Take what was promoted."""
        return self.promoted if reference in (None, self.promoted) else None

    def pushed(self, new: Artifact) -> PushedImages | None:
        """Say where it was told to."""
        return self.images

    def objections(self, new: Artifact) -> list[str]:
        """Say what it was told to."""
        self.script.do("objections")
        return self.objects

    def attest(self, report: Report) -> None:
        """Keep the report."""
        self.script.do("attest")
        self.attested.append(report)


@dataclass
class FakeFleet(Fleet):
    """Replicas in a list, `wanted` of them. `breaks`: the paths that a release answers with 500, once it is routed;
    `breaks_alone`: before that, in its trial.

    `slow` releases take 900 ms, `unready` ones never get ready, `unready_alone` ones not in
    their trial; no replica gets the `lost` secrets. `around` is what
    runs of the stores, as it is `defined`; `objected` is what is wrong with that.
    """

    script: Script
    database: FakeDatabase
    secrets: FakeSecrets
    wanted: int
    replicas: list[Replica] = field(default_factory=list)
    breaks: dict[str, Collection[str]] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    breaks_alone: dict[str, Collection[str]] = field(default_factory=dict)
    unready: set[str] = field(default_factory=set)
    unready_alone: set[str] = field(default_factory=set)
    wrote: Smoked = field(default_factory=Smoked)  # in a trial
    written: str = ""
    tries: list[int] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)  # by replica: its log
    refuse_token: bool = False  # running replicas know another one
    objected: list[str] = field(default_factory=list)
    defined: str = "stores"
    around: str = "stores"
    kept: str = "stores"
    _turn: int = 0
    _started: int = 0

    def running(self) -> Running:
        """Look at the list; a replica is current if it has the secrets of now."""
        seen = [replace(one, current=one.current and self._has_secrets(one)) for one in self.replicas]
        return Running(tuple(seen), self.wanted, ())

    def _has_secrets(self, one: Replica) -> bool:
        return self.secrets.given[one.name] == self.secrets.kept

    def findings(self) -> list[str]:
        """Find nothing."""
        return []

    def stores(self, release: str) -> Mapping[str, Any]:
        """Say nothing."""
        return {}

    def logs(self, *, follow: bool) -> list[Stream]:
        """Print what each replica has said."""
        shown = [(each.name, self.said.get(each.name, "")) for each in self.replicas]
        return [Stream(name, ("printf", "%s", text)) for name, text in shown]

    def token(self) -> str | None:
        """Ask for none."""
        return None

    def token_changes(self) -> bool:
        """Say what it was told."""
        return self.refuse_token

    def undelivered(self, secrets: Sequence[str], release: str | None) -> list[str]:
        """Look among the lost ones."""
        return [f"{name} of release {release} is lost: find it" for name in secrets if name in self.lost]

    def heal(self) -> bool:
        """End what never got ready."""
        self.script.do("heal")
        ready = [each for each in self.replicas if each.ready]
        healed = ready != self.replicas
        self.replicas = ready
        return healed

    def prepare(self, new: Artifact) -> None:
        """Start the database."""
        self.around = self.defined
        self.script.do("prepare", new.name)
        self.database.up = True

    def objections(self, new: Artifact) -> list[str]:
        """Say what was told."""
        return self.objected

    def trial(
        self,
        new: Artifact,
        watch: Callable[[str], None],
        *,
        journal: Path,
        log: Path,
        tries: int,
        database: str | None = None,
    ) -> Smoked:
        """Ask one replica for each request of the table; leave its log, and `written` in the journal."""
        self.script.do("trial", f"{new.name} on {database}" if database else new.name)
        self.tries.append(tries)
        watch("starting it")
        log.write_text(f"{new.name} said this\n")
        if new.name in self.unready_alone:
            raise NotReady(new.name, "ended before it was ready: no such secret")
        journal.write_text(self.written)
        broken = [one for one in new.requests if one.path in self.breaks_alone.get(new.name, ())]
        failures = (
            Exchange.new(one, IDENT).failure("5xx", at=0.0, phase="smoke", release=new.name, status=500, detail="500")
            for one in broken
        )
        return replace(self.wrote, failures=tuple(failures))

    def put_back(self, old: Artifact) -> None:
        """Bring back what was kept."""
        if self.around != self.kept:
            self.script.do("put back", self.kept)
            self.around = self.kept

    def keep(self) -> None:
        """Keep what runs."""
        self.kept = self.around

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Put one of `new` for each, the new one first; on the way back the wrong ones go as soon as one serves."""
        self.script.do("roll back" if back else "roll out", new.name)
        now = [each for each in self.running().replicas if each.release == new.name and each.ready and each.current]
        right = [each for each in self.replicas if each.name in {one.name for one in now}]
        while len(right) < self.wanted:
            right.append(self.start(new))
            wrong = [each for each in self.replicas if each not in right]
            for each in wrong if back else wrong[:1]:
                self.replicas.remove(each)
            watch(f"replica {len(right)} of {self.wanted}")
        self.replicas = right

    def start(self, new: Artifact) -> Replica:
        """Start one, which gets ready if the database has what its code needs."""
        migrated = new.revision is None or new.revision in self.database.applied
        self._started += 1
        fresh = Replica(
            name=f"board-{self._started}",
            release=new.name,
            ready=migrated and new.name not in self.unready,
            state="RUNNING",
            since="2026-01-01T00:00:00+00:00",
            metrics=None,
            current=True,
        )
        self.replicas.append(fresh)
        self.secrets.start(fresh.name, [one.name for one in self.replicas])
        if not fresh.ready:
            raise DeployFailed(f"{fresh.name} never got ready")
        return fresh

    def withdraw(self) -> None:
        """Stop all."""
        self.script.do("withdraw")
        self.replicas = []

    def down(self, *, volumes: bool) -> None:
        """Stop all, the database too."""
        self.script.do("down")
        self.replicas, self.database.up = [], False
        if volumes:
            self.database.applied = {}

    def answer(self, call: Call) -> tuple[Answer, float]:
        """Return what the next replica in turn answers, and in how many milliseconds; raise `NoAnswer` without one."""
        ready = [each for each in self.replicas if each.ready]
        if not ready:
            raise NoAnswer("refused", "nobody listens")
        self._turn += 1
        release = ready[self._turn % len(ready)].release
        status = 500 if call.path in self.breaks.get(release, ()) else 200
        return Answer(status, release, b"{}"), SLOW_MS if release in self.slow else FAST_MS


@dataclass
class FakeWatch(Watch):
    """What the engine is told to have seen. `ended`: what `trouble` says; `noticed`: what `remarks` says."""

    script: Script
    ended: str | None = None
    noticed: list[str] = field(default_factory=list)
    view: tuple[str, Mapping[str, Any]] | None = None

    def trouble(self) -> str | None:
        """Say what it was told to."""
        self.script.fail_if_told("trouble")
        return self.ended

    def remarks(self) -> list[str]:
        """Say what it was told to."""
        self.script.do("remarks")
        return self.noticed

    def dismiss(self) -> None:
        """Note that the proof has seen enough."""
        self.script.do("dismiss")

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """Say what it was told to."""
        self.script.do("second view")
        return self.view


class FakeTarget(Script):
    """See the module. `tree` is the release of the working tree; `exposed` are routes that show synthetic rows."""

    url = "http://service.invalid"

    def __init__(self, project: Project, env: LocalEnvironment | ComposeEnvironment, tree: Artifact) -> None:
        super().__init__()
        self.project, self.env = project, env
        self.wrong: list[str] = []  # the answer of `problems`
        self.exposed: tuple[str, ...] = ()
        self.ending: Callable[[], object] = bool  # what happens while traffic is stopped at once
        self.answers_in_a_bake = 320  # of each phase in which the new release is alone
        self.database = FakeDatabase(self)
        self.secrets = FakeSecrets(self)
        self.fleet = FakeFleet(self, self.database, self.secrets, env.replicas)
        self.releases = FakeReleases(self, self.fleet, tree)
        self.watch = FakeWatch(self)
        self.backups = FakeBackups(self)

    def opened(self, project: Project, env: Environment, progress: Progress) -> Target:
        """Open it, as `open_target` would."""
        return self

    def problems(self) -> list[str]:
        """Say what it was told to."""
        self.do("problems")
        return self.wrong

    def records(self) -> Records:
        """Open the real ones."""
        return NotedRecords(self)

    def lock(self) -> AbstractContextManager[None]:
        """Take the real one."""
        return hold_lock(self.project.state(self.env.name) / "lock")

    def holder(self) -> Holder | None:
        """Ask the real one."""
        return held_by(self.project.state(self.env.name) / "lock")
