"""What only the real database knows, and what its rehearsal must not fail for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import DeployFailed
from tests.backend.migrations.conftest import Run, add, query
from tests.backend.migrations.judging import checked, pending
from tests.services import Services, psql

ROLE = "slipway_reality"


@pytest.fixture(name="owner")
def _owner(services: Services, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role that migrates and is no superuser, as in each environment."""
    name = f"{ROLE}_{database}"
    psql(services, "postgres", f"DROP ROLE IF EXISTS {name}")
    psql(services, "postgres", f"CREATE ROLE {name} LOGIN PASSWORD '{services.postgres_password}'")
    psql(services, "postgres", f"ALTER DATABASE {database} OWNER TO {name}")
    monkeypatch.setenv("POSTGRES_USER", name)
    yield name
    psql(services, "postgres", f"ALTER DATABASE {database} OWNER TO {services.postgres_user}")
    psql(services, database, f"DROP OWNED BY {name}")
    psql(services, "postgres", f"DROP ROLE {name}")


class TestLargeTables:
    @pytest.fixture(autouse=True)
    def _large(self, run: Run, services: Services, database: str) -> None:
        run("upgrade")
        psql(services, database, "INSERT INTO board SELECT g, 'a' FROM generate_series(1, 200000) AS g")
        psql(services, database, "ANALYZE board")

    def test_a_change_of_all_rows_is_refused_with_their_number(
        self, run: Run, code: Path, services: Services, database: str
    ) -> None:
        """Nothing is changed to know that."""
        add(code, 2, "op.execute(\"UPDATE board SET notes = coalesce(notes, '') WHERE id IS NOT NULL\")")
        [problem] = checked(run)
        assert problem.startswith("migration 0002 (step 2) locks about 200,000 rows for about 6 s (UPDATE board)")
        assert query(services, database, "SELECT count(*) FROM board WHERE notes = 'a'") == 200_000

    def test_of_a_new_column_all_rows_of_the_table_count(self, run: Run, code: Path) -> None:
        """The statement itself cannot be planned: the column is made by the same release."""
        add(code, 2, 'op.execute("ALTER TABLE board ADD COLUMN cents bigint")')
        add(code, 3, 'op.execute("UPDATE board SET cents = 0 WHERE cents IS NULL")')
        assert "migration 0003 (step 3) locks about 200,000 rows" in checked(run)[0]

    def test_a_change_of_few_rows_passes(self, run: Run, code: Path) -> None:
        """By PostgreSQL's own estimate of the condition; and so does one that comes in batches."""
        add(code, 2, "op.execute(\"UPDATE board SET notes = 'b' WHERE id BETWEEN 5 AND 500\")")
        add(code, 3, BATCHES, transactional=False)
        body = "SELECT 1;\\n\\nUPDATE board SET id = 1"
        add(code, 4, f"op.execute(\"CREATE FUNCTION f() RETURNS void LANGUAGE sql AS '{body}'\")")
        assert checked(run) == []

    def test_a_table_of_the_same_release_is_empty(self, run: Run, code: Path) -> None:
        """It is not there yet."""
        add(code, 2, 'op.execute("CREATE TABLE fresh (id int)"); op.execute("UPDATE fresh SET id = 1 WHERE id = 2")')
        assert [write.rows for write in pending(run)[0].writes] == [None]
        assert checked(run) == []


BATCHES = (
    "from backend.migrations.batches import in_batches;"
    " in_batches('board', 'id', \"UPDATE board SET notes = 'b\\\\:' WHERE notes = 'a' AND {batch}\")"
)


class TestBatches:
    def test_change_all_rows_and_leave_nothing_behind(
        self, run: Run, code: Path, services: Services, database: str
    ) -> None:
        """Each batch in a transaction of its own; where they ended is forgotten with the migration's record."""
        run("upgrade")
        psql(services, database, "INSERT INTO board SELECT g, 'a' FROM generate_series(1, 2500) AS g")
        add(code, 2, BATCHES, transactional=False)
        done = run("upgrade")
        assert done.stdout.splitlines() == [
            "migration 0002: board: 2,500 rows changed, all batches done", "applied 0002 step 2"
        ], done  # fmt: skip
        assert query(services, database, "SELECT count(DISTINCT xmin::text) FROM board") == 3
        assert query(services, database, "SELECT count(*) FROM board WHERE notes = 'b:'") == 2500
        assert query(services, database, "SELECT to_regclass('alembic_batches') IS NULL")

    def test_go_on_where_they_ended(self, run: Run, code: Path, services: Services, database: str) -> None:
        """Each row is changed once, also by a statement that is not the same twice."""
        run("upgrade")
        psql(services, database, "INSERT INTO board SELECT g, 'a' FROM generate_series(1, 2500) AS g")
        psql(services, database, "UPDATE board SET notes = NULL WHERE id = 2200")
        psql(services, database, "ALTER TABLE board ADD CHECK (notes <> 'aa' OR id <> 2100)")
        body = BATCHES.replace("notes = 'b\\\\:' WHERE notes = 'a' AND", "notes = notes || 'a' WHERE")
        add(code, 2, body, transactional=False)
        failed = run("upgrade")
        assert (failed.returncode, "check constraint" in failed.stderr, run("current").stdout) == (1, True, "0001\n")
        assert query(services, database, "SELECT count(*) FROM board WHERE notes = 'aa'") == 2000
        psql(services, database, "ALTER TABLE board DROP CONSTRAINT board_check")
        done = run("upgrade")
        assert "migration 0002: board: goes on where the last try ended" in done.stdout, done
        assert query(services, database, "SELECT count(*) FROM board WHERE notes = 'aa'") == 2499

    def test_are_judged_like_any_statement(self, run: Run, code: Path) -> None:
        """The plan has one of them."""
        add(code, 2, BATCHES.replace(" AND {batch}", ""), transactional=False)
        failed = run("upgrade")
        assert (failed.returncode, "one `in_batches`" in failed.stderr) == (1, True)


class TestObstacles:
    def test_an_extension_of_an_administrator_is_named(
        self, run: Run, code: Path, owner: str, services: Services, database: str
    ) -> None:
        """Before anything runs: a rehearsal, as a superuser, would make it. Once it is there, the migration passes."""
        add(code, 2, 'op.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")')
        with pytest.raises(DeployFailed, match=f"makes the extension pg_stat_statements, which {owner} may not"):
            checked(run)
        psql(services, database, "CREATE EXTENSION pg_stat_statements")
        assert checked(run) == []
        assert run("upgrade").returncode == 0

    def test_an_extension_that_its_owner_may_make_passes(self, run: Run, code: Path, owner: str) -> None:
        """PostgreSQL trusts some."""
        add(code, 2, 'op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")')
        assert (owner, checked(run)) == (owner, [])
        assert run("upgrade").returncode == 0

    def test_one_that_the_server_does_not_have_is_named(self, run: Run, code: Path) -> None:
        """Nobody can make it there."""
        add(code, 2, 'op.execute("CREATE EXTENSION no_such_thing")')
        with pytest.raises(DeployFailed, match="needs the extension no_such_thing, which this PostgreSQL server does"):
            checked(run)

    def test_a_role_that_is_missing_here_is_named(self, run: Run, code: Path) -> None:
        """With the way; a role that a migration of the release makes is none."""
        add(code, 2, 'op.execute("GRANT SELECT ON board TO no_such_reader, PUBLIC")')
        with pytest.raises(DeployFailed, match="names the role no_such_reader, which this server does not have"):
            checked(run)

    def test_a_table_of_somebody_else_is_named(
        self, run: Run, code: Path, owner: str, services: Services, database: str
    ) -> None:
        """Made by hand, as a superuser: the rehearsal's tables are all its own."""
        run("upgrade")
        psql(services, database, "CREATE TABLE made_by_hand (id int)")
        add(code, 2, 'op.execute("ALTER TABLE made_by_hand ADD COLUMN name text")')
        with pytest.raises(DeployFailed, match=f"changes made_by_hand, which belongs to .*, so {owner} may not"):
            checked(run)
        add(code, 2, 'op.execute("UPDATE made_by_hand SET id = 1 WHERE id = 2")')
        with pytest.raises(DeployFailed, match="may not UPDATE made_by_hand: permission denied for table made_by_hand"):
            checked(run)

    def test_a_rehearsal_is_the_owners_and_has_what_an_administrator_makes(
        self, run: Run, code: Path, services: Services, database: str, *, owner: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the owner makes is the owner's, as in the real database; roles and extensions are a superuser's."""
        name = f"{ROLE}_helper"
        psql(services, "postgres", f"DROP ROLE IF EXISTS {name}")
        add(code, 2, f'op.execute("GRANT SELECT ON board TO {name}")')
        add(code, 3, 'op.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")')
        monkeypatch.setenv("MIGRATION_REHEARSAL", "true")
        refused = run("upgrade")
        assert "the throwaway server refuses: permission denied to create role" in refused.stderr, refused
        monkeypatch.setenv("POSTGRES_SUPERUSER", services.postgres_user)
        monkeypatch.setenv("POSTGRES_SUPERUSER_PASSWORD", services.postgres_password)
        done = run("upgrade")
        assert done.returncode == 0, done
        assert query(services, database, "SELECT tableowner FROM pg_tables WHERE tablename = 'board'") == owner
        assert query(services, database, "SELECT true FROM pg_extension WHERE extname = 'pg_stat_statements'")
        psql(services, database, f"DROP OWNED BY {name}")
        psql(services, "postgres", f"DROP ROLE {name}")

    def test_the_owner_migrates_where_the_service_is_somebody_else(
        self, run: Run, services: Services, database: str, owner: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """POSTGRES_OWNER and its password are of the migrations alone."""
        monkeypatch.setenv("POSTGRES_USER", "nobody_at_all")
        monkeypatch.setenv("POSTGRES_PASSWORD", "of-nobody")
        assert run("upgrade").returncode == 1
        monkeypatch.setenv("POSTGRES_OWNER", owner)
        monkeypatch.setenv("POSTGRES_OWNER_PASSWORD", services.postgres_password)
        done = run("upgrade")
        assert done.returncode == 0, done
        assert query(services, database, "SELECT tableowner FROM pg_tables WHERE tablename = 'board'") == owner

    def test_a_rehearsal_has_the_roles_that_the_migrations_name(
        self, run: Run, code: Path, services: Services, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its server is new: whether the real one has them was asked there."""
        name = f"{ROLE}_reader"
        psql(services, "postgres", f"DROP ROLE IF EXISTS {name}")
        add(code, 2, f'op.execute("GRANT SELECT ON board TO {name}")')
        assert run("upgrade").returncode == 1
        monkeypatch.setenv("MIGRATION_REHEARSAL", "true")
        done = run("upgrade")
        assert done.returncode == 0, done
        psql(services, database, f"DROP OWNED BY {name}")
        psql(services, "postgres", f"DROP ROLE {name}")
