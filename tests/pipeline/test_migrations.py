"""Which migrations may run while the old release serves."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import DeployFailed
from pipeline.migrations import RetainedRelease, migration_problems, pending_migrations
from pipeline.model import Migration


def problems(sql: str, contract_after: str | None = None, *retained: tuple[str, str]) -> list[str]:
    migration = Migration(revision="0003", message="change", contract_after=contract_after, sql=sql)
    return migration_problems([migration], [RetainedRelease(name, revision) for name, revision in retained])


class TestMigrationProblems:
    @pytest.mark.parametrize(
        "sql",
        [
            "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz NOT NULL);\nCREATE INDEX i ON t (at);",
            "ALTER TABLE releases ADD COLUMN notes text;",
            "CREATE INDEX CONCURRENTLY i ON releases (service);",
        ],
    )
    def test_let_expanding_ones_pass(self, sql: str) -> None:
        """What only adds, and blocks nobody, may run."""
        assert problems(sql) == []

    @pytest.mark.parametrize(
        ("sql", "rule"),
        [
            ("CREATE INDEX i ON releases (service);", "require-concurrent-index-creation"),
            ("ALTER TABLE releases ALTER COLUMN url SET NOT NULL;", "adding-not-nullable-field"),
            ("ALTER TABLE releases ADD COLUMN z int NOT NULL;", "adding-required-field"),
            ("ALTER TABLE releases ADD CONSTRAINT u UNIQUE (version);", "disallowed-unique-constraint"),
            ("LOCK TABLE releases IN ACCESS EXCLUSIVE MODE;", "locks a table outright"),
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

    def test_let_declared_contracting_ones_pass_when_nobody_needs_it(self) -> None:
        """Once every retained release is of the declared revision or newer, the column may go."""
        assert problems("ALTER TABLE r DROP COLUMN c;", "0002", ("new", "0002")) == []

    def test_refuse_declared_contracting_ones_while_a_retained_release_needs_it(self) -> None:
        """A release that one can roll back to and whose code is older holds the column; it is named."""
        found = problems("ALTER TABLE r DROP COLUMN c;", "0002", ("new", "0002"), ("old", "0001"))
        assert len(found) == 1
        assert "release old still needs" in found[0]


class TestPendingMigrations:
    PLAN = json.dumps([{"revision": "0002", "message": "m", "contract_after": None, "sql": "SELECT 1", "more": 1}])
    MIGRATION = Migration("0002", "m", None, "SELECT 1")

    def ask(self, current: str, serving: str = "a") -> tuple[list[Migration], list[str]]:
        """What a release of revision 0002 has to bring, and what was said; code of 0001: `a` here, SERVING there."""
        said: list[str] = []
        found = pending_migrations(
            "0002",
            current,
            mine={"0001": "a", "0002": "b"},
            serving=[{"0001": serving}],
            plan=lambda: self.PLAN,
            say=said.append,
        )
        return found, said

    def test_are_all_where_nothing_was_migrated(self) -> None:
        """An edited one too: it was never applied here."""
        assert self.ask("none", "edited") == (
            [self.MIGRATION],
            ["no migrated database answers: each migration counts as new"],
        )

    def test_are_those_after_the_databases_revision(self) -> None:
        """As the release itself plans them."""
        assert self.ask("0001") == ([self.MIGRATION], [])

    @pytest.mark.parametrize("current", ["0002", "0003"])
    def test_are_none_where_the_database_is_there_or_ahead(self, current: str) -> None:
        """A rollback asks nobody for a plan."""
        assert self.ask(current) == ([], [])

    @pytest.mark.parametrize("current", ["0001", "0002"])
    def test_must_leave_applied_ones_alone(self, current: str) -> None:
        """An edit of what ran already would never run."""
        with pytest.raises(DeployFailed, match="migration 0001 is applied already"):
            self.ask(current, "edited")
