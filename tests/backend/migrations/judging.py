"""What `check` says of migrations on a real database, and what the judge says of the files alone."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import SlipwayError
from pipeline.releases.migrations import RetainedRelease, migration_problems
from pipeline.releases.model import Artifact, Migration
from pipeline.releases.schema import ask_schema, plan_migrations
from pipeline.system.git import Source
from tests.backend.migrations.conftest import Run

__all__ = ["checked", "judged", "pending"]

RELEASE = Artifact("new", Source(None, dirty=False), "9999", ())


@dataclass(frozen=True)
class Here:
    """The database of the test, as a target reaches its own: by the migrations command."""

    run: Run

    def runs(self, new: Artifact) -> bool:
        """Return that it runs."""
        return True

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the command; return what it printed."""
        done = self.run(*arguments)
        if done.returncode:
            raise SlipwayError(done.stderr)
        return done.stdout


def pending(run: Run) -> list[Migration]:
    """Return what the database lacks."""
    schema = ask_schema(Here(run), RELEASE, None, kept=(), forgotten=None)
    assert schema is not None
    return schema.pending


def checked(run: Run, *kept: str) -> list[str]:
    """Return what `check` has against what the database lacks, beside releases of the revisions `kept`."""
    retained = [RetainedRelease(f"release-{revision}", revision) for revision in kept]
    return migration_problems(pending(run), retained)


def judged(run: Run) -> list[str]:
    """Return what the judge has against the files, without a database."""
    return migration_problems(plan_migrations(Here(run), RELEASE))
