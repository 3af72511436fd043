"""What the tests of the story and of its verbs share: an environment, and deploys that are told in it."""

from __future__ import annotations

import errno
import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.__main__ import parser
from pipeline.config.project import Environment, LocalEnvironment, Project
from pipeline.config.requests import RequestSpec
from pipeline.deploy.listening import Listener
from pipeline.deploy.proving import Proof
from pipeline.deploy.story import Story
from pipeline.proof.report import Report, Rollback, TrafficReport
from pipeline.releases.model import Artifact, Migration
from pipeline.releases.records import Record, read_json, write_json
from pipeline.system.git import Source
from pipeline.system.progress import Progress
from tests.pipeline.deploy.fake_prometheus import FakePrometheus
from tests.pipeline.deploy.fake_target import FakeTarget
from tests.pipeline.deploy.fake_traffic import FakeTraffic

__all__ = [
    "FIRST",
    "LIST",
    "ONE",
    "REQUESTS",
    "SECOND",
    "SHIPPED",
    "Told",
    "World",
    "migration",
    "outcomes",
    "release",
    "world_in",
]

LIST, ONE = RequestSpec(name="list", method="GET", path="/list"), RequestSpec(name="one", method="GET", path="/one")
REQUESTS = (LIST, ONE)
NAME = "here"
FULL = OSError(errno.ENOSPC, "No space left on device", "/full")
SHIPPED = ["plan", "build", "check", "migrate", "roll out", "prove"]


def release(name: str, revision: str | None = None, *more: RequestSpec) -> Artifact:
    """Make a release that answers `REQUESTS` and `more`."""
    return Artifact(name, Source("c0ffee", dirty=False), revision, (*REQUESTS, *more))


def migration(revision: str, **values: Any) -> Migration:
    """Make one of Python code, which squawk is not asked about, unless `values` have its SQL."""
    return Migration(**{"revision": revision, "message": "m", "contract_after": None, "sql": "", **values})


FIRST, SECOND = migration("0001"), migration("0002")


@dataclass
class Told:
    """What a deploy came to. `story` is kept, so that nothing ends merely because nobody holds it any more."""

    code: int
    report: Report
    story: Story

    @property
    def verdict(self) -> str:
        """Return the report's."""
        return self.report.verdict

    @property
    def reason(self) -> str:
        """Return the report's, where it has one."""
        assert self.report.reason
        return self.report.reason

    @property
    def traffic(self) -> TrafficReport:
        """Return what was measured, where there was something."""
        assert self.report.traffic
        return self.report.traffic

    @property
    def rollback(self) -> Rollback:
        """Return what undoing it did, where it was undone."""
        assert self.report.rollback
        return self.report.rollback

    def stages(self, *, back: bool = False) -> list[tuple[str, str]]:
        """Return each stage's name and outcome; `back`: of the rollback."""
        return [(one.name, one.outcome) for one in (self.rollback if back else self.report).stages]


@dataclass
class World:
    """An environment, the stories that were told of it, and all that was said."""

    target: FakeTarget
    stories: list[Story] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)  # what /ready says
    prometheus: FakePrometheus = field(default_factory=FakePrometheus)
    far: bool = False  # from here, it cannot be asked
    console: Console = field(default_factory=lambda: Console(file=io.StringIO(), width=200, highlight=False))

    def begin(self, project: Project, env: Environment, progress: Progress, **options: Any) -> Story:
        """Begin a story, as `Story` would, on the fake."""
        proof = partial(Proof, traffic=partial(FakeTraffic, self.target), baseline_seconds=0)
        told: dict[str, Any] = {"target": self.target, "proof": proof, "degraded": lambda _: list(self.degraded)}
        self.stories.append(Story(project, env, progress, **told, **options))
        return self.stories[-1]

    def hear(self, *arguments: Any, **options: Any) -> Listener:
        """Listen as a `Listener` would, on the fake: by its clock, in no time."""
        fake: dict[str, Any] = {
            "ask": lambda _: None if self.far else self.prometheus,
            "traffic": partial(FakeTraffic, self.target),
        }
        fake |= {"clock": self.prometheus.clock, "sleep": self.prometheus.sleep}
        return Listener(*arguments, **{**fake, **options})

    def progress(self) -> Progress:
        """Say it all to `said`."""
        return Progress(self.console)

    def deploy(
        self,
        new: Artifact | None = None,
        *migrations: Migration,
        reference: str | None = None,
        dry_run: bool = False,
        forward: bool = False,
        **options: Any,
    ) -> Told:
        """Ship `new`, which brings `migrations`, or what is asked for."""
        if new:
            self.target.releases.tree = new
            self.target.database.migrations_of[new.name] = list(migrations)
        self.target.asked.clear()
        story = self.begin(self.target.project, self.target.env, self.progress(), **options)
        code, report = story.tell(reference=reference, dry_run=dry_run, forward=forward)
        return Told(code, report, story)

    def run(self, verb: str, *arguments: str) -> tuple[int, Any]:
        """Run a verb of the command line on the fake."""
        options = parser(verb).parse_args([verb, self.target.env.name, *arguments])
        fake: dict[str, Any] = {"begin": self.begin} if verb in ("deploy", "rollback", "watch") else {}
        fake |= {"hear": self.hear} if verb in ("deploy", "watch") else {}
        fake |= {"opened": self.target.opened} if verb not in ("deploy", "rollback") else {}
        result: tuple[int, Any] = options.run(self.target.project, options, self.progress(), **fake)
        return result

    def serve(self, old: Artifact, *migrations: Migration) -> None:
        """Let `old` serve as if it had been deployed and proved: no story is told, which takes longer."""
        target = self.target
        target.releases.tree = target.releases.kept[old.name] = old
        target.database.migrations_of[old.name] = list(migrations)
        target.database.up, target.database.applied = True, {one.revision: one.sql for one in migrations}
        for _ in range(target.env.replicas):
            target.fleet.start(old)
        facts = {"release": old.name, "started": "2026-01-01T00:00:00+00:00", "commit": None, "dirty": False}
        record = target.records().begin({**facts, "stage": "prove"})
        write_json(record.folder / "report.json", {**facts, "verdict": "proved", "finished": facts["started"]})

    @property
    def said(self) -> str:
        """Return all that a person saw."""
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue()

    @property
    def serving(self) -> list[str]:
        """Return the release of each replica."""
        return [one.release for one in self.target.fleet.replicas]

    @property
    def records(self) -> list[Record]:
        """Return all records."""
        return self.target.records().all()

    def file(self, number: int, name: str) -> dict[str, Any]:
        """Return what a record holds."""
        return read_json(self.target.records().folder / str(number) / name)


def world_in(root: Path) -> World:
    """Make an environment below `root`, in which nothing was deployed yet."""
    env = LocalEnvironment(name=NAME, url="http://service.invalid").model_copy(update={"bake_seconds": 0})
    project = Project(root=root, name="board", environments={NAME: env}, requests=REQUESTS, retain=3)
    return World(FakeTarget(project, env, release("a")))


def outcomes(*, until: str, last: str) -> list[tuple[str, str]]:
    """Return the stages until one that ended otherwise."""
    names = SHIPPED[: SHIPPED.index(until) + 1]
    return [(name, "ok") for name in names[:-1]] + [(until, last)]
