"""Migrations that a running release could not live with are refused before the real database is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.deploy.breaking import add_migration
from tests.deploy.checkout import Checkout
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

VERSIONS = "backend/migrations/versions"


@dataclass(frozen=True)
class Case:
    """The SQL of a migration, and what must be reported of it; {migration} is its revision."""

    statements: tuple[str, ...]
    says: tuple[str, ...]


REFUSED = {
    "has an error": Case(
        ("ALTER TABLE testing_notes ADD COLUMN colour no_such_type",),
        ("migration {migration} failed", 'type "no_such_type" does not exist')),
    "is no SQL": Case(
        ("ALTER TABEL testing_notes ADD COLUMN colour text",), ("migration {migration}", "syntax")),
    "locks the table while an index is built": Case(
        ("CREATE INDEX testing_tag_idx ON testing_notes (tag)",),
        ("migration {migration}", "blocks the running release")),
    "locks the table outright": Case(
        ("LOCK TABLE testing_notes",), ("migration {migration}", "locks a table outright")),
    "rewrites the table": Case(
        ("ALTER TABLE testing_notes ALTER COLUMN tag TYPE varchar(9)",), ("migration {migration}", "running release")),
    "drops a column": Case(
        ("ALTER TABLE testing_notes DROP COLUMN tag",), ("migration {migration}", "takes away", "contract_after")),
    "asks for a value that the old release does not give": Case(
        ("ALTER TABLE testing_notes ADD COLUMN team text NOT NULL",), ("migration {migration}",)),
    "refuses what the old release writes": Case(
        ("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no team'; END $$",
         "CREATE TRIGGER team BEFORE INSERT ON testing_notes FOR EACH ROW EXECUTE FUNCTION refuse()"),
        ("running release {old} cannot live with the new schema", f"POST {NOTES}")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_dangerous_migration_is_refused(name: str, sound: Checkout) -> None:
    """It ends in `check`, with a line that names the migration; database and service are as they were."""
    case, [old], revision = REFUSED[name], sound.answering(), sound.revision()
    migration = add_migration(sound, "dangerous", *case.statements)
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    for words in case.says:
        assert words.format(migration=migration, old=old) in outcome.reason, str(outcome)
    assert [stage["name"] for stage in outcome.report["stages"] if stage["outcome"] == "failed"] == ["check"]
    assert "Traceback" not in outcome.stderr
    assert sound.revision() == revision
    assert sound.answering() == {old}
    assert sound.untidy() == []


def _two_of_one_number(checkout: Checkout) -> list[str]:
    revision = add_migration(checkout, "colours", "ALTER TABLE testing_notes ADD COLUMN colour text")
    first = checkout.root / VERSIONS / f"{revision}_colours.py"
    checkout.write(f"{VERSIONS}/{revision}_sizes.py", first.read_text(encoding="utf-8").replace("colour", "size"))
    return [f"{revision}_colours.py", f"{revision}_sizes.py"]


def _fork(checkout: Checkout) -> list[str]:
    before = checkout.revision()
    first = add_migration(checkout, "colours", "ALTER TABLE testing_notes ADD COLUMN colour text")
    second = add_migration(checkout, "sizes", "ALTER TABLE testing_notes ADD COLUMN size text")
    name = f"{VERSIONS}/{second}_sizes.py"
    checkout.patch(name, f'down_revision = "{first}"', f'down_revision = "{before}"')
    return [f"{first}_colours.py", f"{second}_sizes.py", before]


def _gap(checkout: Checkout) -> list[str]:
    absent = add_migration(checkout, "colours", "ALTER TABLE testing_notes ADD COLUMN colour text")
    second = add_migration(checkout, "sizes", "ALTER TABLE testing_notes ADD COLUMN size text")
    (checkout.root / VERSIONS / f"{absent}_colours.py").unlink()
    return [f"{second}_sizes.py", absent]


# Each writes the files, and returns words of the line that reports them.
UNSOUND: dict[str, Callable[[Checkout], list[str]]] = {
    "two of one number": _two_of_one_number, "a fork": _fork, "a gap": _gap
}  # fmt: skip


@pytest.mark.parametrize("what", UNSOUND)
def test_migration_files_that_are_no_chain_are_refused_before_anything_is_built(what: str, sound: Checkout) -> None:
    """Exit code 2 and one line that names the files; there is no new artifact and no record, and the old one serves."""
    before = _state(sound)
    words = UNSOUND[what](sound)
    outcome = sound.deploy()
    assert (outcome.code, outcome.stdout) == (2, ""), str(outcome)
    [line] = outcome.problems()
    assert not [word for word in words if word not in line], line
    assert "Traceback" not in outcome.stderr
    assert _state(sound) == before
    assert sound.untidy() == []


def _state(checkout: Checkout) -> tuple[str, set[str], set[str], set[str]]:
    """Return the schema's revision, what was built, the records, and the releases that answer."""
    built, recorded = ({path.name for path in (checkout.home / name).iterdir()} for name in ("artifacts", "releases"))
    return checkout.revision(), built, recorded, checkout.answering()


def test_a_migration_that_only_the_real_data_refuses_leaves_nothing(sound: Checkout) -> None:
    """It fails as a whole: no table of it stays, the revision is the old one, and so is the release that serves."""
    [old], revision = sound.answering(), sound.revision()
    twins = [sound.write_note("a twin")["id"] for _ in range(2)]
    migration = add_migration(
        sound, "labels", "CREATE TABLE labels (text text PRIMARY KEY)",
        "INSERT INTO labels SELECT text FROM testing_notes WHERE NOT synthetic")  # fmt: skip
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert f"migration {migration} failed" in outcome.reason
    assert "duplicate key" in outcome.reason
    assert "half applied" in outcome.reason
    assert sound.revision() == revision
    assert sound.sql("SELECT to_regclass('labels')") is None
    assert sound.answering() == {old}
    assert sound.untidy() == []
    for twin in twins:
        assert sound.request("DELETE", f"{NOTES}/{twin}", token=True).status_code == 204


def test_an_index_that_failed_halfway_is_cleaned_up_by_the_next_try(sound: Checkout) -> None:
    """CREATE INDEX CONCURRENTLY has no transaction: what it leaves serves nobody, and the next deploy mends it."""
    [old], revision = sound.answering(), sound.revision()
    twins = [sound.write_note("a twin")["id"] for _ in range(2)]
    migration = add_migration(
        sound, "one row a text",
        "CREATE UNIQUE INDEX CONCURRENTLY texts_idx ON testing_notes (text) WHERE NOT synthetic",
        transactional=False)  # fmt: skip
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert f"migration {migration} failed" in outcome.reason
    assert (sound.revision(), sound.answering()) == (revision, {old})
    for twin in twins:
        assert sound.request("DELETE", f"{NOTES}/{twin}", token=True).status_code == 204
    mended = sound.proved()
    assert sound.revision() == migration
    assert sound.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'texts_idx'::regclass") is True
    assert sound.answering() == {mended.release}
    sound.commit()


def test_an_expanding_migration_ships(sound: Checkout) -> None:
    """Traffic of the old release runs through the migration, and nothing of it fails."""
    [old] = sound.answering()
    migration = add_migration(sound, "colours", "ALTER TABLE testing_notes ADD COLUMN colour text")
    outcome = sound.proved()
    assert sound.revision() == migration
    assert set(outcome.traffic["by_release"]) == {old, outcome.release}
    assert "colours" in outcome.stderr, "the migration is announced"
    assert sound.untidy() == []
    sound.commit()


def test_a_contracting_migration_waits_until_no_release_needs_what_it_drops(sound: Checkout) -> None:
    """Declared, it is refused by name of the release that one could still go back to; without that one it ships."""
    [old] = sound.answering()
    expand = add_migration(sound, "sizes", "ALTER TABLE testing_notes ADD COLUMN size text")
    expanded = sound.proved()
    sound.commit()
    contract = add_migration(sound, "no sizes", "ALTER TABLE testing_notes DROP COLUMN size", contract_after=expand)
    refused = sound.deploy()
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert f"migration {contract}" in refused.reason
    assert old in refused.reason
    assert expanded.release not in refused.reason
    assert (sound.revision(), sound.answering()) == (expand, {expanded.release})

    (sound.root / f"backend/migrations/versions/{contract}_no_sizes.py").rename(sound.root / "later.py")
    sound.patch("pyproject.toml", "retain = 5", "retain = 2")
    sound.change("no size any more")
    sound.proved()
    (sound.root / "later.py").rename(sound.root / f"backend/migrations/versions/{contract}_no_sizes.py")
    sound.proved()
    assert sound.revision() == contract
    assert sound.untidy() == []
