"""The exceptions that a migration makes for itself."""

from __future__ import annotations

import pytest

from pipeline.releases.exceptions import read_exceptions
from pipeline.releases.migrations import migration_line, migration_problems
from pipeline.releases.model import Migration, Write

INDEX = "CREATE INDEX i ON board (service);"
RULE = "require-concurrent-index-creation"


def migration(sql: str, **given: object) -> Migration:
    return Migration("0003", "change", None, sql, **given)  # type: ignore[arg-type]


def problems(sql: str) -> list[str]:
    return migration_problems([migration(sql)])


class TestExceptions:
    @pytest.mark.parametrize("form", ["-- squawk-ignore {}: a dozen rows", "/* squawk-ignore {}: a dozen rows */"])
    def test_let_pass_what_they_name_and_are_shown_in_the_plan(self, form: str) -> None:
        """With the reason, for whoever deploys."""
        sql = f"{form.format(RULE)}\n{INDEX}"
        assert problems(sql) == []
        assert migration_line(migration(sql)) == f"migration 0003: change; exception to {RULE}: a dozen rows"

    def test_let_nothing_else_pass(self) -> None:
        """Neither another rule, nor the same one at the next statement."""
        sql = f"-- squawk-ignore {RULE}: a dozen rows\n{INDEX}\n{INDEX.replace('INDEX i', 'INDEX j')}"
        [problem] = problems(sql)
        assert f"squawk {RULE}, line 3" in problem

    @pytest.mark.parametrize(
        ("comment", "says"),
        [
            ("-- squawk-ignore-file", "`squawk-ignore-file`, which would switch the judge off"),
            ("--squawk-ignore-file: a reason", "would switch the judge off"),
            ("/* squawk-ignore-file */", "would switch the judge off"),
            ("-- squawk-disable-assume-in-transaction", "would switch the judge off"),
            (f"-- squawk-ignore {RULE}", "without a reason"),
            (f"-- squawk-ignore {RULE}:", "without a reason"),
            ("-- squawk-ignore", "without a reason"),
        ],
    )
    def test_without_rule_and_reason_are_refused_and_have_no_effect(self, comment: str, says: str) -> None:
        """The statement is judged all the same, and one line says what to write."""
        found = problems(f"{comment}\n{INDEX}")
        assert says in found[0]
        assert "`-- squawk-ignore RULE: why it does no harm`" in found[0]
        assert any(RULE in problem for problem in found)

    def test_are_none_from_what_is_taken_away(self) -> None:
        """A comment knows of no release that is kept to roll back to."""
        found = problems("-- squawk-ignore ban-drop-table: nobody reads it\nDROP TABLE board;")
        assert "has an exception to ban-drop-table, which has none: use `contract_after`" in found[0]
        assert "takes away what the running release may need" in found[1]

    def test_to_a_rule_that_there_is_not_are_named(self) -> None:
        """A slip of the pen is no block."""
        found = problems(f"-- squawk-ignore require-index: a dozen rows\n{INDEX}")
        assert any("has an exception to a rule that squawk does not have: " in problem for problem in found)

    def test_keep_the_lines_of_the_sql(self) -> None:
        """So that a finding names the right one."""
        sql = f"-- squawk-ignore-file\nSELECT 1;\n{INDEX}"
        assert read_exceptions(sql).sql.count("\n") == sql.count("\n")


class TestLargeWrites:
    def test_are_refused_with_rows_and_seconds(self) -> None:
        """And the way to do it."""
        one = migration("UPDATE board SET notes = '';", writes=(Write("UPDATE board", 3_000_000),))
        [problem] = migration_problems([one])
        assert "locks about 3,000,000 rows for about 100 s (UPDATE board)" in problem
        assert "in batches (docs/3-migrations.md, A large table)" in problem
        assert "locks about 3,000,000 rows" in migration_line(one)

    def test_pass_with_a_reason(self) -> None:
        """Which the plan shows."""
        sql = "-- squawk-ignore large-write: nobody writes it at night\nUPDATE board SET notes = '';"
        one = migration(sql, writes=(Write("UPDATE board", 3_000_000),))
        assert migration_problems([one]) == []
        assert "exception to large-write: nobody writes it at night" in migration_line(one)

    @pytest.mark.parametrize("rows", [0, 59_999, None])
    def test_are_no_matter_where_they_are_small(self, rows: int | None) -> None:
        """Or unknown: of a table that the release makes itself."""
        one = migration("UPDATE board SET notes = '';", writes=(Write("UPDATE board", rows),))
        assert migration_problems([one]) == []


class TestSafeSequences:
    @pytest.mark.parametrize(
        "sql",
        [
            "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;",
            "ALTER TABLE t VALIDATE CONSTRAINT c;",
            "ALTER TYPE mood ADD VALUE 'b';",
            "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (id) NOT VALID;",
            "ALTER TABLE t ADD CONSTRAINT u UNIQUE USING INDEX i;",
        ],
    )
    def test_pass(self, sql: str) -> None:
        """Each step blocks nobody for long; a matter of taste is no block."""
        assert problems(sql) == []

    def test_pass_with_what_earlier_migrations_prove(self) -> None:
        """`SET NOT NULL` after a check that was validated; without that it is refused."""
        sql = "ALTER TABLE t ALTER COLUMN a SET NOT NULL;"
        assert "adding-not-nullable-field" in problems(sql)[0]
        assert migration_problems([migration(sql, proven=("adding-not-nullable-field",))]) == []

    @pytest.mark.parametrize(
        "sql",
        [
            "DROP VIEW v;", "DROP FUNCTION f();", "DROP TYPE mood;", "DROP SEQUENCE s;", "DROP EXTENSION e;",
            "ALTER TABLE t DROP CONSTRAINT c;", "ALTER VIEW v RENAME TO w;", "ALTER TABLE t ALTER a DROP DEFAULT;",
            "ALTER TABLE t SET SCHEMA s;",
        ],
    )  # fmt: skip
    def test_what_is_taken_away_passes_once_nobody_needs_it(self, sql: str) -> None:
        """Whatever it is: it is refused, with the declaration that allows it."""
        assert 'contract_after = "NNNN"' in problems(sql)[0]
        assert migration_problems([Migration("0003", "change", "0002", sql)]) == []
