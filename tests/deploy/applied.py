"""What a database has applied is compared with the files: the same on each target that ships images."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tests.deploy.breaking import add_migration
from tests.deploy.checkout import Checkout
from tests.deploy.runs import Outcome

__all__ = [
    "asks_a_database_that_did_not_run",
    "begins_a_history",
    "notes_revision",
    "refuses_another_form",
    "runs_programs",
]

PROGRAM = """
import sys
from pathlib import Path
from pipeline.config.project import load_project
from pipeline.errors import SlipwayError
from pipeline.system.progress import Progress
from pipeline.targets import open_target

project = load_project(Path.cwd())
try:
    print(open_target(project, project.environment(sys.argv[1]), Progress()).database.run(*sys.argv[2:]))
except SlipwayError as error:
    sys.exit(str(error))
"""


def notes_revision(one: Checkout) -> str:
    """Return the revision that makes the table of notes."""
    [path] = (one.root / "backend/migrations/versions").glob("*_testing_notes.py")
    return path.name[:4]


def refuses_another_form(sound: Checkout) -> None:
    """Refuse what was applied in another form, where its release was undone, too; rows go only with a reason."""
    old = sound.answering()
    revision = add_migration(sound, "labels", "ALTER TABLE testing_notes ADD COLUMN label text")
    sound.append("backend/app.py", "raise RuntimeError('broken')\n")
    assert sound.deploy().verdict == "rolled_back"
    assert sound.sql("SELECT version_num FROM alembic_version") == revision
    sound.restore()
    add_migration(sound, "labels", "ALTER TABLE testing_notes ADD COLUMN label text, ADD COLUMN colour text")
    refused = sound.deploy()
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert f"migration {revision} (labels) was applied in another form" in refused.reason
    sound.restore()

    add_migration(sound, "labels", "ALTER TABLE testing_notes ADD COLUMN label text")
    sound.write_note("1.0.0")
    rows = sound.sql("SELECT count(*) FROM testing_notes")
    later = add_migration(sound, "clean up", "TRUNCATE testing_notes")
    refused = sound.deploy()
    assert f"migration {later} (clean up) destroys {rows} row" in refused.reason, str(refused)
    assert sound.sql("SELECT count(*) FROM testing_notes") == rows
    assert sound.answering() == old
    next((sound.root / "backend/migrations/versions").glob(f"{later}_*.py")).unlink()
    sound.proved()
    sound.commit()


def asks_a_database_that_did_not_run(sound: Checkout, serving: Callable[[], list[Any]], **environ: str) -> None:
    """Refuse an edit once PostgreSQL runs again, before anything is applied; nothing may be `serving` then.

    `environ`: what `down` needs besides.
    """
    assert sound.run("down", **environ).code == 0
    first = notes_revision(sound)
    sound.patch(f"backend/migrations/versions/{first}_testing_notes.py", "tag text,", "tag text, more text,")
    refused = sound.deploy()
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert f"migration {first}" in refused.reason
    assert "was applied in another form" in refused.reason
    assert serving() == []
    sound.restore()
    sound.proved()


def begins_a_history(sound: Checkout) -> None:
    """Record what a database of before has applied, in the form that the serving image has."""
    # A release of before asks for no history in its /ready, so it goes on serving without one.
    asked = "EXISTS (SELECT FROM alembic_history WHERE revision = $1)"
    sound.patch("backend/health/service.py", asked, "EXISTS (SELECT FROM alembic_version WHERE version_num >= $1)")
    sound.proved()
    sound.sql("DROP TABLE alembic_history")
    sound.restore()
    sound.change("with a history")
    outcome = sound.proved()
    assert "recorded as unknown" not in outcome.stderr
    assert sound.sql("SELECT count(*) FROM alembic_history WHERE checksum IS NULL") == "0"
    assert sound.sql("SELECT count(*) FROM alembic_history") != "0"


def runs_programs(sound: Checkout) -> None:
    """Run PostgreSQL's own programs near the database as the owner, and say why one fails."""

    def run(*command: str) -> Outcome:
        return sound.start_program([sys.executable, "-c", PROGRAM, sound.environment, *command]).finish()

    def ask(query: str) -> Outcome:
        return run("psql", "--no-psqlrc", "-tAc", query)

    assert ask("SELECT version_num FROM alembic_version").stdout.strip() == sound.revision()
    owner = ask(
        "SELECT tableowner = current_user FROM pg_tables WHERE schemaname = 'public' AND tablename = 'testing_notes'"
    )
    assert owner.stdout.strip() == "t", str(owner)
    assert "CREATE TABLE public.testing_notes" in run("pg_dump", "--schema-only").stdout
    refused = ask("SELECT * FROM nothing")
    assert refused.code == 1
    assert 'relation "nothing" does not exist' in refused.stderr.splitlines()[-1], str(refused)
