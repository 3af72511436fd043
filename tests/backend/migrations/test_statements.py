"""What SQL says, whatever it looks like."""

from __future__ import annotations

import pytest

from backend.migrations.statements import arrivals, canonical, losses


class TestCanonical:
    @pytest.mark.parametrize(
        "sql",
        [
            "select  A ,b from t where c = 'x  y'",
            "SELECT a, B\n  FROM t -- all of them\n WHERE c = 'x  y';",
            "SELECT a,b/* two /* columns */ */FROM t WHERE c = 'x  y'",
        ],
    )
    def test_is_the_same_for_what_reads_alike(self, sql: str) -> None:
        """Comments, layout and the case of words are nothing to PostgreSQL."""
        assert canonical(sql) == "select a,b from t where c = 'x  y'"

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("SELECT 'a b'", "SELECT 'a  b'"),
            ('SELECT "A"', 'SELECT "a"'),
            ("SELECT $$ -- a $$", "SELECT $$ -- b $$"),
            ("SELECT E'it\\'s -- a'", "SELECT E'it\\'s -- b'"),
            ("SELECT 1", "SELECT 2"),
            ("SELECT - 1", "SELECT --1"),
            ("SELECT a b", "SELECT ab"),
        ],
    )
    def test_is_another_for_what_reads_otherwise(self, one: str, other: str) -> None:
        """Texts, quoted names and bodies of functions are kept to the letter."""
        assert canonical(one) != canonical(other)


class TestLosses:
    @pytest.mark.parametrize(
        ("sql", "what", "names"),
        [
            ("DELETE FROM board", "DELETE FROM board without WHERE", ("board",)),
            ("delete from only a.\"B c\" where true", 'DELETE FROM a."B c" without WHERE', ('a."B c"',)),
            ("DELETE FROM a USING b", "DELETE FROM a without WHERE", ("a",)),
            ("WITH gone AS (DELETE FROM a RETURNING *) SELECT 1 WHERE x", "DELETE FROM a without WHERE", ("a",)),
            ("UPDATE a AS x SET n = (SELECT 1 WHERE true)", "UPDATE a without WHERE", ("a",)),
            ("TRUNCATE TABLE ONLY a, b.c", "TRUNCATE a, b.c", ("a", "b.c")),
            ("TRUNCATE a CASCADE", "TRUNCATE a CASCADE", ()),
            ("TRUNCATE ONLY (a)", "TRUNCATE a", ("a",)),
            ("DELETE FROM a WHERE (1 = 1)", "DELETE FROM a without WHERE", ("a",)),
            ("DO $$ BEGIN EXECUTE format('TRUNCATE %I', t); END $$", "TRUNCATE ", ()),
            ("DO $$ BEGIN PERFORM 1;\n\n EXECUTE 'TRUNCATE a'; END $$", "TRUNCATE a", ("a",)),
            ("DROP TABLE IF EXISTS a, b", "DROP TABLE IF EXISTS a, b", ("a", "b")),
            ("DROP MATERIALIZED VIEW a", "DROP MATERIALIZED VIEW a", ("a",)),
            ("DROP SCHEMA a CASCADE", "DROP SCHEMA a", ("a",)),
            ("DROP TYPE mood CASCADE", "DROP TYPE mood CASCADE", ()),
            ("DROP OWNED BY somebody", "DROP OWNED", ()),
            ("MERGE INTO a USING b ON a.i = b.i WHEN MATCHED THEN DELETE", "MERGE INTO a … DELETE", ("a",)),
            ("DO $$ BEGIN DELETE FROM a; END $$", "DELETE FROM a without WHERE", ("a",)),
            ("DO LANGUAGE plpgsql $x$ BEGIN EXECUTE 'TRUNCATE a'; END $x$", "TRUNCATE a", ("a",)),
        ],
    )  # fmt: skip
    def test_are_statements_that_throw_rows_away(self, sql: str, what: str, names: tuple[str, ...]) -> None:
        """Each names what loses them."""
        [loss] = losses(sql)
        assert (loss.what, loss.names) == (what, names)

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM a WHERE id = 1",
            "UPDATE a SET n = 1 WHERE id = 1",
            "SELECT FROM a FOR UPDATE; SET search_path = a",
            "INSERT INTO a VALUES (1) ON CONFLICT (i) DO UPDATE SET i = 1",
            "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b ON DELETE SET NULL ON UPDATE SET NULL",
            "CREATE TRIGGER t AFTER UPDATE OF b OR DELETE OR TRUNCATE ON a EXECUTE FUNCTION set()",
            "CREATE FUNCTION f() RETURNS trigger AS $$ BEGIN DELETE FROM a; END $$ LANGUAGE plpgsql",
            "GRANT UPDATE, DELETE, TRUNCATE ON a TO b",
            "ALTER PUBLICATION p DROP TABLE a",
            "DROP TYPE mood",
            "DROP INDEX i",
            "SELECT 'DELETE FROM a' -- TRUNCATE a",
        ],
    )
    def test_are_no_others(self, sql: str) -> None:
        """What has a condition, runs later or only looks like one throws nothing away now."""
        assert losses(sql) == []


def test_arrivals_are_what_sql_creates_and_renames() -> None:
    """By the name alone, as PostgreSQL folds it."""
    sql = """
        CREATE TABLE IF NOT EXISTS public.First (id int);
        CREATE UNLOGGED TABLE second (id int);
        CREATE MATERIALIZED VIEW "Third" AS SELECT 1;
        ALTER TABLE first RENAME TO fourth;
        ALTER TABLE first RENAME COLUMN a TO b
    """
    assert arrivals(sql) == ({"first", "second", "Third"}, {"fourth"})
