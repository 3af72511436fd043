"""`python -m backend.synthetic remove`, on tables of its own in a real database: parents with children."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from backend import domain
from backend.postgres import Connector
from backend.settings import load_settings
from backend.synthetic import main
from tests.services import Services, psql

TABLES = """
    CREATE TABLE testing_parents (id bigint PRIMARY KEY, synthetic boolean NOT NULL, created_at timestamptz NOT NULL);
    CREATE TABLE testing_children (parent bigint NOT NULL REFERENCES testing_parents);
    INSERT INTO testing_parents VALUES (1, true, '2027-01-01Z'), (2, true, '2027-01-02Z'), (3, false, '2027-01-01Z');
    INSERT INTO testing_children VALUES (1), (1), (2), (3);
"""
CHOSEN = "synthetic AND (id = ANY ($1::text[]::bigint[]) OR created_at < $2::timestamptz)"
STATEMENTS = (
    f"DELETE FROM testing_children WHERE parent IN (SELECT id FROM testing_parents WHERE {CHOSEN})",
    f"DELETE FROM testing_parents WHERE {CHOSEN}",
)


@dataclass(frozen=True)
class Done:
    """What a run came to."""

    code: int
    out: str
    err: str


Remove: TypeAlias = Callable[..., Done]


@pytest.fixture(autouse=True)
def _tables(services: Services, worker_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two synthetic rows with three children, and a person's with one; the domain knows how to remove them."""
    monkeypatch.setattr(domain, "REMOVE_SYNTHETIC", STATEMENTS, raising=False)
    psql(services, worker_database, TABLES)
    yield
    psql(services, worker_database, "DROP TABLE testing_children, testing_parents")


@pytest.fixture(name="remove")
def _remove(
    services: Services, worker_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Remove:
    """Run the command with IDS on its standard input."""
    for name, value in services.environ(worker_database).items():
        monkeypatch.setenv(name, value)

    def run(*ids: str, arguments: tuple[str, ...] = ()) -> Done:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{ident}\n" for ident in ids)))
        code = main(["remove", *arguments])
        return Done(code, *capsys.readouterr())

    return run


def left() -> list[int]:
    """The rows that are left; no child may be left alone."""

    async def ask() -> list[int]:
        connection: Any = await Connector(load_settings(sections=["database"]), {}, seconds=10).connect()
        try:
            return [row[0] for row in await connection.fetch("SELECT id FROM testing_parents ORDER BY id")]
        finally:
            await connection.close()

    return asyncio.run(ask())


class TestRemove:
    def test_takes_the_rows_with_the_given_ids(self, remove: Remove) -> None:
        """Not a person's, even if its id is given; the number of all rows is printed as JSON."""
        done = remove("1", "3", "", "1")
        assert (done.code, json.loads(done.out), done.err) == (0, {"removed": 3}, "")
        assert left() == [2, 3]

    def test_can_be_repeated(self, remove: Remove) -> None:
        """A deploy tries it again when it does not know whether it was done."""
        assert [json.loads(remove("1").out)["removed"] for _ in range(2)] == [3, 0]
        assert json.loads(remove().out) == {"removed": 0}
        assert left() == [2, 3]

    def test_takes_what_is_older(self, remove: Remove) -> None:
        """A killed proof told nobody its ids; what was written since then is another proof's."""
        assert json.loads(remove(arguments=("--before", "2027-01-01T12:00:00+00:00")).out) == {"removed": 3}
        assert left() == [2, 3]

    def test_takes_both_at_once(self, remove: Remove) -> None:
        """The ids of this proof, and what an earlier one left."""
        assert json.loads(remove("2", arguments=("--before", "2027-01-01T12:00:00+00:00")).out) == {"removed": 5}
        assert left() == [3]

    def test_takes_all_or_nothing(self, remove: Remove, monkeypatch: pytest.MonkeyPatch) -> None:
        """A statement that fails undoes the ones before it; the reason is one line."""
        monkeypatch.setattr(domain, "REMOVE_SYNTHETIC", (STATEMENTS[0], "DELETE FROM nowhere WHERE $1 = $2"))
        done = remove("1")
        assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
        assert done.err.startswith("synthetic rows were not removed: ")
        monkeypatch.setattr(domain, "REMOVE_SYNTHETIC", STATEMENTS)
        assert json.loads(remove("1").out) == {"removed": 3}

    def test_refuses_what_is_no_id(self, remove: Remove) -> None:
        """The cast in the statement says what an id is."""
        done = remove("one")
        assert done.code == 1
        assert "bigint" in done.err
        assert len(done.err.splitlines()) == 1

    @pytest.mark.parametrize(("name", "value"), [("POSTGRES_HOST", "/nonexistent"), ("POSTGRES_DB", "gone")])
    def test_says_that_the_database_is_away(
        self, remove: Remove, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        """In one line, which a deploy reports."""
        monkeypatch.setenv(name, value)
        done = remove("1")
        assert (done.code, len(done.err.splitlines())) == (1, 1)

    def test_gives_up(self, remove: Remove, monkeypatch: pytest.MonkeyPatch) -> None:
        """A deploy waits for a minute."""
        monkeypatch.setattr("backend.beside.SECONDS", 0.3)
        slow = f"DELETE FROM testing_parents WHERE {CHOSEN} AND pg_sleep(30) IS NULL"
        monkeypatch.setattr(domain, "REMOVE_SYNTHETIC", (slow,))
        done = remove("1")
        assert (done.code, done.err) == (1, "synthetic rows were not removed: TimeoutError\n")

    def test_wants_a_time_that_means_the_same_everywhere(
        self, remove: Remove, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The database may be in another zone."""
        for time in ("2027-01-15T08:00:00", "soon"):
            with pytest.raises(SystemExit) as caught:
                remove(arguments=("--before", time))
            assert caught.value.code == 2
        assert "must name its time zone" in capsys.readouterr().err

    def test_wants_to_be_told_what_to_remove(self, remove: Remove, monkeypatch: pytest.MonkeyPatch) -> None:
        """A domain of one's own has its own tables."""
        monkeypatch.delattr(domain, "REMOVE_SYNTHETIC")
        done = remove("1")
        assert done.code == 2
        assert "backend/domain.py has no REMOVE_SYNTHETIC" in done.err
