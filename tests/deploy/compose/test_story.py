"""The deploy story on Compose, from the first release to the last."""

from __future__ import annotations

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

TABLE = "compose: rolling updates of two replicas"


@pytest.mark.gate
def test_ships_updates_and_goes_back(deployed: ComposeCheckout, add_row: AddRow) -> None:
    """Two digests share the traffic of an update, none fails, and a rollback brings the first back."""
    [first] = deployed.answering()
    assert first.startswith("sha256:")
    deployed.write_note("before the update")
    deployed.change("an update")
    outcome = deployed.proved()
    assert set(outcome.traffic["by_release"]) == {first, outcome.release}
    assert deployed.answering() == {outcome.release}
    assert docker("image", "inspect", "--format", "{{.Id}}", outcome.release) == outcome.release
    back = deployed.run("rollback")
    assert (back.code, back.verdict, back.release) == (0, "proved", first), str(back)
    assert deployed.answering() == {first}
    assert "`nox -s rollback -- compose --release NUMBER` ships it again" in deployed.run("releases").stdout
    again = deployed.run("rollback", "--release", outcome.release[:20])
    assert (again.code, again.release) == (0, outcome.release), str(again)
    assert deployed.untidy() == []
    for name, one in (("update", outcome), ("rollback", back)):
        seconds = {stage["name"]: stage["seconds"] for stage in one.report["stages"]}
        traffic = one.traffic
        add_row(TABLE, f"{name:10} roll out {seconds['roll out']:4.1f} s, {traffic['sent']} requests, 0 failed, p95 "
                       f"{traffic['latency_ms']['p95']:.0f} ms, whole deploy {one.seconds:.1f} s")  # fmt: skip


def test_a_deploy_that_changes_nothing_is_unchanged(deployed: ComposeCheckout) -> None:
    """No container is touched, and a commit of the documentation is no change."""
    deployed.commit()
    deployed.deploy()
    before = deployed.containers()
    deployed.append("README.md", "More words.")
    deployed.commit()
    outcome = deployed.deploy()
    assert (outcome.code, outcome.verdict) == (0, "unchanged"), str(outcome)
    assert deployed.containers() == before


def test_a_changed_setting_rolls_and_goes_back(deployed: ComposeCheckout) -> None:
    """The image is the same, the release is not: its name says so, and a rollback brings the old value back."""
    [before] = deployed.answering()
    deployed.set_env(LOG_LEVEL="WARNING")
    outcome = deployed.proved()
    assert outcome.release.startswith(f"{before.partition('+')[0]}+")
    assert set(outcome.traffic["by_release"]) == {before, outcome.release}
    assert "LOG_LEVEL: INFO → WARNING" in outcome.stderr
    back = deployed.run("rollback")
    assert (back.code, back.release) == (0, before), str(back)
    environment = deployed.inspect(deployed.containers("backend")[0])["Config"]["Env"]
    assert "LOG_LEVEL=INFO" in environment
    deployed.set_env(LOG_LEVEL="INFO")


def test_a_rotated_secret_rolls(deployed: ComposeCheckout) -> None:
    """New replicas know the new token, and no list of processes, environments or commands shows it."""
    deployed.set_env(SERVICE_TOKEN="a-token-of-the-tests-that-is-long-enough")
    outcome = deployed.proved()
    assert "a-token-of" not in outcome.stderr + outcome.stdout
    assert "a-token-of" not in docker("inspect", *deployed.containers())
    assert deployed.write_note("after the rotation")["text"] == "after the rotation"
    assert deployed.untidy() == []


def test_ten_in_a_row_fail_no_request(sound: ComposeCheckout, add_row: AddRow) -> None:
    """Ten updates, nothing lost, nothing failed."""
    sent = 0
    for number in range(10):
        sound.change(f"update {number}")
        sent += sound.proved().traffic["sent"]
    assert sound.untidy() == []
    add_row(TABLE, f"ten in a row: {sent} requests, 0 failed")


def test_without_draining_the_proof_fails(sound: ComposeCheckout) -> None:
    """The detector detects: a replica that leaves without draining fails requests, and the deploy says so."""
    sound.change("no draining")
    sound.proved(DRAIN_SECONDS="0")  # what drains is the release before
    sound.change("no draining, again")
    outcome = sound.deploy(DRAIN_SECONDS="0")
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert outcome.traffic["failed"] > 0


def test_down_keeps_the_data_and_volumes_end_it(deployed: ComposeCheckout) -> None:
    """What was written is there after `down` and the next deploy, and gone after `down --volumes`."""
    written = deployed.write_note("before down")
    assert deployed.run("down").code == 0
    assert deployed.containers() == []
    deployed.deploy()
    assert deployed.request("GET", f"{NOTES}/{written['id']}").status_code == 200
    assert deployed.run("down", "--volumes").code == 0
    deployed.proved()
    assert deployed.request("GET", f"{NOTES}/{written['id']}").status_code == 404
