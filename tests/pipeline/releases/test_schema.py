"""What a database has and lacks of a release's migrations, as its own command tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Artifact, Loss
from pipeline.releases.schema import Schema, ask_schema, plan_migrations
from pipeline.system.git import Source
from tests.logs import logged

STEP = {"revision": "0002", "message": "m", "contract_after": None, "destroys": None, "sql": "SELECT 2;"}
SOUND = {"revision": "0001", "recorded": True, "pending": [], "problems": [], "unknown": []}


def release(name: str, revision: str = "0002") -> Artifact:
    return Artifact(name, Source(None, dirty=False), revision, ())


@dataclass
class Place:
    """A database of which only the migrations are there: for each release and verb, what it says."""

    says: dict[tuple[str, str], Any]
    up: bool = True
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def runs(self, new: Artifact) -> bool:
        return self.up

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        self.asked.append((release.name, *arguments))
        said = self.says[release.name, arguments[0]]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, str) else f"a line of something else\n{json.dumps(said)}\n"


Ask = Callable[..., tuple["Schema | None", list[str]]]


def ask(place: Place, *, old: Artifact | None = None) -> tuple[Schema | None, list[str]]:
    with logged() as warned:
        found = ask_schema(place, release("new"), old, kept=["0001", "0001"], forgotten=None)
    return found, warned


class TestAskSchema:
    def test_is_nothing_where_no_database_runs(self) -> None:
        """Nor where a deploy was killed before it made the database."""
        assert ask(Place({}, up=False)) == (None, [])
        absent = SlipwayError('cannot reach the database: database "board" does not exist; check POSTGRES_*')
        assert ask(Place({("new", "status"): absent})) == (None, [])

    @pytest.mark.parametrize("why", ['role "x" does not exist', "password authentication failed"])
    def test_is_no_first_deploy_where_it_lets_nobody_in(self, why: str) -> None:
        """A role that is not there is no database that is not there."""
        with pytest.raises(SlipwayError, match=why):
            ask(Place({("new", "status"): SlipwayError(f"cannot reach the database: {why}")}))

    def test_tells_what_is_pending(self) -> None:
        """With the rows that it throws away."""
        step = {**STEP, "losses": [{"what": "TRUNCATE t", "rows": 7}]}
        place = Place({("new", "status"): {**SOUND, "pending": [step]}})
        found, _ = ask(place)
        assert found is not None
        assert [(one.revision, one.losses) for one in found.pending] == [("0002", (Loss("TRUNCATE t", 7),))]
        assert place.asked == [("new", "status", "--kept", "0001")]

    def test_tells_which_backup_runs(self) -> None:
        """The command of a release of before does not know, and is not told to end one."""
        runs = "since 3 min (pid 4711, board-backup)"
        found, _ = ask(Place({("new", "status"): {**SOUND, "backup": runs}}))
        assert found is not None
        assert found.backup == runs
        assert found.upgrade_arguments([], None, cancel_backup=True)[-1] == "--cancel-backup"
        found, _ = ask(Place({("new", "status"): SOUND}))
        assert found is not None
        assert (found.backup, "--cancel-backup" in found.upgrade_arguments([], None, cancel_backup=True)) == (
            None,
            False,
        )

    def test_refuses_what_the_command_refuses(self) -> None:
        """Each of its lines is a problem."""
        with pytest.raises(DeployFailed) as refused:
            ask(Place({("new", "status"): {**SOUND, "problems": ["one", "two"]}}))
        assert refused.value.problems == ("one", "two")

    def test_other_failures_stay_failures(self) -> None:
        """A wrong password is no empty database."""
        with pytest.raises(SlipwayError, match="password"):
            ask(Place({("new", "status"): SlipwayError("password authentication failed")}))


class TestPlanMigrations:
    def test_keeps_the_losses_that_no_database_can_count(self) -> None:
        """Of tables with a name, only a database can tell whether they have rows."""
        losses = [{"what": "TRUNCATE t", "names": ["t"]}, {"what": "DROP OWNED", "names": []}]
        place = Place({("new", "plan"): json.dumps([{**STEP, "losses": losses}], indent=2)})
        [planned] = plan_migrations(place, release("new"))
        assert planned.losses == (Loss("DROP OWNED", None),)


class TestADatabaseOfBefore:
    def place(self, theirs: str, mine: str = "CREATE TABLE t ();") -> Place:
        first = {**STEP, "revision": "0001"}
        return Place(
            {
                ("new", "status"): {**SOUND, "recorded": False, "unknown": ["0001"]},
                ("new", "plan"): json.dumps([{**first, "sql": mine}], indent=2),
                ("old", "plan"): json.dumps([{**first, "sql": theirs}]),
            }
        )

    def test_trusts_what_the_serving_release_has_in_the_same_form(self) -> None:
        """Layout apart; that is recorded."""
        found, warned = ask(self.place("CREATE  TABLE t\n();"), old=release("old"))
        assert found is not None
        assert (found.trusted, warned) == (("0001",), [])
        assert found.upgrade_arguments([], None) == ["upgrade", "--expect", "0001", "--trust", "0001"]

    def test_refuses_what_was_edited_since(self) -> None:
        """As what serves is the only one that knows."""
        with pytest.raises(DeployFailed, match="migration 0001 was applied in another form"):
            ask(self.place("CREATE TABLE t (id int);"), old=release("old"))

    def test_says_what_nobody_knows(self) -> None:
        """Where nothing serves."""
        found, warned = ask(self.place("?"))
        assert found is not None
        assert found.trusted == ()
        assert "0001 recorded as unknown" in warned[0]


class TestAReleaseOfBefore:
    @pytest.mark.parametrize(("current", "pending"), [("none", ["0002"]), ("0002", []), ("0003", [])])
    def test_is_asked_in_its_own_words(self, current: str, pending: list[str]) -> None:
        """Going back to it needs no history, and no plan either; its `upgrade` gets no words that it does not know."""
        unknown = SlipwayError("argument VERB: invalid choice: 'status' (choose from upgrade, current, plan, new)")
        says = {("new", "status"): unknown, ("new", "current"): f"{current}\n", ("new", "plan"): json.dumps([STEP])}
        found, _ = ask(Place(says))
        assert found is not None
        assert [one.revision for one in found.pending] == pending
        assert found.recorded
        assert found.upgrade_arguments(["0001"], None) == ["upgrade"]

    def test_needs_no_plan_on_the_way_back(self) -> None:
        """A plan takes a container engine where releases are images, and a rollback must not."""
        unknown = SlipwayError("argument VERB: invalid choice: 'status' (choose from upgrade, current, plan, new)")
        found, _ = ask(Place({("new", "status"): unknown, ("new", "current"): "0002"}))
        assert found is not None
        assert found.pending == []


class TestUpgradeArguments:
    def test_say_what_was_checked(self) -> None:
        """So that the command does that, and nothing else."""
        assert Schema(None, [], recorded=True).upgrade_arguments(["0001"], "0002") == [
            *("upgrade", "--expect", "none", "--kept", "0001", "--forget", "0002")
        ]
