"""The migrations of a deploy: compared with the database, judged, rehearsed, and then run exactly as checked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.deploy.contracting import back_up_first
from pipeline.errors import DeployFailed, UsageError
from pipeline.releases.migrations import RetainedRelease, migration_line, migration_problems
from pipeline.releases.model import Artifact, Migration, short
from pipeline.releases.schema import Schema, ask_schema, plan_migrations
from pipeline.targets import Target

__all__ = ["SchemaCheck"]

log = logging.getLogger(__name__)


@dataclass
class SchemaCheck:
    """The migrations of one deploy.

    `expected`: whether there must be a migrated database; `forgotten`: an applied migration to forget first;
    `cancel_backup`: whether a backup that runs is ended, because migrations must not run beside it. `told` is called
    with the progress of a backup that is made first; in a `dry_run`, none is.
    """

    target: Target
    expected: bool = False
    forgotten: str | None = None
    cancel_backup: bool = False
    told: Callable[[str], None] = log.debug
    dry_run: bool = False
    schema: Schema | None = None  # None while there is no database to ask
    pending: list[Migration] = field(default_factory=list)
    _tried: set[str] = field(default_factory=set)

    @property
    def nothing_to_do(self) -> bool:
        """Whether the database was asked and lacks nothing."""
        return self.schema is not None and self.schema.recorded and not self.pending and not self.forgotten

    @property
    def is_new(self) -> bool:
        """Whether the database was never migrated before this deploy."""
        return self.schema is not None and self.schema.revision is None

    def check(
        self, new: Artifact, old: Artifact | None, retained: list[RetainedRelease], *, started: bool = False
    ) -> None:
        """Refuse migrations of `new` that must not run on this database; rehearse those that it lacks.

        `old` is what serves; the releases in `retained` must keep working. If the database could not be asked, call
        this again once it is `started`. Raise `DeployFailed` or `UsageError` where a migration is refused.
        """
        if new.revision is None:
            self.schema = Schema(None, [], recorded=True)
            return
        # A release that is shipped once more is not among the others that are kept, and serves all the same.
        serving = [RetainedRelease(old.name, old.revision)] if old and old.revision else []
        self._refuse_to_forget([*retained, *serving])
        kept = [release.revision for release in retained]
        self.schema = ask_schema(self.target.database, new, old, kept=kept, forgotten=self.forgotten, started=started)
        if self.schema is None and self.expected:
            log.info("the database is not running: its migrations are compared once it is, before any of them runs")
            return
        if self.schema and self.schema.revision is None and self.expected:
            raise DeployFailed(
                f"the database of {self.target.env.name} was never migrated, and releases were proved here: it is not"
                " the one that they used (docs/4-runbook.md, The database is empty). To start over with an empty one:"
                f" `nox -s deploy -- {self.target.env.name} --empty-database`"
            )
        self.pending = self.schema.pending if self.schema else plan_migrations(self.target.database, new)
        self._look_for_backups()
        self._try_pending(new, old, retained)
        if self.schema and self.schema.revision is not None:
            back_up_first(self.target, self.pending, self.told, dry_run=self.dry_run)

    def upgrade(self, new: Artifact, retained: list[RetainedRelease]) -> None:
        """Run on the real database exactly what was checked."""
        assert self.schema is not None  # it was asked when it was started, at the latest
        if not self.nothing_to_do:
            kept = [release.revision for release in retained]
            arguments = self.schema.upgrade_arguments(kept, self.forgotten, cancel_backup=self.cancel_backup)
            self.target.database.migrations(new, *arguments)

    def _look_for_backups(self) -> None:
        """Raise `DeployFailed` where a backup runs that keeps the pending migrations out, and is not to be ended."""
        if self.cancel_backup and not self.pending:
            log.info("--cancel-backup: no migration is pending, so no backup is ended")
        backup = self.schema.backup if self.schema else None
        if backup and not self.cancel_backup:
            raise DeployFailed(f"a backup runs {backup}: wait, or deploy with --cancel-backup; nothing was changed")
        if backup:
            log.warning(f"the backup that runs {backup} is ended before the first migration (--cancel-backup)")

    def _refuse_to_forget(self, retained: list[RetainedRelease]) -> None:
        needing = dict.fromkeys(
            release.name for release in retained if self.forgotten and release.revision >= self.forgotten
        )
        if needing:
            raise UsageError(
                f"migration {self.forgotten} cannot be forgotten: release {', '.join(map(short, needing))} needs it and"
                " is kept to roll back to (`*` in `nox -s releases`; `retain` in [tool.slipway]): write a new migration"
            )

    def _try_pending(self, new: Artifact, old: Artifact | None, retained: list[RetainedRelease]) -> None:
        revisions = {migration.revision for migration in self.pending}
        for migration in self.pending if not revisions <= self._tried else ():
            log.info(migration_line(migration))
        problems = migration_problems(self.pending, retained)
        if problems:
            raise DeployFailed(*problems)
        if not revisions <= self._tried:
            self.target.database.rehearse(new, old)
            self._tried |= revisions
