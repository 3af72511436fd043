"""What nobody was there to undo: a release that turns bad later, a host that went down, a name that two folders use."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from tests.containers import docker
from tests.deploy.breaking import wrap_service
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.machine import wait_until
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

TABLE = "compose: after the deploy"


def test_a_release_that_gets_unhealthy_later_is_seen_and_replaced(sound: ComposeCheckout, add_row: AddRow) -> None:
    """It had been proved. Docker notices, `status` says it, and the next deploy needs no other care.

    Where no replica says that it is ready, the edge asks them all the same: the service's own answer says more.
    """
    wrap_service(sound, "import os\nif path == '/ready' and os.path.exists('/tmp/unhealthy'):\n    status = 503")
    bad = sound.proved().release
    for name in sound.containers("backend"):
        docker("exec", name, "touch", "/tmp/unhealthy")
    wait_until(lambda: not any(one["ready"] for one in sound.status()["replicas"]), "nobody noticed", 90)
    states = {one["state"] for one in sound.status()["replicas"]}
    assert states == {"running (unhealthy)"}
    assert sound.answering() == {bad}
    sound.restore()
    sound.change("mended")
    healed = sound.deploy()
    assert (healed.code, healed.verdict) == (0, "proved"), str(healed)
    assert healed.release != bad
    assert sound.answering() == {healed.release}
    assert sound.untidy() == []
    sound.commit()
    add_row(TABLE, f"unhealthy later: the mended release proved in {healed.seconds:.1f} s")


def test_a_replica_that_hangs_is_started_again(deployed: ComposeCheckout, add_row: AddRow) -> None:
    """SIGSTOP: it lives and answers nothing. The other one serves, and the health check ends it for Docker."""
    name = deployed.containers("backend")[0]
    stopped, init = time.monotonic(), psutil.Process(deployed.inspect(name)["State"]["Pid"])
    for process in init.children(recursive=True):
        process.suspend()
    wait_until(lambda: deployed.inspect(name)["RestartCount"] == 1, "nobody ended it", 120)
    wait_until(lambda: deployed.inspect(name)["State"]["Health"]["Status"] == "healthy", "it did not come back", 60)
    add_row(TABLE, f"a replica that hangs: healthy again after {time.monotonic() - stopped:.0f} s")
    assert deployed.serves()


@pytest.mark.parametrize("moment", ["served", "in mid-roll"])
def test_everything_killed_at_once_is_brought_back(moment: str, deployed: ComposeCheckout, add_row: AddRow) -> None:
    """As a power cut leaves it where Docker does not start it again: the next deploy proves it, with the data."""
    written = deployed.write_note(f"before all was killed, {moment}")
    if moment == "in mid-roll":
        deployed.change("never finished")
        deploy = deployed.start("deploy")
        deploy.wait_for(lambda: len(deployed.containers("backend")) == 3, "a third replica")
        deploy.process.kill()
        deploy.process.wait()
    docker("kill", *deployed.containers(), check=False)  # what drains may have ended by itself
    healed = deployed.deploy()
    assert (healed.code, healed.verdict) == (0, "proved"), str(healed)
    # While containers start again, which may take longer than the baseline, what fails is nobody's failure.
    assert (healed.traffic["by_release"][healed.release]["failed"], healed.traffic["writes_lost"]) == (0, 0)
    assert deployed.answering() == {healed.release}
    assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert deployed.untidy() == []
    deployed.commit()
    add_row(TABLE, f"all killed, {moment}: proved in {healed.seconds:.1f} s")


def test_a_stopped_replica_is_replaced_by_the_next_deploy(deployed: ComposeCheckout) -> None:
    """`docker stop` is meant, so Docker leaves it; a deploy of the same release makes the number whole."""
    deployed.deploy()  # committed since: the image says so, and is another one
    [release] = deployed.answering()
    docker("stop", deployed.containers("backend")[0])
    assert deployed.answering() == {release}
    outcome = deployed.deploy()
    assert (outcome.code, outcome.release) == (0, release), str(outcome)
    assert deployed.untidy() == []


def test_a_one_shot_that_lost_its_client_is_removed(deployed: ComposeCheckout) -> None:
    """A migration whose deploy and docker client died at once leaves a container that nobody would remove."""
    image = deployed.inspect(deployed.containers("backend")[0])["Image"]
    labels = [f"com.docker.compose.project={deployed.project}", "com.docker.compose.oneoff=True",
              "com.docker.compose.service=migrate"]  # fmt: skip
    given = [word for label in labels for word in ("--label", label)]
    docker("run", *given, "--entrypoint", "python", image, "-c", "pass")
    assert deployed.deploy().code == 0
    assert deployed.untidy() == []


def test_down_leaves_the_project_of_another_folder_alone(deployed: ComposeCheckout, checkout: ComposeCheckout) -> None:
    """Least of all its data."""
    written, before = deployed.write_note("not yours"), deployed.containers()
    for more in ([], ["--volumes"]):
        refused = checkout.run("down", *more, PROJECT_NAME=deployed.project)
        assert refused.code == 2, str(refused)
        assert f"runs from {deployed.root} already" in refused.problems()[0]
    assert deployed.containers() == before
    assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written


def test_a_first_deploy_that_fails_leaves_what_was_started_by_hand(checkout: ComposeCheckout) -> None:
    """It is no release that was recorded, so nothing is rolled back to; it was never stopped either."""
    assert checkout.run("init").code == 0
    environ = [f"{name}={value}" for name, value in checkout.environ.items()]
    by_hand(checkout.root, *environ)
    wait_until(checkout.serves, "nothing serves", 60)
    checkout.append("backend/app.py", "raise RuntimeError('the flux is not compensated')\n")
    outcome = checkout.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert "the flux is not compensated" in outcome.reason
    assert outcome.report["rollback"]["reason"] == "there is no earlier release: dev is still serving"
    assert checkout.answering() == {"dev"}


def by_hand(folder: Path, *environ: str) -> None:
    """`docker compose up` in FOLDER, until the edge is there."""
    import subprocess

    command = ["env", *environ, "docker", "compose", "up", "--detach", "--build"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"after {time.monotonic() - started:.0f} s: {done.stderr}"
