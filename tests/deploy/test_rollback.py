"""Rollbacks: to the previous release, to a number, to a name, whatever the working tree looks like."""

from __future__ import annotations

import json

import pytest

from tests.deploy.checkout import Checkout

pytestmark = pytest.mark.e2e


@pytest.mark.gate
def test_going_back_and_forth(deployed: Checkout) -> None:
    """By default to the previous one, else to what `--release` names; with the same stages and the same proof."""
    [first] = deployed.answering()
    deployed.change("the second")
    second = deployed.proved()
    deployed.append("backend/app.py", "def broken(:\n")

    back = deployed.run("rollback")
    assert (back.code, back.verdict, back.release) == (0, "proved", first), str(back)
    assert set(back.traffic["by_release"]) == {first, second.release}
    stages = [stage["name"] for stage in back.report["stages"]]
    assert stages == ["plan", "build", "check", "migrate", "roll out", "prove"]
    assert deployed.answering() == {first}

    deployed.restore()
    forth = deployed.run("rollback", "--release", str(second.report["number"]))
    assert (forth.code, forth.verdict, forth.release) == (0, "proved", second.release), str(forth)
    named = deployed.deploy("--release", first)
    assert (named.code, named.verdict, named.release, named.traffic["failed"]) == (0, "proved", first, 0), str(named)
    assert deployed.answering() == {first}
    again = deployed.deploy("--release", first)
    assert (again.code, again.verdict) == (0, "unchanged"), str(again)
    assert deployed.untidy() == []


def test_the_oldest_release_has_none_before_it(deployed: Checkout) -> None:
    """What was proved first stays the last station, however often one went back to it."""
    listed = deployed.run("releases", "--json").report
    assert isinstance(listed, list)
    assert deployed.answering() == {listed[-1]["release"]}
    refused = deployed.run("rollback")
    assert refused.code == 2, str(refused)
    [line] = refused.problems()
    assert "none to go back to" in line


def test_a_dry_run_changes_nothing(sound: Checkout) -> None:
    """It plans, builds and checks, says what would change, and ships nothing."""
    old, records = sound.answering(), sound.newest_record()
    sound.change("for a dry run")
    outcome = sound.deploy("--dry-run")
    assert outcome.code == 0, str(outcome)
    assert "backend/__init__.py" in outcome.stderr
    assert outcome.release not in old
    assert (sound.answering(), sound.newest_record()) == (old, records)
    assert sound.untidy() == []


def test_a_release_that_is_no_longer_kept_says_so(deployed: Checkout) -> None:
    """`retain` proved releases are kept; an older record's folder is gone, and the line says how to get it back."""
    deployed.patch("pyproject.toml", "retain = 5", "retain = 2")
    [oldest] = deployed.answering()
    for number in range(2):
        deployed.change(f"newer {number}")
        newest = deployed.proved()
    refused = deployed.deploy("--release", oldest)
    assert refused.code == 2, str(refused)
    [line] = refused.problems()
    assert oldest in line
    assert "retain" in line
    assert deployed.answering() == {newest.release}


def test_forward_refuses_an_older_commit(deployed: Checkout) -> None:
    """The run of a pipeline that is late, or run again, touches nothing; going back is asked for by another name."""
    older = deployed.git("rev-parse", "HEAD").strip()
    deployed.change("newer")
    deployed.commit()
    newer = deployed.proved("--forward")
    deployed.git("checkout", "--quiet", older)
    refused = deployed.deploy("--forward")
    assert refused.code == 2, str(refused)
    [line] = refused.problems()
    assert f"is newer than {older[:12]}: not deployed; to go back, run `nox -s rollback -- local`" in line
    assert deployed.answering() == {newer.release}
    assert deployed.deploy().code == 0
    back = deployed.run("rollback", "--release", str(newer.report["number"]))
    assert back.code == 0, str(back)
    assert deployed.deploy("--forward").code == 2, "what came back is of its own commit, whoever brought it"
    begun = deployed.newest_record() / "begun.json"
    begun.write_text(json.dumps({**json.loads(begun.read_text()), "commit": "1" * 40}))
    [line] = deployed.deploy("--forward").problems()
    assert "was deployed from 111111111111, which is not in this clone" in line
    deployed.git("checkout", "--quiet", "-")
