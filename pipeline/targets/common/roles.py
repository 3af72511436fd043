"""The roles of a target: what a deploy, a backup, a restore or a rotation asks of its place, in six parts.

Each method raises `SlipwayError` with the one line that goes into the report. A method with a body is a default: a
target overrides it if its engine has something to add. docs/11-add-a-target.md shows how to write a target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.images.build import PushedImages
from pipeline.proof.report import Report
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import Artifact, Running
from pipeline.system.streams import Stream

__all__ = ["LONGEST", "Backups", "Database", "Fleet", "NextMajor", "Releases", "Secrets", "Upgrade", "Watch"]

LONGEST = 24 * 3600  # seconds that a backup or a restore may take


class Releases(Protocol):
    """The releases that an environment can ship: built from the working tree, kept, or in a registry."""

    def build(self) -> Artifact:
        """Build the release of the working tree, unless it is already built."""

    def recorded(self, name: str) -> Artifact:
        """Return a release that was built before. Raise `SlipwayError` if it is no longer kept."""

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe what changes between two releases, one line each."""

    def prune(self, retained: list[str]) -> None:
        """Remove the releases that are neither `retained` nor running."""

    def adopt(self, reference: str | None) -> str | None:
        """Return the name of the release of `reference`, an image digest that has no record here.

        Without a `reference`, return the release that is promoted to this environment. Return None if there is no such
        release.
        """
        return None

    def pushed(self, new: Artifact) -> PushedImages | None:
        """Return where the images of `new` are in a registry, to be verified there; None if they are only here.

        Raise `SlipwayError` if the images that would run differ from those in the registry.
        """
        return None

    def objections(self, new: Artifact) -> list[str]:
        """List what the engine objects to in `new`, one line each with its fix. Touch nothing."""
        return []

    def attest(self, report: Report) -> None:
        """Publish what the `report` of a rollout says about the release, where other environments look for it."""
        return


@dataclass(frozen=True)
class NextMajor:
    """A move to another major of PostgreSQL, from version `old` to `new`.

    `bytes`: what the database has; `free`: on the disk of its data. The new data is in `place`, that of before stays in
    `before` until the command `removal`. `others`: databases that stay behind.
    """

    old: str
    new: str
    bytes: int
    free: int
    place: str
    before: str
    removal: str
    others: tuple[str, ...] = ()


class Upgrade(Protocol):
    """A server of another major beside the one that serves, on data of its own, until it takes that one's place."""

    def plan(self) -> NextMajor | None:
        """Return what would be done; None where the server that serves is of the major that is defined.

        Raise `UsageError` with the fix where it cannot be done. Touch nothing.
        """

    def begin(self, place: str, tell: Callable[[str], None]) -> None:
        """Start the new server with its data in `place`, which is empty, and make the roles of the old one there.

        Until `switch`, and after `switch_back`, no deploy may take what is in `place` for the data that serves.
        """

    def fill(self, backup: str, told: Callable[[str], None]) -> dict[str, Any]:
        """Restore the `backup` into the new server, in place of what is there; return what the program says of it."""

    def trial(self, serving: Artifact, watch: Callable[[str], None], *, journal: Path, log: Path) -> Smoked:
        """Send each request of `serving` to a replica of it on the new server: see `Fleet.trial`."""

    def close(self) -> None:
        """Let nobody write to the old server any more, and wait until all that was written is committed."""

    def switch(self) -> None:
        """Let the new server take the place of the old one, for good, and wait until it is ready."""

    def switch_back(self, place: str) -> None:
        """Undo `switch`, however far it came: the old server serves, and takes writes. What is in `place` is kept."""

    def abandon(self, place: str) -> None:
        """Undo what was done before `switch`: the old server takes writes, the new one is gone.

        Its `place` is so, too, or is kept for the next try; no deploy uses it.
        """

    def switched(self, place: str) -> bool:
        """Return whether `switch` came so far that the server with its data in `place` is the one that serves."""

    def go_on(self, place: str) -> None:
        """Bring a `switch` to the server with its data in `place` to its end that was killed so late."""


class Database(Protocol):
    """The database of an environment, and the programs that run against it."""

    def problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """List what is wrong with the data that the new release would find, one line each with its fix. Touch nothing.

        `expected`: releases were proved here before, so there must be data. `release`: the recorded release that is to
        ship instead of the working tree. What only the database knows (whether it is migrated) is not asked here.
        """

    def places(self) -> list[str]:
        """Say where the stores are that others manage, one line each; nothing secret."""
        return []

    def runs(self, new: Artifact) -> bool:
        """Return whether the database that `new` will use can be queried now."""

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of `release`, with or without access to the `database`, and return its output.

        Raise `SlipwayError` with its last line of output.
        """

    def run(self, *command: str) -> str:
        """Run a program of PostgreSQL (`psql`, `pg_dump`) near the database, as the owner.

        The variables `PGHOST`, `PGUSER` and so on tell the program where to connect. The database must be running.
        Return the output, which must be text. If the program fails, raise `SlipwayError` with its last telling line.
        """

    def command(self, release: Artifact, module: str, *arguments: str, stdin: str = "") -> str:
        """Run `python -m MODULE` of `release` near the database, as the service's role; return its output.

        `stdin` is its standard input, which may be secret: nobody else can read it. Raise `ProgramFailed` if it fails,
        another `SlipwayError` if it could not be run, or does not end within a minute.
        """

    def upgrade(self) -> Upgrade:
        """Return what moves the data to a new major of PostgreSQL. Raise `UsageError` with the way by hand."""

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Migrate a throwaway database with `new`, as its owner; send the smoke requests of `old` to a replica there.

        The replica has the login of a service.
        """


class Fleet(Protocol):
    """The replicas of the service, with the edge and the data stores around them."""

    def running(self) -> Running:
        """Return what runs now."""

    def findings(self) -> list[str]:
        """List what the engine finds wrong with what runs, beyond `running`, one line each with its fix."""

    def stores(self, release: str) -> Mapping[str, Any]:
        """Return what PostgreSQL and Redis report to a replica of `release`; empty if no replica serves.

        See `pipeline.targets.common.stores`. Raise `SlipwayError` if they cannot be queried.
        """

    def asking(
        self, address: str, questions: Sequence[str], release: str
    ) -> AbstractContextManager[Callable[[str], tuple[int, bytes]]] | None:
        """Ask the `questions` of `address` from beside the replicas of `release`, every few seconds.

        They are paths with their queries, and the answers are those of a Prometheus. The context yields what returns
        the status and the body of the newest answer to one of them, and raises `SlipwayError` where that is not known.
        Return None where `address` can be asked from here as well.
        """
        return None

    def log(self, release: str) -> str:
        """Return what the replicas of `release` logged last, where nobody can read it once they are removed."""
        return ""

    def logs(self, *, follow: bool) -> list[Stream]:
        """Return what shows the log of each replica and worker; with `follow` its last lines, and those to come."""

    def token(self) -> str | None:
        """Return the token that the proof authenticates with.

        Where running replicas have another SERVICE_TOKEN, that is SERVICE_TOKEN_PREVIOUS, if they accept it.
        """

    def token_changes(self) -> bool:
        """Return whether a running replica does not accept that token."""

    def undelivered(self, secrets: Sequence[str], release: str | None) -> list[str]:
        """List those of `secrets` that a replica would not get, one line each with its fix. Touch nothing.

        `release`: the recorded release that needs them; None for that of the working tree.
        """
        return []

    def objections(self, new: Artifact) -> list[str]:
        """List what would not run of the data stores and the edge as they are defined now, or by `new`.

        Each line has its fix. Touch nothing that runs.
        """
        return []

    def heal(self) -> bool:
        """Clean up after a killed deploy, and start what should run but does not. Return whether anything was started.

        Call it only while you hold the lock.
        """

    def prepare(self, new: Artifact) -> None:
        """Bring up everything that the migrations of `new` and the traffic need: data stores, roles, edge."""

    def settled(self, new: Artifact, running: Running) -> bool:
        """Return whether a replica of `new` needs nothing of `prepare`.

        The stores run, and the settings and secrets of what is `running` are those of now.
        """
        return not running.problems and all(each.ready and each.current for each in running.replicas)

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
        """Send each request of `new` once to a replica of it that nobody else reaches, and return what failed.

        It has the environment's real settings, secrets, stores and network; it ends with this call. With `database`, a
        name, it uses that one of the same server as the service's role, and no Redis: that knows what is in the other.
        A request has `tries`. What was written and is not removed is in `journal`, however this ends; `log` gets what
        the replica logged. `watch(line)` is called while waiting, and may raise. Raise `NotReady` where nothing could
        be asked.
        """

    def put_back(self, old: Artifact) -> None:
        """Bring back the data stores and the edge that `prepare` exchanged, as they were when `old` was proved."""
        return

    def keep(self) -> None:
        """Note the data stores and the edge as they are now, with a release just proved: `put_back` needs it."""
        return

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Replace each replica with one of `new`.

        `watch(line)` is called while waiting, and may raise to stop the rollout.
        `back`: the other replicas have failed, so they drain at once as soon as a replica of `new` serves.
        """

    def withdraw(self) -> None:
        """Stop each replica, because a first release that failed has nothing to go back to."""

    def down(self, *, volumes: bool) -> None:
        """Stop everything; with `volumes`, remove the data too."""


class Secrets(Protocol):
    """The secrets of an environment: where they come from, and what a rotation changes beside them."""

    def read(self) -> dict[str, str]:
        """Return the secrets as they are now where they come from, and who logs in: POSTGRES_USER, POSTGRES_OWNER."""

    def objection(self, name: str) -> str | None:
        """Return why there is nothing to rotate of the secret `name`, in one line with its fix; None if there is."""
        return None

    def elsewhere(self, name: str) -> str | None:
        """Return where a person has to change `name`, because nobody else can write there; None if `write` can."""

    def refresh(self) -> None:
        """Let what fills the secrets from elsewhere do so now, and wait for it: a person has changed them there."""
        return

    def write(self, changes: Mapping[str, str]) -> None:
        """Make all `changes` where the secrets come from, or none of them; an empty value unsets one.

        Raise `SlipwayError` if they are not there afterwards.
        """

    def set_password(self, role: str, password: str | None) -> None:
        """Give the login `role` of the database a password; None: it has none, and nobody logs in with it."""
        return

    def change_superuser(self) -> None:
        """Give the superuser of the database a new password, and keep that where the old one is kept.

        It may be killed at any point, and called again.
        """
        return

    def lifetime_minutes(self) -> float:
        """Return how long an access token is valid (JWT_EXPIRE_MINUTES)."""


class Watch(Protocol):
    """What the engine itself sees of a release while the traffic judges it."""

    def trouble(self) -> str | None:
        """Return the engine's reason to fail the release just rolled out (such as a replica that ended), or None."""

    def remarks(self) -> list[str]:
        """List what the engine did on its own during the proof, if it is worth knowing, one line each."""
        return []

    def dismiss(self) -> None:
        """Tell the second view that the proof has seen enough.

        It may stop and report while the writes are read back.
        """
        return

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """Return what a vantage beside the service saw of a rollout: one line on who lost requests, and the figures.

        From outside, `failed` of `sent` requests failed. Return None if there was no such vantage.
        """
        return None


class Backups(Protocol):
    """The backups of the database, and the program that makes and restores them: `python -m backend.backups`."""

    def run(
        self,
        verb: str,
        *arguments: str,
        told: Callable[[str], None],
        given: Mapping[str, Any] | None = None,
        seconds: float = LONGEST,
    ) -> dict[str, Any]:
        """Run a `verb` of the program near the database, and return the object that it prints last.

        It connects as the owner, and where one is at hand it gets a superuser, too. `given` is its standard input, as
        JSON, and not secret. `told(line)` is called with each line of its progress, and may raise. A program that is
        given up, because of that or after `seconds`, gets SIGTERM and the time to clean up. An object with `problem`
        is returned however the program ends. Else raise `ProgramFailed` if it fails, `UsageError` with what it said if
        it ends with 2, another `SlipwayError` if it could not be run. See `answer_of` beside this module.
        """

    def fetch(self, name: str, folder: Path, told: Callable[[str], None]) -> None:
        """Copy the files of the backup `name`, as they are stored, to `folder` on this machine, which is empty."""

    def drill(self, name: str, serving: Artifact, told: Callable[[str], None]) -> dict[str, Any]:
        """Restore the backup `name` into a throwaway PostgreSQL, and try it with the release that is `serving`.

        The program restores it as the owner and runs that release's pending migrations; then the smoke requests are
        sent to a throwaway replica, as the service's role. Return `drilled` (what the program said of it), `sent` (how
        many requests) and `seconds` (by step: restore, try). `told(line)` is as for `run`. Raise `DeployFailed` where
        the backup is no good, another `SlipwayError` where that could not be tried.
        """

    def drilled(self) -> Mapping[str, Any] | None:
        """Return the report of the last drill that ran without this pipeline, such as a scheduled one; None for none.

        Its keys are those of the `report.json` of `nox -s drill`.
        """
        return None

    def hint(self) -> str:
        """Return the line that says how backups and drills are scheduled here."""
