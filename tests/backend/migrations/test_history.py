"""What a database has applied, and what a release's migrations would do to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.migrations.history import History, compare
from backend.migrations.plan import Planned, same_form
from tests.backend.migrations.conftest import Run, add, query
from tests.services import Services, psql


def planned(*revisions: str, form: str = "1:a:a") -> list[Planned]:
    return [Planned(one, f"step {one}", None, None, form, "SELECT 1;", ()) for one in revisions]


def history(*applied: str, form: str | None = "1:a:a", version: str | None = None) -> History:
    return History((version or applied[-1],), dict.fromkeys(applied, form), recorded=True, tables=("releases",))


class TestCompare:
    def test_lacks_what_was_not_applied(self) -> None:
        """All of it in a database that was never migrated."""
        assert [one.revision for one in compare(planned("0001", "0002"), History()).pending] == ["0001", "0002"]
        assert [one.revision for one in compare(planned("0001", "0002"), history("0001")).pending] == ["0002"]

    def test_a_newer_database_is_fine(self) -> None:
        """Where nothing of ours would follow what is not ours."""
        found = compare(planned("0001"), history("0001", "0002"))
        assert (found.pending, found.problems) == ([], [])

    @pytest.mark.parametrize(
        ("mine", "theirs", "says"),
        [
            (planned("0001", form="1:b:b"), history("0001"), "migration 0001 (step 0001) was applied in another form"),
            (planned("0001", "0002", "0003"), history("0001", "0003"), "`nox -s migration -- --renumber 0002`"),
            (planned("0001", "0003"), history("0001", "0002"), "has migration 0002, which is not in this release"),
            (planned("0001"), history("0001", version="ae1027a"), "alembic_version says `ae1027a`, which is not"),
            (planned("0001", "0002"), history("0001", "0002", version="0001"), "and 0002 was applied after it"),
            (planned("0001"), History((), {}, tables=("releases",)), "alembic_version is empty, and the database has"),
            (planned("0001"), History(("0001", "0002"), {"0001": "1:a:a"}), "alembic_version has 2 rows (0001, 0002)"),
        ],
    )  # fmt: skip
    def test_refuses_by_name(self, mine: list[Planned], theirs: History, says: str) -> None:
        """What would be skipped in silence, or would run on something that nobody knows."""
        [problem] = compare(mine, theirs).problems
        assert says in problem

    def test_believes_a_revision_that_a_kept_release_is_of(self) -> None:
        """A release that kept no history may have brought it there."""
        theirs = History(("0002",), {}, tables=("releases",))
        found = compare(planned("0001"), theirs, kept=["0002"])
        assert (found.pending, found.problems, found.unknown) == ([], [], ["0001"])
        [problem] = compare(planned("0001"), theirs, kept=["0001"]).problems
        assert "forget" not in problem, "nothing says what was applied before it"

    def test_does_not_follow_what_a_kept_release_brought(self) -> None:
        """Its migration is not ours, and ours would come after it."""
        theirs = History(("0003",), {"0001": "1:a:a"}, recorded=True, tables=("releases",))
        [problem] = compare(planned("0001", "0004"), theirs, kept=["0003"]).problems
        assert "the database has migration 0003, which is not in this release" in problem

    def test_takes_one_equal_part_for_the_same_form(self) -> None:
        """SQL that differs at each rendering is told by its code; another way to make checksums tells nothing."""
        for form in ("1:a:b", "1:b:a", "2:b:b"):
            assert compare(planned("0001", form=form), history("0001")).problems == []
        [problem] = compare(planned("0001", form="1::b"), history("0001", form="1::a")).problems
        assert "another form" in problem

    def test_does_not_know_the_form_of_what_has_no_history(self) -> None:
        """All up to the database's revision was applied, in some form."""
        found = compare(planned("0001", "0002", "0003"), History(("0002",), {}, tables=("releases",)))
        assert (found.unknown, [one.revision for one in found.pending]) == (["0001", "0002"], ["0003"])

    def test_forgets_the_last_one_alone(self) -> None:
        """Another one would leave a gap; what was never applied cannot be forgotten."""
        theirs = history("0001", "0002", form="1:b:b")
        mine = [*planned("0001", form="1:b:b"), *planned("0002")]
        assert [one.revision for one in compare(mine, theirs, forgotten="0002").pending] == ["0002"]
        [problem] = compare(planned("0001", "0002"), theirs, forgotten="0001").problems
        assert "0002 was applied after 0001" in problem
        [problem] = compare(planned("0001", "0002"), theirs, forgotten="0003").problems
        assert "0003 is not applied here" in problem
        [problem] = compare(planned("0001", "0002"), history("0001", "0002"), forgotten="0002").problems
        assert "0002 is applied in the form that it has here" in problem, "a second try would apply it twice"


class TestChecksum:
    def checksum(self, run: Run) -> str:
        (step,) = json.loads(run("plan", "--from", "0001").stdout)
        return str(step["checksum"])

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"""step 2"""', '"""Another name."""\n# and a comment'),
            ("contract_after = None", 'contract_after: str | None = "0001"\ndestroys = "why"'),
            ("ADD COLUMN a text", "add  column a\\n text -- squawk-ignore adding-a-column"),
            ('down_revision = "0001"', "down_revision = '0001'"),
        ],
    )
    def test_is_of_what_it_does(self, run: Run, code: Path, old: str, new: str) -> None:
        """Comments, layout and what a migration says of itself can be changed once it is applied."""
        add(code, 2, 'op.execute("ALTER TABLE idempotency_keys ADD COLUMN a text")')
        before, path = self.checksum(run), code / "0002_step.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        assert same_form(before, self.checksum(run))

    @pytest.mark.parametrize(
        ("old", "new"),
        [("a text", "b text"), ("transactional = True", "transactional = False"), ("SELECT 1", "SELECT 2")],
    )
    def test_changes_with_what_it_does(self, run: Run, code: Path, old: str, new: str) -> None:
        """Whether a transaction holds it is a part of that."""
        add(code, 2, 'op.execute("ALTER TABLE idempotency_keys ADD COLUMN a text"); op.execute("SELECT 1")')
        before, path = self.checksum(run), code / "0002_step.py"
        path.write_text(path.read_text().replace(old, new))
        assert not same_form(before, self.checksum(run))

    def test_is_the_same_where_only_the_rendering_differs(self, run: Run, code: Path) -> None:
        """An id or a time that the code makes anew is no edit."""
        add(code, 2, "import uuid; op.execute(f\"SELECT '{uuid.uuid4()}'\")")
        run("upgrade")
        told = json.loads(run("status").stdout)
        assert (told["problems"], told["pending"]) == ([], [])

    def test_is_of_the_code_where_no_sql_can_be_written_down(self, run: Run, code: Path) -> None:
        """Docstrings, comments and annotations are no part of it."""
        add(code, 2, 'rows = op.get_bind().exec_driver_sql("SELECT 1").fetchall(); assert rows')
        before, path = self.checksum(run), code / "0002_step.py"
        text = path.read_text()
        path.write_text(text.replace("def upgrade():", 'def upgrade() -> None:\n    """Do it."""  # now'))
        assert self.checksum(run) == before
        path.write_text(text.replace("SELECT 1", "SELECT 2"))
        assert self.checksum(run) != before


class TestHistory:
    def rows(self, services: Services, database: str) -> Any:
        return query(services, database, "SELECT json_object_agg(revision, checksum)::text FROM alembic_history")

    def test_is_written_with_what_it_is_of(self, run: Run, code: Path, services: Services, database: str) -> None:
        """One that fails leaves no row; the checksum is that of the plan."""
        add(code, 2, 'op.execute("SELECT 1 / 0")')
        assert run("upgrade").returncode == 1
        [first, _] = json.loads(run("plan").stdout)
        assert json.loads(self.rows(services, database)) == {"0001": first["checksum"]}

    def test_refuses_an_edit_before_anything_runs(self, run: Run, code: Path) -> None:
        """By hand, too: `upgrade` itself compares."""
        add(code, 2, 'op.execute("CREATE TABLE kept (id int)")')
        run("upgrade")
        path = code / "0002_step.py"
        path.write_text(path.read_text().replace("id int", "id bigint"))
        add(code, 3, 'op.execute("CREATE TABLE more (id int)")')
        failed = run("upgrade")
        assert (failed.returncode, run("current").stdout) == (1, "0002\n")
        assert "migration 0002 (step 2) was applied in another form" in failed.stderr

    def test_forgets_and_applies_anew(self, run: Run, code: Path, services: Services, database: str) -> None:
        """What the old form did stays."""
        add(code, 2, 'op.execute("CREATE TABLE kept (id int)")')
        run("upgrade")
        path = code / "0002_step.py"
        path.write_text(path.read_text().replace("CREATE TABLE kept", "CREATE TABLE other"))
        assert run("upgrade", "--forget", "0002").stdout.splitlines() == [
            "forgot 0002: what it did to the database stays",
            "applied 0002 step 2",
        ]
        assert query(services, database, "SELECT to_regclass('kept') IS NOT NULL AND to_regclass('other') IS NOT NULL")

    def test_begins_in_a_database_of_before(self, run: Run, code: Path, services: Services, database: str) -> None:
        """With what is trusted; the rest is unknown, and says so."""
        add(code, 2, 'op.execute("SELECT 1")')
        run("upgrade")
        psql(services, database, "DROP TABLE alembic_history")
        told = json.loads(run("status").stdout)
        assert (told["recorded"], told["unknown"], told["pending"]) == (False, ["0001", "0002"], [])
        psql(services, database, "CREATE TABLE alembic_history (ordinal bigint GENERATED ALWAYS AS IDENTITY,"
             " revision text PRIMARY KEY, checksum text, message text, applied_at timestamptz)")  # fmt: skip
        assert json.loads(run("status").stdout)["recorded"] is False, "a row is missing, which /ready asks for"
        assert run("upgrade", "--trust", "0001").returncode == 0
        rows = json.loads(self.rows(services, database))
        assert (rows["0001"][:2], rows["0002"]) == ("1:", None)
        assert json.loads(run("status").stdout)["recorded"] is True


class TestStatus:
    def test_counts_the_rows_that_would_go(self, run: Run, code: Path, services: Services, database: str) -> None:
        """In the database as it is; a table that comes with an earlier migration has none yet."""
        run("upgrade")
        psql(services, database, "CREATE TABLE kept AS SELECT FROM generate_series(1, 7)")
        add(code, 2, 'op.execute("CREATE TABLE fresh (id int)"); op.execute("TRUNCATE kept, fresh")')
        add(code, 3, 'op.execute("DROP OWNED BY CURRENT_USER")')
        add(code, 4, 'op.execute("DROP SCHEMA public CASCADE"); op.execute("TRUNCATE kept CASCADE")')
        add(code, 5, 'op.get_bind().exec_driver_sql("DELETE FROM kept")')
        pending = json.loads(run("status").stdout)["pending"]
        assert [loss for step in pending for loss in step["losses"]] == [
            {"what": "TRUNCATE kept, fresh", "rows": 7},
            {"what": "DROP OWNED", "rows": None},
            {"what": "DROP SCHEMA public", "rows": 9},  # two rows of Alembic's
            {"what": "TRUNCATE kept CASCADE", "rows": None},
            {"what": "DELETE FROM kept without WHERE", "rows": 7},
        ]
        assert run("current").stdout == "0001\n"

    def test_takes_no_name_that_it_does_not_find_for_an_empty_table(self, run: Run, code: Path) -> None:
        """It may be a table under the name that the same release gives it; IF EXISTS and a new one are sure."""
        run("upgrade")
        add(code, 2, 'op.execute("ALTER TABLE idempotency_keys RENAME TO old"); op.execute("TRUNCATE old")')
        add(code, 3, 'op.execute("DELETE FROM nowhere"); op.execute("DROP TABLE IF EXISTS nowhere")')
        pending = json.loads(run("status").stdout)["pending"]
        assert [loss["rows"] for step in pending for loss in step["losses"]] == [None, None, 0]
