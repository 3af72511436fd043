"""The accounts of people: what the command of the release is told, what is printed, and the exit codes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from pipeline.__main__ import parser
from pipeline.config.project import ComposeEnvironment, KubernetesEnvironment
from pipeline.deploy.accounts import first_account
from pipeline.errors import SlipwayError, UsageError
from tests.pipeline.deploy.world import World, release

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password comes by standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{PASSWORD}\n".encode())))


def run(world: World, *arguments: str) -> Any:
    """Run `nox -s user` on the fake."""
    options = parser("user").parse_args(["user", *arguments, "--env", world.target.env.name])
    return options.run(world.target.project, options, world.progress(), opened=world.target.opened)


def accounts(world: World) -> dict[str, dict[str, Any]]:
    assert world.target.database.accounts is not None
    return world.target.database.accounts


class TestAdd:
    def test_gives_the_name_the_role_and_a_hash(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """The release gets no password, and nobody is shown one."""
        assert run(served, "add", "anna", "--role", "deployer") is None
        anna = accounts(served)["anna"]
        assert (anna["name"], anna["role"]) == ("anna", "deployer")
        assert anna["hash"].startswith("$argon2id$")
        said = capsys.readouterr()
        assert said.out == "anna can sign in to here as deployer\n"
        assert not [text for text in (said.out, said.err, served.said) if PASSWORD in text or anna["hash"] in text]

    def test_makes_a_viewer_where_nothing_else_is_said(self, served: World) -> None:
        """The least that there is."""
        run(served, "add", "anna")
        assert accounts(served)["anna"]["role"] == "viewer"

    def test_passes_on_what_the_release_refuses(self, served: World) -> None:
        """In its own words."""
        accounts(served)["anna"] = {"role": "admin"}
        with pytest.raises(SlipwayError, match=r"^anna: the name is taken$") as refused:
            run(served, "add", "anna", "--role", "viewer")
        assert refused.value.exit_code == 1
        assert accounts(served)["anna"]["role"] == "admin"

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (["add", "--role", "viewer"], "NAME"),
            (["add", "anna", "--role", "king"], "invalid choice: 'king'"),
            (["dance", "anna"], "invalid choice: 'dance'"),
            (["add", "anna", "--role", "viewer", "--password", PASSWORD], "unrecognized arguments"),
            ([], "VERB"),
        ],
    )
    def test_is_refused_where_it_is_asked_for_wrongly(self, served: World, arguments: list[str], why: str) -> None:
        """Exit code 2; a password is no argument, which every user of the machine could read."""
        with pytest.raises(UsageError, match=why):
            run(served, *arguments)

    def test_refuses_a_password_that_is_too_short(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before the release is asked for anything."""
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"short\n")))
        with pytest.raises(UsageError, match="at least 12 characters"):
            run(served, "add", "anna", "--role", "viewer")
        assert accounts(served) == {}


class TestChange:
    def test_reaches_the_account(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Each verb is the release's own, and each says what it did."""
        accounts(served)["anna"] = {"role": "viewer", "hash": "of before"}
        run(served, "password", "anna")
        assert accounts(served)["anna"]["hash"].startswith("$argon2id$")
        run(served, "disable", "anna")
        assert accounts(served)["anna"]["disabled"]
        run(served, "enable", "anna")
        assert not accounts(served)["anna"]["disabled"]
        run(served, "remove", "anna")
        assert accounts(served) == {}
        done = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
        assert done == [
            "anna has a new password on here",
            "anna cannot sign in to here any more",
            "anna can sign in to here again",
            "anna has no account on here any more",
        ]

    @pytest.mark.parametrize("verb", ["password", "disable", "enable", "remove"])
    def test_of_somebody_unknown_fails(self, served: World, verb: str) -> None:
        """With the release's line."""
        with pytest.raises(SlipwayError, match=r"^bert: no such account$"):
            run(served, verb, "bert")


class TestList:
    def test_is_a_table(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Times are of UTC; a name is no markup."""
        accounts(served).update({"anna": {"role": "admin"}, "[b]": {"role": "viewer", "disabled": True}})
        assert run(served, "list") is None
        head, anna, other = capsys.readouterr().out.splitlines()
        assert head.split("  ")[0] == "name"
        assert anna.split() == ["anna", "admin", "2027-01-15", "06:30", "never"]
        assert other.split() == ["[b]", "viewer", "2027-01-15", "06:30", "never", "disabled"]

    def test_is_a_document_for_programs(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """The release's own, whatever else it printed."""
        accounts(served)["anna"] = {"role": "admin"}
        code, document = run(served, "list", "--json")
        assert (code, [one["name"] for one in document["accounts"]]) == (0, ["anna"])
        assert capsys.readouterr().out == ""

    def test_says_how_to_make_the_first(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody can sign in yet."""
        run(served, "list")
        assert "`nox -s user -- add NAME --role viewer|deployer|admin --env here`" in capsys.readouterr().out

    def test_fails_where_the_release_answers_otherwise(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its output is shown, and is not taken for an empty list."""
        monkeypatch.setattr(served.target.database, "command", lambda *_, **__: "hello\n")
        with pytest.raises(SlipwayError, match="printed `hello` instead of JSON with `accounts`"):
            run(served, "list")


class TestWhere:
    def test_needs_a_release(self, world: World) -> None:
        """Exit code 1, with what to do, before a password is typed."""
        with pytest.raises(SlipwayError, match=r"nothing is deployed to here yet: `nox -s deploy -- here` first"):
            run(world, "add", "anna", "--role", "viewer")

    def test_needs_a_database_that_runs(self, served: World) -> None:
        """After `nox -s down`, for example."""
        served.target.database.up = False
        with pytest.raises(SlipwayError, match=r"the database of here does not run: `nox -s deploy -- here`"):
            run(served, "list")

    def test_needs_a_release_that_has_accounts(self, served: World) -> None:
        """One that is older than this says so, and not what Python says."""
        served.target.database.accounts = None
        with pytest.raises(SlipwayError, match=r"release bbbb has no accounts yet: `nox -s deploy -- here` first"):
            run(served, "list")

    def test_needs_an_environment_that_exists(self, served: World) -> None:
        """Exit code 2."""
        options = parser("user").parse_args(["user", "list", "--env", "nowhere"])
        with pytest.raises(UsageError, match="nowhere"):
            options.run(served.target.project, options, served.progress(), opened=served.target.opened)

    def test_is_local_by_default(self) -> None:
        """As for each other verb."""
        assert parser("user").parse_args(["user", "list"]).env == "local"

    def test_waits_for_no_deploy(self, served: World) -> None:
        """Somebody must be kept out at once, whoever holds the lock."""
        accounts(served)["anna"] = {"role": "viewer"}
        with served.target.lock():
            run(served, "disable", "anna")
        assert accounts(served)["anna"]["disabled"]


LINE = "nobody can sign in yet: `nox -s user -- add NAME --role admin --env here` makes the first account"


class TestFirstAccount:
    def test_is_announced_by_each_deploy_until_there_is_one(self, served: World) -> None:
        """Then a deploy is quiet about it."""
        for name, lines in (("cccc", 1), ("dddd", 2)):
            served.target.releases.tree = release(name)
            assert served.run("deploy")[0] == 0
            assert served.said.count(LINE) == lines
        accounts(served)["anna"] = {"role": "admin"}
        served.target.releases.tree = release("eeee")
        assert served.run("deploy")[0] == 0
        assert served.said.count(LINE) == 2

    def test_is_not_announced_by_a_deploy_that_failed(self, served: World) -> None:
        """There is something else to look at."""
        served.target.releases.tree = release("cccc")
        served.target.fleet.unready.add("cccc")
        assert served.run("deploy")[0] == 1
        assert LINE not in served.said

    @pytest.mark.parametrize("why", ["the release has none", "the command fails"])
    def test_fails_no_deploy(self, served: World, why: str) -> None:
        """Neither a release that is older, nor a database that has just gone away."""
        served.target.releases.tree = release("cccc")
        if why == "the release has none":
            served.target.database.accounts = None
        else:
            served.target.fails["accounts"] = OSError("no space left")
        assert served.run("deploy")[0] == 0
        assert "accounts" not in served.said
        assert LINE not in served.said

    def test_is_asked_on_a_cluster_after_the_first_release_alone(self, served: World) -> None:
        """There it takes a Job, which takes seconds."""
        told = served.deploy(release("cccc"))
        assert told.report.previous == "bbbb"
        container = ComposeEnvironment(name="here", url="http://x.example")
        cluster = KubernetesEnvironment(name="here", url="http://x.example", overlay="x", context="x", namespace="x")
        assert first_account(container, served.target, told.report) == LINE
        served.target.asked.clear()
        assert first_account(cluster, served.target, told.report) is None
        assert served.target.asked == []


def test_what_the_release_is_told_is_one_json_object(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may have any character: it is data, on standard input."""
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        served.target.database,
        "command",
        lambda one, module, *verb, stdin: told.append((one.name, module, *verb, stdin)) or '{"done": "x"}',  # type: ignore[func-returns-value]
    )
    run(served, "disable", 'a"\n$(b)')
    [(name, module, verb, given)] = told
    assert (name, module, verb) == ("bbbb", "backend.accounts", "disable")
    assert json.loads(given) == {"name": 'a"\n$(b)'}
