"""The protocol of a target: the environment's place on one engine, in roles.

Only the packages beside this module know their engine; the story knows none of these packages.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from pipeline.config.project import ComposeEnvironment, Environment, KubernetesEnvironment, LocalEnvironment, Project
from pipeline.releases.lock import Holder
from pipeline.releases.records import Records
from pipeline.system.progress import Progress
from pipeline.targets.common.roles import Backups, Database, Fleet, NextMajor, Releases, Secrets, Upgrade, Watch

__all__ = [
    "Backups",
    "Database",
    "Fleet",
    "NextMajor",
    "Releases",
    "Secrets",
    "Target",
    "Upgrade",
    "Watch",
    "open_target",
]


class Target(Protocol):
    """One environment on one engine: who may deploy there, what was deployed, and the six roles."""

    @property
    def env(self) -> Environment:
        """The environment, as pyproject.toml describes it."""

    @property
    def releases(self) -> Releases:
        """The releases that can be shipped."""

    @property
    def database(self) -> Database:
        """The database, and the programs that are run on it."""

    @property
    def fleet(self) -> Fleet:
        """The replicas, with the edge and the data stores around them."""

    @property
    def secrets(self) -> Secrets:
        """The secrets, where they come from."""

    @property
    def watch(self) -> Watch:
        """What the engine sees of a release while the traffic judges it."""

    @property
    def backups(self) -> Backups:
        """The backups of the database."""

    @property
    def url(self) -> str:
        """The address at which people reach the service."""

    def problems(self) -> list[str]:
        """List what prevents a deploy, one line each with its fix. Touch nothing that runs."""

    def records(self) -> Records:
        """Return the records of what was deployed.

        Raise `UsageError` where the place that keeps them cannot be asked.
        """

    def lock(self) -> AbstractContextManager[None]:
        """Hold the environment's lock.

        Raise `LockHeld` at once where somebody else holds it.
        """

    def holder(self) -> Holder | None:
        """Return who holds the lock now, None where nobody does."""


def open_target(project: Project, env: Environment, progress: Progress) -> Target:
    """Return the target of `env`."""
    if isinstance(env, LocalEnvironment):
        from pipeline.targets.local import LocalTarget

        return LocalTarget(project, env)
    if isinstance(env, ComposeEnvironment):
        from pipeline.targets.compose import ComposeTarget

        return ComposeTarget(project, env)
    assert isinstance(env, KubernetesEnvironment)
    from pipeline.targets.kubernetes import KubernetesTarget

    return KubernetesTarget(project, env, progress)
