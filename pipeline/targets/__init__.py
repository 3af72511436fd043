"""What a deploy asks of the place it ships to, as a protocol.

Only the packages beside this module know their engine; the story knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipeline.config.project import Environment, Project
from pipeline.images.build import PushedImages
from pipeline.releases.lock import Holder
from pipeline.releases.model import Artifact, Running
from pipeline.releases.records import Records
from pipeline.system.progress import Progress

__all__ = ["Target", "open_target"]


class Target(Protocol):
    """One environment on one engine. Methods raise `SlipwayError` with the one line that the report will carry."""

    env: Environment
    url: str

    def records(self) -> Records:
        """What was deployed. Raises `UsageError` where those who know cannot be asked."""

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the environment's lock; raises `LockHeld` at once. SAY gets whose lock was taken over."""

    def holder(self) -> Holder | None:
        """Who holds the lock now."""

    def problems(self) -> list[str]:
        """What stands in the way of a deploy: one line each, with its fix. Touches nothing that runs."""

    def data_problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """What speaks against the data that the new release would find: one line each, with its fix. Touches nothing.

        EXPECTED: releases were proved here before, so there must be data. RELEASE: a recorded one that is to ship,
        where the working tree is not. What only the database knows (whether it is migrated) is not asked here.
        """

    def heal(self) -> bool:
        """End what a killed deploy left, and start what should run and does not. Whether anything had to be started.

        Under the lock only.
        """

    def build(self) -> Artifact:
        """Make the release of the working tree, or find it made."""

    def recorded(self, name: str) -> Artifact:
        """A release that was built before."""

    def adopt(self, reference: str | None) -> str | None:
        """The name of the release that REFERENCE is, without a record here (an image digest), or that the environment
        takes where nothing is asked for (promotion); None where it is none.
        """

    def running(self) -> Running:
        """What runs now."""

    def pushed(self, new: Artifact) -> PushedImages | None:
        """Where the images of NEW are in a registry, whose word is asked for them; None for what is only here.

        Raises `SlipwayError` where what would run is not what is there.
        """

    def objections(self, new: Artifact) -> list[str]:
        """What the engine has against NEW, found out without touching anything: one line each, with its fix."""

    def findings(self) -> list[str]:
        """What the engine says is wrong with what runs, beyond `running`: one line each, with its fix."""

    def stores(self, release: str) -> Mapping[str, Any]:
        """What PostgreSQL and Redis say of themselves where RELEASE serves; empty where none does.

        See `pipeline.targets.common.stores`. Raises `SlipwayError` where they cannot be asked.
        """

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """What changes between two releases, in words."""

    def database_runs(self) -> bool:
        """Return whether the database can be asked now."""

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of `release`, within reach of the `database` or without; return what it printed.

        Raises `SlipwayError` with its last words.
        """

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Run NEW's migrations on a throwaway database, and OLD's smoke requests on one replica of OLD there."""

    def prepare(self, new: Artifact) -> None:
        """Everything that NEW's migrations and the traffic need is up: data stores, roles, edge."""

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Replace each replica by one of NEW. WATCH(line) is called while waiting, and may raise to stop it.

        BACK: the others have failed, so they drain at once where a replica of NEW serves.
        """

    def trouble(self) -> str | None:
        """What the engine says against the release that was rolled out: a replica of it ended, say."""

    def dismiss(self) -> None:
        """The proof has seen enough: who looks beside it may stop, and say so while the writes are read back."""

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """What somebody beside the service saw of a rollout in which FAILED of SENT requests from outside failed: who
        lost them, in one line, and the figures. None where nobody looked.
        """

    def remarks(self) -> list[str]:
        """What the engine did by itself while a release was proved, worth knowing: one line each."""

    def withdraw(self) -> None:
        """Stop each replica: a first release that failed has nothing to go back to."""

    def token(self) -> str | None:
        """What the proof authenticates with."""

    def token_changes(self) -> bool:
        """Whether what runs knows another token yet."""

    def attest(self, report: Mapping[str, Any]) -> None:
        """Tell others what the REPORT of a rollout says of the artifact, where they look for it."""

    def prune(self, retained: list[str]) -> None:
        """Remove the releases that are neither RETAINED nor running."""

    def down(self, *, volumes: bool) -> None:
        """Stop everything; remove the data too with VOLUMES."""


def open_target(project: Project, env: Environment, progress: Progress) -> Target:
    """The target of ENV."""
    if env.target == "local":
        from pipeline.targets.local import LocalTarget

        return LocalTarget(project, env, progress)
    if env.target == "compose":
        from pipeline.targets.compose import ComposeTarget

        return ComposeTarget(project, env, progress)
    from pipeline.targets.kubernetes import KubernetesTarget

    return KubernetesTarget(project, env, progress)
