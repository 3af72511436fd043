"""The protocol of a target: what a deploy asks of the place it ships to.

Only the packages beside this module know their engine; the story knows none of these packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipeline.config.project import ComposeEnvironment, Environment, KubernetesEnvironment, LocalEnvironment, Project
from pipeline.images.build import PushedImages
from pipeline.releases.lock import Holder
from pipeline.releases.model import Artifact, Running
from pipeline.releases.records import Records
from pipeline.system.progress import Progress

__all__ = ["Target", "open_target"]


class Target(Protocol):
    """One environment on one engine. Methods raise `SlipwayError` with the one line that goes into the report."""

    url: str

    @property
    def env(self) -> Environment:
        """The environment, as pyproject.toml describes it."""

    def records(self) -> Records:
        """Return the records of what was deployed.

        Raise `UsageError` where the place that keeps them cannot be asked.
        """

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the environment's lock. `say` is told whose lock was taken over.

        Raise `LockHeld` at once where somebody else holds it.
        """

    def holder(self) -> Holder | None:
        """Return who holds the lock now, None where nobody does."""

    def problems(self) -> list[str]:
        """List what prevents a deploy, one line each with its fix. Touch nothing that runs."""

    def data_problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """List what is wrong with the data that the new release would find, one line each with its fix. Touch nothing.

        `expected`: releases were proved here before, so there must be data. `release`: the recorded release that is to
        ship instead of the working tree. What only the database knows (whether it is migrated) is not asked here.
        """

    def heal(self) -> bool:
        """End what a killed deploy left, start what should run but does not; return whether anything was started.

        Call it under the lock only.
        """

    def build(self) -> Artifact:
        """Build the release of the working tree, or find it already built."""

    def recorded(self, name: str) -> Artifact:
        """Return a release that was built before."""

    def adopt(self, reference: str | None) -> str | None:
        """Return the name of the release that `reference` (an image digest) names, although it has no record here.

        Without a `reference`, return the release that the environment takes by promotion. Return None where there is
        no such release.
        """

    def running(self) -> Running:
        """Return what runs now."""

    def pushed(self, new: Artifact) -> PushedImages | None:
        """Return where the images of `new` are in a registry, to be verified there; None where they are only here.

        Raise `SlipwayError` where the images that would run differ from those in the registry.
        """

    def objections(self, new: Artifact) -> list[str]:
        """List what the engine objects to in `new`, one line each with its fix. Touch nothing."""

    def findings(self) -> list[str]:
        """List what the engine finds wrong with what runs, beyond `running`, one line each with its fix."""

    def stores(self, release: str) -> Mapping[str, Any]:
        """Return what PostgreSQL and Redis report to a replica of `release`; empty where no replica serves.

        See `pipeline.targets.common.stores`. Raise `SlipwayError` where they cannot be asked.
        """

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe what changes between two releases, one line each."""

    def database_runs(self, new: Artifact) -> bool:
        """Return whether the database that `new` will use can be asked now."""

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of `release`, with access to the `database` or without; return its output.

        Raise `SlipwayError` with its last line of output.
        """

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Migrate a throwaway database with `new`, then send the smoke requests of `old` to a replica of it there."""

    def prepare(self, new: Artifact) -> None:
        """Bring up everything that the migrations of `new` and the traffic need: data stores, roles, edge."""

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Replace each replica by one of `new`.

        `watch(line)` is called while waiting, and may raise to stop the rollout.
        `back`: the other replicas have failed, so they drain at once as soon as a replica of `new` serves.
        """

    def trouble(self) -> str | None:
        """Return what the engine reports against the release just rolled out (that a replica ended, say), or None."""

    def dismiss(self) -> None:
        """Tell the second view that the proof has seen enough.

        It may stop and report while the writes are read back.
        """

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """Return what a vantage beside the service saw of a rollout: one line on who lost requests, and the figures.

        From outside, `failed` of `sent` requests failed. Return None where there was no such vantage.
        """

    def remarks(self) -> list[str]:
        """List what the engine did on its own while a release was proved, where worth knowing: one line each."""

    def withdraw(self) -> None:
        """Stop each replica, because a first release that failed has nothing to go back to."""

    def token(self) -> str | None:
        """Return the token with which the proof authenticates."""

    def token_changes(self) -> bool:
        """Return whether the running replicas still have another token."""

    def attest(self, report: Mapping[str, Any]) -> None:
        """Publish what the `report` of a rollout says about the artifact, where others look for it."""

    def prune(self, retained: list[str]) -> None:
        """Remove the releases that are neither `retained` nor running."""

    def down(self, *, volumes: bool) -> None:
        """Stop everything; with `volumes`, remove the data too."""


def open_target(project: Project, env: Environment, progress: Progress) -> Target:
    """Return the target of `env`."""
    if isinstance(env, LocalEnvironment):
        from pipeline.targets.local import LocalTarget

        return LocalTarget(project, env, progress)
    if isinstance(env, ComposeEnvironment):
        from pipeline.targets.compose import ComposeTarget

        return ComposeTarget(project, env, progress)
    assert isinstance(env, KubernetesEnvironment)
    from pipeline.targets.kubernetes import KubernetesTarget

    return KubernetesTarget(project, env, progress)
