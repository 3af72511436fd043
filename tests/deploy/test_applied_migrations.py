"""What the database has applied is always compared with the files: by its own history, not by the order of numbers."""

from __future__ import annotations

import pytest

from tests.deploy import applied
from tests.deploy.breaking import add_migration
from tests.deploy.checkout import Checkout
from tests.deploy.runs import Outcome
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

BROKEN = "raise RuntimeError('broken')\n"


def refused(outcome: Outcome, *words: str) -> None:
    """Check that the deploy ended in `check`, and that its reason has each of `words`."""
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert [one["name"] for one in outcome.report["stages"] if one["outcome"] == "failed"] == ["check"], str(outcome)
    for word in words:
        assert word in outcome.reason, str(outcome)


def columns(checkout: Checkout) -> str:
    """Return the columns of the table of notes, in one string."""
    query = "SELECT string_agg(column_name, ' ') FROM information_schema.columns WHERE table_name = 'testing_notes'"
    return str(checkout.sql(query))


def edit(checkout: Checkout, revision: str, old: str, new: str) -> None:
    """Replace `old` with `new` in the migration `revision`."""
    [path] = (checkout.root / "backend/migrations/versions").glob(f"{revision}_*.py")
    checkout.patch(str(path.relative_to(checkout.root)), old, new)


def test_an_edit_of_an_applied_migration_is_refused(sound: Checkout) -> None:
    """Also where its release was undone; comments, layout and what a migration says of itself may change."""
    [old] = sound.answering()
    revision = add_migration(sound, "labels", "ALTER TABLE testing_notes ADD COLUMN label text")
    sound.append("backend/app.py", BROKEN)
    assert sound.deploy().verdict == "rolled_back"
    assert (sound.revision(), sound.answering()) == (revision, {old})
    sound.git("checkout", "--quiet", "--", "backend/app.py")

    edit(sound, revision, "ADD COLUMN label text", "ADD COLUMN label text, ADD COLUMN colour text")
    refused(
        sound.deploy(), f"migration {revision} (labels) was applied in another form", f"--forget-migration {revision}"
    )
    assert "colour" not in columns(sound)

    edit(sound, revision, "ADD COLUMN label text, ADD COLUMN colour text", "add  column label text -- for people")
    edit(sound, revision, '"""labels"""', '"""labels of notes"""\n# A comment.')
    outcome = sound.proved()

    before = sound.run("rollback", "--json")  # a proved release that was rolled back
    assert before.verdict == "proved", str(before)
    assert sound.answering() == {old}
    edit(sound, revision, "column label text", "column label text, ADD COLUMN colour text")
    refused(sound.deploy(), f"migration {revision}", "another form")
    refused(sound.deploy("--dry-run"), f"migration {revision}", "another form")
    kept = sound.deploy("--forget-migration", revision)
    assert (kept.code, kept.verdict) == (2, "failed"), str(kept)
    assert outcome.release[:7] in kept.reason
    edit(sound, revision, "column label text, ADD COLUMN colour text", "column label text")
    sound.proved()
    sound.commit()


def test_what_is_forgotten_runs_anew(sound: Checkout) -> None:
    """Where no kept release needs it; what it did to the database stays."""
    revision = add_migration(sound, "sizes", "ALTER TABLE testing_notes ADD COLUMN size text")
    sound.append("backend/app.py", BROKEN)
    assert sound.deploy().verdict == "rolled_back"
    sound.git("checkout", "--quiet", "--", "backend/app.py")
    edit(sound, revision, "ADD COLUMN size text", "ADD COLUMN IF NOT EXISTS size text, ADD COLUMN weight text")
    refused(sound.deploy(), "another form", "the database keeps what it did")
    sound.proved("--forget-migration", revision)
    assert "size weight" in columns(sound)
    assert sound.revision() == revision
    sound.commit()


def test_a_lower_number_that_arrives_later_is_refused(sound: Checkout) -> None:
    """It would never run; the line has the command that moves it to the end."""
    first = add_migration(sound, "first", "SELECT 1")
    second = add_migration(sound, "second", "SELECT 2")
    [path] = (sound.root / "backend/migrations/versions").glob(f"{first}_*.py")
    late = path.read_text()
    path.unlink()
    before = f"{int(first) - 1:04}"
    edit(sound, second, f'down_revision = "{first}"', f'down_revision = "{before}"')
    sound.proved()
    edit(sound, second, f'down_revision = "{before}"', f'down_revision = "{first}"')
    path.write_text(late)
    refused(sound.deploy(), f"migration {first} (first) is not applied and would never run", f"--renumber {first}")
    path.unlink()
    edit(sound, second, f'down_revision = "{first}"', f'down_revision = "{before}"')
    sound.commit()


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM testing_notes", "TRUNCATE testing_notes", "UPDATE testing_notes SET tag = NULL",
     "DO $$ BEGIN EXECUTE 'TRUNCATE testing_notes'; END $$"])  # fmt: skip
def test_rows_are_destroyed_with_leave_alone(sound: Checkout, statement: str) -> None:
    """A statement that throws rows away is refused with their number."""
    rows = [sound.write_note(f"1.0.{number}")["id"] for number in range(3)]
    revision = add_migration(sound, "clean up", statement)
    count = sound.sql("SELECT count(*) FROM testing_notes")
    refused(sound.deploy(), f"migration {revision} (clean up) destroys {count} rows: ", 'destroys = "why"')
    assert sound.sql("SELECT count(*) FROM testing_notes") == count
    for row in rows:
        assert sound.request("DELETE", f"{NOTES}/{row}", token=True).status_code == 204


def test_a_migration_that_says_why_may_destroy_rows(sound: Checkout) -> None:
    """The plan shows how many, and why."""
    row = sound.write_note("1.0.0")["id"]
    sound.write_note("1.0.1")
    count = sound.sql("SELECT count(*) FROM testing_notes")
    revision = add_migration(sound, "no tags", "UPDATE testing_notes SET tag = NULL")
    edit(sound, revision, "contract_after:", 'destroys = "nobody reads the tags"\ncontract_after:')
    outcome = sound.proved()
    told = [line for line in outcome.stderr.splitlines() if f"migration {revision}: " in line]
    assert len(told) == 1
    assert f"; destroys {count} rows (" in told[0]
    assert told[0].endswith("(UPDATE testing_notes without WHERE): nobody reads the tags")
    assert sound.request("DELETE", f"{NOTES}/{row}", token=True).status_code == 204
    sound.commit()


def test_an_unknown_revision_is_refused(sound: Checkout) -> None:
    """However it sorts: nobody knows what such a database holds. The line has the way back."""
    revision = sound.revision()
    migration = add_migration(sound, "more", "ALTER TABLE testing_notes ADD COLUMN more text")
    for unknown in ("ae1027a6acf", "0000abcdef12"):
        sound.sql(f"UPDATE alembic_version SET version_num = '{unknown}'")
        back = f"UPDATE alembic_version SET version_num = '{revision}'"
        refused(sound.deploy(), f"alembic_version says `{unknown}`", back)
        assert back in sound.run("doctor").stdout + sound.run("doctor").stderr
    sound.sql("DELETE FROM alembic_version")
    refused(sound.deploy(), "alembic_version is empty, and the database has", revision)
    sound.sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
    sound.proved()
    assert sound.revision() == migration
    sound.commit()


def test_a_database_of_before_gets_a_history(sound: Checkout) -> None:
    """Recorded as what serves has it; an edit is refused as before, and from then on by the checksum."""
    revision = sound.revision()
    sound.sql("DROP TABLE alembic_history")
    first = applied.notes_revision(sound)
    edit(sound, first, "tag text,", "tag text, more text,")
    refused(sound.deploy(), f"migration {first} was applied in another form")
    sound.restore()
    sound.proved()
    known = sound.sql("SELECT count(*) FROM alembic_history WHERE checksum IS NOT NULL")
    assert known == sound.sql("SELECT count(*) FROM alembic_history")
    assert sound.revision() == revision


def test_an_empty_database_is_no_first_deploy(sound: Checkout) -> None:
    """Where releases were proved, a database that was never migrated is another one."""
    sound.sql("ALTER SCHEMA public RENAME TO hidden")
    sound.sql("CREATE SCHEMA public AUTHORIZATION CURRENT_USER")
    sound.sql("GRANT ALL ON SCHEMA public TO PUBLIC")
    refused(sound.deploy(), "was never migrated, and releases were proved here", "--empty-database")
    outcome = sound.deploy("--empty-database")
    assert outcome.code == 0 or outcome.verdict == "rolled_back", str(outcome)
    assert sound.sql("SELECT to_regclass('public.alembic_history') IS NOT NULL")


def test_programs_of_postgresql_run_near_the_database(sound: Checkout) -> None:
    """As the service's role, on PostgreSQL's own socket."""
    applied.runs_programs(sound)
