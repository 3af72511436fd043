"""cd.yml, run: from a push to what serves, and every way in which it should stop."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx2
import psutil
import pytest

from pipeline.registry.image import resolve
from tests.conftest import AddRow
from tests.deploy.machine import processes
from tests.tools import need
from tests.workflows.act import Checkout, Run
from tests.workflows.conftest import Place

pytestmark = pytest.mark.e2e

TABLE = "workflows"
LOGIN, ATTEST, UPLOAD = "docker/login-action", "actions/attest", "actions/upload-artifact"


def catalog(registry: str) -> list[str]:
    """The repositories that a registry has."""
    found: list[str] = httpx2.get(f"http://{registry}/v2/_catalog", trust_env=False).json()["repositories"]
    return found


def _command(one: psutil.Process) -> list[str]:
    try:
        return one.cmdline()
    except psutil.NoSuchProcess:  # a docker client, between the listing and now
        return []


def running(checkout: Checkout) -> list[psutil.Process]:
    """The process of the step that runs a session, then all that it started."""
    [step] = [
        one for one in processes(checkout.home) if _command(one)[1:2] and _command(one)[1].endswith("/nox/run.py")
    ]
    return [step, *step.children(recursive=True)]


def attested(done: Run) -> str:
    """The digest that the run pushed and signed."""
    [given] = [call["with"] for call in done.calls if call["action"] == ATTEST and call["job"] == "sign"]
    return str(given["subject-digest"])


def test_a_push_is_tested_signed_and_proved(checkout: Checkout, place: Place, tmp_path: Path, add_row: AddRow) -> None:
    """One digest from the build to what serves; what is not configured is left out, and says so."""
    mark = tmp_path / "injected"
    commit = checkout.commit(f"fix: $(touch {mark}) `touch {mark}`")
    done = place.run(checkout)
    assert done.code == 0, str(done)
    assert {name for name, result in done.jobs.items() if result != "success"} <= {"staging", "production"}
    assert {"push", "image", "sign", "kind", "left-out"} <= done.jobs.keys()
    assert "staging" not in done.jobs
    assert done.played() == {"astral-sh/setup-uv": 10, LOGIN: 4, "docker/setup-qemu-action": 1,
                             "docker/setup-buildx-action": 1, "sigstore/cosign-installer": 2, ATTEST: 2, UPLOAD: 1}  # fmt: skip

    [subject] = [call["with"] for call in done.calls if call["action"] == ATTEST and call["job"] == "sign"]
    digest = subject["subject-digest"]
    assert subject["subject-name"] == place.pushed
    assert resolve(f"{place.registry}/copied@{digest}").digest == resolve(f"{place.pushed}@{digest}").digest == digest
    answer = httpx2.get(f"http://localhost:{place.port}/health", trust_env=False)
    assert answer.headers["x-release"] == digest
    key = ["--key", str(place.key.with_suffix(".pub")), "--insecure-ignore-tlog"]
    for verb in (["verify"], ["verify-attestation", "--type", "slsaprovenance1"]):
        checked = subprocess.run(
            [need("cosign"), *verb, *key, f"{place.pushed}@{digest}"], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
    assert commit in done.said("sign") + checkout.git("log", "-1", "--format=%H")
    assert not mark.exists()

    assert "requests" in done.summary, done.summary
    for left_out in ("staging", "production", "the release board"):
        assert f"**{left_out}** was" in done.summary
    add_row(
        TABLE,
        f"cd, a push                  green in {done.seconds:3.0f} s: {digest[:19]}… pushed, tested, scanned, signed, verified, serves",
    )
    add_row("workflows: script injection", "commit message  $(…) `…` on main   not run")


def test_a_failing_test_stops_before_the_push(checkout: Checkout, place: Place, add_row: AddRow) -> None:
    """Nothing is pushed, and nobody has logged in."""
    checkout.replace(
        "tests/pipeline/releases/test_lock.py", "\n\n\n", "\n\n\ndef test_fails() -> None:\n    assert 1 == 2\n\n\n"
    )
    checkout.commit("a mistake")
    done = place.run(checkout)
    assert done.code != 0
    assert done.jobs["test"] == "failure", str(done)
    assert not done.jobs.keys() & {"push", "sign", "kind"}
    assert done.played()[LOGIN] == 0
    assert catalog(place.registry) == []
    add_row(TABLE, f"cd, a failing test          red in {done.seconds:3.0f} s at ci; nothing pushed, no login")


def test_a_digest_without_a_signature_is_refused(checkout: Checkout, place: Place, add_row: AddRow) -> None:
    """It is in the registry, and no further."""
    signing = 'session: sign, args: "${{ needs.push.outputs.reference }}"'
    checkout.replace(".github/workflows/cd.yml", signing, "session: settings")
    checkout.commit("nobody signs")
    done = place.run(checkout)
    assert done.code != 0
    assert (done.jobs["push"], done.jobs["sign"]) == ("success", "failure"), str(done)
    assert "kind" not in done.jobs
    assert "not signed: `nox -s sign -- " in done.said("sign")
    assert done.played()[ATTEST] == 0
    assert place.containers() == []
    add_row(
        TABLE, f"cd, an unsigned digest      red in {done.seconds:3.0f} s at verify-image; not attested, not deployed"
    )


def test_a_failing_proof_rolls_back(checkout: Checkout, place: Place, add_row: AddRow) -> None:
    """Without draining requests fail: the release before serves again, the run is red, and its summary says why."""
    done = place.run(checkout, DRAIN_SECONDS="0")
    assert done.code != 0
    assert (done.jobs["sign"], done.jobs["kind"]) == ("success", "failure"), str(done)
    digest = next(
        call["with"]["subject-digest"] for call in done.calls if call["job"] == "sign" and call["action"] == ATTEST
    )
    answer = httpx2.get(f"http://localhost:{place.port}/health", trust_env=False)
    assert answer.headers["x-release"] not in ("", digest)
    assert f"Release {digest[7:19]}… was undone" in done.summary
    assert done.played("kind")[UPLOAD] == 1
    assert not done.jobs.keys() & {"staging", "production"}
    add_row(
        TABLE,
        f"cd, a failing proof         red in {done.seconds:3.0f} s; rolled back, the old release serves, report kept",
    )


def test_a_cancelled_deploy_is_undone(checkout: Checkout, place: Place, add_row: AddRow) -> None:
    """As a runner cancels: SIGINT, SIGTERM, and the end of all that is left, in ten seconds; then the step that heals."""
    started = place.start(checkout)
    started.wait_for("roll out …", 700, times=2)  # the first one is of the release before
    step, *_ = tree = running(checkout)
    step.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(tree, timeout=7.5)
    if alive:
        step.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(alive, timeout=2.5)
    for one in alive:
        one.kill()
    done = started.finish()
    assert done.code != 0
    assert done.jobs["kind"] == "failure", str(done)
    healed = done.said("kind").partition("Running session rollback")[2]
    assert "proved" in healed or "no deploy is unfinished" in healed, str(done)
    digest = attested(done)
    answer = httpx2.get(f"http://localhost:{place.port}/health", trust_env=False)
    assert answer.headers["x-release"] not in ("", digest)
    how = f"killed after 10 s ({len(alive)} processes left), healed" if alive else "undone by itself"
    add_row(TABLE, f"cd, cancelled in roll out   red in {done.seconds:3.0f} s; {how}: the old release serves")


def test_a_pushed_release_whose_deploy_is_killed_is_undone(checkout: Checkout, place: Place, add_row: AddRow) -> None:
    """deploy.yml, whoever calls it: nothing is left of its deploy, so the step after it brings the old release back."""
    digest = place.pipeline(checkout, "push", IMAGE_REPOSITORY=place.pushed).split()[-1]
    inputs = {"environment": "compose", "session": "deploy", "arguments": f"--release {place.pushed}@{digest}"}
    started = place.start(checkout, "deploy.yml", event="workflow_call", inputs=inputs)
    started.wait_for("roll out …", 700, times=2)  # the first one is of the release before
    for one in running(checkout):
        one.kill()
    done = started.finish()
    assert done.code != 0
    assert done.jobs == {"deploy": "failure"}, str(done)
    healed = done.said("deploy").partition("Running session rollback")[2]
    assert "proved" in healed, str(done)
    assert "no deploy is unfinished" not in healed
    answer = httpx2.get(f"http://localhost:{place.port}/health", trust_env=False)
    assert answer.headers["x-release"] not in ("", digest)
    [upload] = [call["with"] for call in done.calls if call["action"] == UPLOAD]
    assert upload["name"] == "compose"
    assert (done.played()[LOGIN], done.played()[ATTEST]) == (1, 0)
    add_row(
        TABLE, f"deploy, killed in roll out  red in {done.seconds:3.0f} s; healed: the old release serves, report kept"
    )
