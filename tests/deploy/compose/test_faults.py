"""What goes wrong around a deploy on Compose: killed deploys, dead containers, bad input."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.breaking import wrap_service
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.machine import wait_until
from tests.deploy.runs import Deploy
from tests.deploy.visitors import Visitors
from tests.notes import NOTES
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

KILLED = "compose: kill -9 of the deploy"
FAULTS = "compose: faults under traffic"


def stage(name: str) -> Callable[[ComposeCheckout, Deploy], bool]:
    """Stage NAME began."""
    return lambda _, deploy: deploy.stage() == name


def replicas(count: int) -> Callable[[ComposeCheckout, Deploy], bool]:
    """There are COUNT containers of the service, old and new."""
    return lambda one, deploy: deploy.stage() == "roll out" and len(one.containers("backend")) == count


def tries(one: ComposeCheckout, _: Deploy) -> bool:
    """The release is tried, in a container that no deploy owns once this one is dead."""
    return any("-try-" in name for name in one.containers("backend"))


MOMENTS = {
    "build": stage("build"),
    "check": stage("check"),
    "check, trial": tries,
    "migrate": stage("migrate"),
    "roll out": stage("roll out"),
    "roll out, with three replicas": replicas(3),
    "prove": stage("prove"),
}


@pytest.mark.parametrize("moment", in_gate(MOMENTS, "roll out, with three replicas"))
def test_a_killed_deploy_is_healed_by_the_next(moment: str, deployed: ComposeCheckout, add_row: AddRow) -> None:
    """Whatever it was doing, people are served; then the next one is proved, and nothing of the dead one is left."""
    old = deployed.answering()
    deployed.change(f"killed in {moment}")
    deploy = deployed.start("deploy")
    deploy.wait_for(lambda: MOMENTS[moment](deployed, deploy), moment)
    new = deploy.release()
    deploy.kill()
    served = deployed.answering()
    assert served <= old | {new}
    healed = deployed.proved()
    assert deployed.answering() == {healed.release}
    assert deployed.untidy() == []
    deployed.commit()
    by = "both" if len(served) > 1 else "old" if served == old else "new"
    add_row(KILLED, f"{moment:30} served by {by:5} next deploy proved in {healed.seconds:4.1f} s")


def test_a_killed_roll_back_is_healed(sound: ComposeCheckout, add_row: AddRow) -> None:
    """The mended release ships over the broken one that nobody could take back."""
    wrap_service(sound, "if self.asked >= 50:\n    status = 500")
    deploy = sound.start("deploy")
    deploy.wait_for_stage("roll back")
    deploy.kill()
    sound.restore()
    sound.change("mended")
    healed = sound.deploy()
    assert (healed.code, healed.verdict) == (0, "proved"), str(healed)
    assert sound.answering() == {healed.release}
    assert sound.untidy() == []
    add_row(KILLED, f"{'roll back':30} {'':15} next deploy proved in {healed.seconds:4.1f} s")


@pytest.mark.parametrize("service", ["backend", "postgres", "redis"])
def test_what_is_killed_comes_back_by_itself(service: str, deployed: ComposeCheckout, add_row: AddRow) -> None:
    """Docker restarts it, and a deploy finds everything in its place."""
    release = deployed.answering()
    name = deployed.containers(service)[0]
    before = deployed.inspect(name)["State"]["Pid"]
    with Visitors(f"http://localhost:{deployed.port}", f"{NOTES}?limit=1") as seen:
        subprocess.run(["kill", "-9", str(before)], check=True)
        wait_until(lambda: deployed.inspect(name)["State"]["Pid"] not in (0, before), f"{service} did not come back")
        healthy = "{{.State.Health.Status}}"
        wait_until(lambda: docker("inspect", "--format", healthy, name) == "healthy", f"{service} is not healthy", 60)
    assert deployed.answering() == release
    failed = sum(visit.status != 200 for visit in seen.visits)
    outcome = deployed.deploy()
    assert outcome.code == 0, str(outcome)
    assert deployed.untidy() == []
    add_row(FAULTS, f"{service:9} killed: {failed} of {len(seen.visits)} visits failed, then all is served")


def test_a_deploy_survives_a_restart_of_the_stores(deployed: ComposeCheckout) -> None:
    """PostgreSQL and Redis restarted in mid-roll: the deploy ends, undone or proved, and the service serves."""
    deployed.change("restarted stores")
    deploy = deployed.start("deploy")
    deploy.wait_for_stage("roll out")
    docker("restart", *deployed.containers("postgres"), *deployed.containers("redis"))
    outcome = deploy.finish()
    back = outcome.report["rollback"]
    if back and back["verdict"] == "failed":  # undone, and asked for its proof while the stores were still away
        assert [stage["name"] for stage in back["stages"] if stage["outcome"] != "ok"] == ["prove"], str(outcome)
        assert "requests failed" in back["reason"], str(outcome)
    else:
        assert (outcome.code, outcome.verdict) in ((0, "proved"), (1, "rolled_back")), str(outcome)
    wait_until(deployed.serves, "it does not serve again")
    assert deployed.untidy() == []
    assert len(deployed.answering()) == 1
    deployed.commit()  # its image says so: deployed from a dirty tree, it is another one
    deployed.deploy()


def test_nothing_but_the_edge_is_open(deployed: ComposeCheckout) -> None:
    """No port of the host but the edge's, and no right that is not needed."""
    for name in deployed.containers():
        facts = deployed.inspect(name)
        published = {key: value for key, value in facts["NetworkSettings"]["Ports"].items() if value}
        if facts["Config"]["Labels"]["com.docker.compose.service"] == "frontend":
            assert [one["HostPort"] for ports in published.values() for one in ports] == [str(deployed.port)]
            assert [one["HostIp"] for ports in published.values() for one in ports] == ["127.0.0.1"]
        else:
            assert published == {}, name
        host = facts["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges:true"]), name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert facts["Config"]["User"].partition(":")[0] not in ("", "0", "root"), name
        assert not [one for one in facts["Config"]["Env"] if any(
            secret in one for key, secret in deployed.settings().items()
            if secret and key.endswith(("PASSWORD", "KEY", "TOKEN")))], name  # fmt: skip


def test_the_secrets_are_closed_to_others(deployed: ComposeCheckout) -> None:
    """A folder that others may enter is refused with its fix, and nothing is touched."""
    folder = deployed.home / "secrets"
    before = deployed.containers()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    folder.chmod(0o755)
    refused = deployed.deploy()
    folder.chmod(0o700)
    says = f"{folder}: others can read the secrets in it (mode 755): `chmod 700 {folder}`"
    assert (refused.code, refused.problems()) == (2, [says]), str(refused)
    assert deployed.containers() == before


def test_a_missing_secret_file_is_made_again(deployed: ComposeCheckout) -> None:
    """`.env` is where secrets live; the files are made of it."""
    (deployed.home / "secrets" / "SERVICE_TOKEN").unlink()
    assert deployed.deploy().verdict == "unchanged"
    assert (deployed.home / "secrets" / "SERVICE_TOKEN").exists()


def test_another_login_than_the_volume_has_is_named(deployed: ComposeCheckout) -> None:
    """A changed POSTGRES_PASSWORD or POSTGRES_DB is refused before anything is touched."""
    refused = deployed.deploy(POSTGRES_PASSWORD="another-password-than-the-volume-has")
    [problem] = refused.problems()
    assert refused.code == 2, str(refused)
    assert f"volume {deployed.project}_postgres was made with another one" in problem
    assert "another-password" not in refused.stderr
    with deployed.dotenv(POSTGRES_DB="another"):
        refused = deployed.deploy()
    assert refused.code == 2, str(refused)
    assert 'has another one (database "another" does not exist): put its name back in .env' in refused.problems()[0]
    assert deployed.deploy().verdict == "unchanged"


def test_the_name_of_another_folders_project_is_refused(deployed: ComposeCheckout, checkout: ComposeCheckout) -> None:
    """Two clones of one name would take each other's containers."""
    with checkout.dotenv(PROJECT_NAME=deployed.project):
        refused = checkout.deploy(PROJECT_NAME=deployed.project)
    assert refused.code == 2, str(refused)
    assert f"runs from {deployed.root} already" in refused.problems()[0]
    deployed.answering()


def test_a_disk_that_is_full_while_building_is_said(sound: ComposeCheckout) -> None:
    """What the step said, not what BuildKit says of the step; and the old release serves."""
    old = sound.answering()
    step = "RUN --mount=type=tmpfs,target=/small,size=1m dd if=/dev/zero of=/small/file bs=1M count=2"
    sound.patch("docker/Dockerfile.backend", "FROM builder AS source\n", f"FROM builder AS source\n{step}\n")
    sound.change("does not fit")
    failed = sound.deploy()
    sound.git("checkout", "--quiet", "--", "docker")
    assert (failed.code, failed.verdict) == (1, "failed"), str(failed)
    assert failed.reason.startswith("docker/Dockerfile.backend: "), failed.reason
    assert "No space left on device" in failed.reason, failed.reason
    assert sound.answering() == old
    assert sound.untidy() == []


def test_a_taken_port_is_named_with_its_holder(checkout: ComposeCheckout) -> None:
    """Nothing is built or started for a port that cannot be had."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", checkout.port))
        taken.listen()
        refused = checkout.deploy()
    assert refused.code == 2, str(refused)
    assert f"EDGE_PORT: port {checkout.port} is taken by" in refused.problems()[0]
    assert checkout.containers() == []


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"DOCKER_HOST": "unix:///nonexistent/docker.sock"}, "no engine answers at unix:///nonexistent/docker.sock"),
        ({"PATH": "/nonexistent"}, "docker: not installed"),
    ],
)
def test_what_is_missing_is_said_in_one_line(environ: dict[str, str], says: str, checkout: ComposeCheckout) -> None:
    """Exit code 2, one line, and nothing was touched."""
    refused = checkout.deploy(**environ)
    assert refused.code == 2, str(refused)
    assert says in refused.problems()[0]
    assert not (checkout.home / "artifacts").exists()


def test_a_name_that_compose_would_refuse_is_named(checkout: ComposeCheckout) -> None:
    """Exit code 2, one line, and nothing was touched."""
    with checkout.dotenv(PROJECT_NAME="Not A Name"):
        refused = checkout.deploy(PROJECT_NAME="")
    assert refused.code == 2, str(refused)
    assert "PROJECT_NAME: `Not A Name` is not a valid Compose project name" in refused.problems()[0]
    assert not (checkout.home / "artifacts").exists()


def test_docker_compose_up_alone_serves_and_is_adopted(checkout: ComposeCheckout) -> None:
    """After `nox -s init`, `docker compose up` serves a migrated database; the first deploy takes it over."""
    environ = {**checkout.environ, "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}

    def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "compose", *arguments]
        return subprocess.run(command, cwd=checkout.root, env=environ, capture_output=True, text=True, check=False)

    refused = compose("up", "--detach")
    assert refused.returncode != 0
    assert "nox -s init" in refused.stderr
    assert checkout.run("init").code == 0
    assert compose("config", "--quiet").stderr == ""
    started = compose("up", "--detach", "--wait", "--build")
    # `--wait` counts the one shot that ended as a failure where nobody depends on it any more.
    wait_until(checkout.serves, started.stderr, 60)
    written = checkout.write_note("by hand")
    outcome = checkout.deploy()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert checkout.request("GET", f"{NOTES}/{written['id']}").status_code == 200
    assert checkout.answering() == {outcome.release}
    for name in ("backend", "frontend", "migrate"):
        docker("rmi", "--force", f"{checkout.project}-{name}:dev")


def test_an_image_that_is_gone_is_named(sound: ComposeCheckout) -> None:
    """A rollback to a release whose image somebody pruned says which, and nothing is touched."""
    [old] = sound.answering()
    sound.change("after the one that will be gone")
    new = sound.proved().release
    short = old.removeprefix("sha256:")[:12]
    docker("rmi", "--force", f"{sound.project}-backend:{short}")
    refused = sound.run("rollback")
    assert refused.code in (1, 2), str(refused)
    assert "is gone from this machine" in refused.stderr
    assert sound.answering() == {new}
    sound.commit()


def test_has_no_machine_path_in_its_records(deployed: ComposeCheckout) -> None:
    """A report may be shown to anybody."""
    report = (deployed.newest_record() / "report.md").read_text(encoding="utf-8")
    assert str(Path(deployed.root)) not in report
