"""Which migrations may run while the old release serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.releases.migrations import RetainedRelease, migration_line, migration_problems
from pipeline.releases.model import Loss, Migration


def problems(sql: str, contract_after: str | None = None, *retained: tuple[str, str]) -> list[str]:
    migration = Migration(revision="0003", message="change", contract_after=contract_after, sql=sql)
    return migration_problems([migration], [RetainedRelease(name, revision) for name, revision in retained])


class TestMigrationProblems:
    @pytest.mark.parametrize(
        "sql",
        [
            "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz NOT NULL);\nCREATE INDEX i ON t (at);",
            "ALTER TABLE board ADD COLUMN notes text, ADD COLUMN weight_g integer;",
            "CREATE INDEX CONCURRENTLY i ON board (service);",
            "-- People come; lock and key follow.\nCREATE TABLE doors (\n    lock text\n);",
        ],
    )
    def test_let_expanding_ones_pass(self, sql: str) -> None:
        """What only adds, and blocks nobody, may run."""
        assert problems(sql) == []

    @pytest.mark.parametrize(
        ("sql", "rule"),
        [
            ("CREATE INDEX i ON board (service);", "require-concurrent-index-creation"),
            ("ALTER TABLE board ALTER COLUMN url SET NOT NULL;", "adding-not-nullable-field"),
            ("ALTER TABLE board ADD COLUMN z int NOT NULL;", "adding-required-field"),
            ("ALTER TABLE board ADD CONSTRAINT u UNIQUE (version);", "disallowed-unique-constraint"),
            ("SELECT 1;\n\n-- For a moment.\nLOCK TABLE board IN ACCESS EXCLUSIVE MODE;", "locks a table outright"),
            ("DO $$ BEGIN\n  LOCK board; END $$;", "locks a table outright"),
        ],
    )
    def test_refuse_blocking_ones(self, sql: str, rule: str) -> None:
        """What holds a lock that stops the running release's writes is refused, with the rule's name."""
        found = problems(sql)
        assert rule in " ".join(found)
        assert all("blocks the running release" in problem for problem in found)

    @pytest.mark.parametrize(
        "sql", ["ALTER TABLE r DROP COLUMN c;", "DROP TABLE r;", "ALTER TABLE r RENAME COLUMN a TO b;"]
    )
    def test_refuse_undeclared_contracting_ones(self, sql: str) -> None:
        """What takes something away is refused, with the declaration that would allow it."""
        assert 'contract_after = "NNNN"' in problems(sql)[0]

    def test_are_the_same_in_each_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A configuration of squawk that lies there is not asked: what is excluded stands in one place."""
        (tmp_path / ".squawk.toml").write_text('excluded_rules = ["ban-drop-table"]\n')
        monkeypatch.chdir(tmp_path)
        assert "ban-drop-table" in problems("DROP TABLE r;")[0]

    def test_let_declared_contracting_ones_pass_when_nobody_needs_it(self) -> None:
        """Once every retained release is of the declared revision or newer, the column may go."""
        assert problems("ALTER TABLE r DROP COLUMN c;", "0002", ("new", "0002")) == []

    def test_refuse_declared_contracting_ones_while_a_retained_release_needs_it(self) -> None:
        """A release that one can roll back to and whose code is older holds the column; it is named."""
        found = problems("ALTER TABLE r DROP COLUMN c;", "0002", ("new", "0002"), ("old", "0001"))
        assert len(found) == 1
        assert "release old still needs" in found[0]

    @pytest.mark.parametrize(
        ("rows", "says"), [(1, "1 row"), (12345, "12,345 rows"), (None, "rows that nobody can count")]
    )
    def test_refuse_those_that_destroy_rows(self, rows: int | None, says: str) -> None:
        """With their number, and what the migration has to say."""
        [problem] = migration_problems([destroying(rows)], [])
        assert problem.startswith(f"migration 0003 (change) destroys {says}: TRUNCATE t. ")
        assert '`destroys = "why"`' in problem

    def test_let_those_pass_that_destroy_nothing_or_say_why(self) -> None:
        """An empty table has no rows to lose."""
        assert migration_problems([destroying(0), destroying(7, "they are copies")], []) == []


class TestMigrationLine:
    def test_shows_what_is_destroyed_and_why(self) -> None:
        """In the plan, where whoever deploys reads it."""
        line = migration_line(destroying(7, "they are copies"))
        assert line == "migration 0003: change; destroys 7 rows (TRUNCATE t): they are copies"

    def test_shows_what_nothing_can_judge(self) -> None:
        """Code has no SQL before it runs."""
        assert "no SQL before it runs" in migration_line(Migration("0003", "change", None, ""))


def destroying(rows: int | None, why: str | None = None) -> Migration:
    return Migration("0003", "change", None, "TRUNCATE t;", why, (Loss("TRUNCATE t", rows),))
