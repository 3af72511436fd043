"""The first deploy of a clone, a second one that changes nothing, and the end."""

from __future__ import annotations

import httpx2
import psutil
import pytest

from pipeline.config.settings import variables
from tests.deploy.checkout import Checkout
from tests.deploy.conftest import MakeCheckout
from tests.deploy.machine import wait_until
from tests.notes import NOTES

pytestmark = pytest.mark.e2e


READY = {"database": "ok", "schema": "ok", "redis": "ok", "draining": "ok"}
FOLDERS = {
    "a name to stumble over": "our 100% new 'shop' & café",
    "deeper than a socket may be": "a-folder-with-a-long-name/" * 4 + "clone",
}


@pytest.mark.gate
def test_a_first_deploy_is_proved_and_serves(checkout: Checkout) -> None:
    """One command in a fresh clone: the service answers; data survives `down`, and not `down --volumes`."""
    first = checkout.proved()
    assert first.report["number"] == 1
    assert first.report["previous"] is None
    assert first.report["rollback"] is None
    assert (first.report["dirty"], first.report["commit"]) == (False, checkout.git("rev-parse", "HEAD").strip())
    assert set(first.traffic["by_release"]) == {first.release}
    assert checkout.answering() == {first.release}
    _answers_as_promised(checkout)
    _keeps_its_files_closed(checkout)
    assert checkout.untidy() == []

    written = checkout.write_note("1.4.2")
    again = checkout.deploy()
    assert (again.code, again.verdict, again.release) == (0, "unchanged", first.release), str(again)

    assert checkout.run("down").code == 0
    assert checkout.processes() == []
    with pytest.raises(httpx2.TransportError):
        checkout.request("GET", "/health")
    assert checkout.deploy().code == 0
    assert checkout.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert [one["verdict"] for one in _releases(checkout)] == ["proved", "unchanged", "proved"]

    data = checkout.data
    assert checkout.run("down", "--volumes").code == 0
    assert not data.exists()
    assert not (checkout.home / "valkey").exists()
    assert _releases(checkout) == []


def _states(checkout: Checkout) -> tuple[int, dict[str, str]]:
    answer = checkout.request("GET", "/ready")
    return answer.status_code, {name: check["state"] for name, check in answer.json()["checks"].items()}


def _answers_as_promised(checkout: Checkout) -> None:
    wait_until(lambda: _states(checkout) == (200, READY), "not all is well")  # a check may be late on a busy machine
    assert checkout.request("POST", NOTES, json={}).status_code == 401
    assert checkout.request("GET", NOTES).json()["items"] == [], "what the proof wrote is nobody's business"
    written = checkout.write_note("1.0.0")
    assert checkout.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert checkout.request("GET", "/metrics").status_code == 404
    replicas = checkout.status()["replicas"]
    assert len({one["metrics"] for one in replicas}) == len(replicas) == 2
    for one in replicas:
        assert httpx2.get(one["metrics"]).status_code == 200
    ours = {process.pid for process in checkout.processes()}
    sockets = [one for one in psutil.net_connections("tcp") if one.pid in ours and one.status == psutil.CONN_LISTEN]
    listening = {(one.laddr.ip, one.laddr.port) for one in sockets if one.laddr}
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1"}
    assert len({port for _, port in listening}) == 3, "the edge's port and one for the metrics of each replica"


def _keeps_its_files_closed(checkout: Checkout) -> None:
    record = checkout.home / "releases" / "1"
    names = {"begun.json", "deploy.log", "report.json", "report.md", "timeline.svg"}
    assert {path.name for path in record.iterdir()} == names
    # The packages in venvs/ are links into uv's shared cache: their modes are not ours.
    paths = [path for path in checkout.home.rglob("*") if "venvs" not in path.relative_to(checkout.home).parts[:1]]
    opened = [str(path) for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077]
    assert opened == []
    for path in (checkout.root / ".env", checkout.root / ".slipway", checkout.home, checkout.data):
        assert path.stat().st_mode & 0o077 == 0, path
    values = checkout.settings()
    secrets = [values[one.name] for one in variables() if one.generate]
    assert all(secrets)
    for evidence in [*record.iterdir(), *checkout.home.glob("programs/*"), *checkout.home.glob("logs/*")]:
        text = evidence.read_text(encoding="utf-8", errors="replace")
        assert not [secret for secret in secrets if secret in text], evidence
    for process in psutil.process_iter(["cmdline"]):
        assert not [secret for secret in secrets if secret in " ".join(process.info["cmdline"] or ())]


def _releases(checkout: Checkout) -> list[dict[str, object]]:
    listed = checkout.run("releases", "--json").report
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_clone_deploys_wherever_it_is(folder: str, make_checkout: MakeCheckout) -> None:
    """Its path is quoted in each command and configuration; sockets go to a short one where it is too long."""
    checkout = make_checkout(FOLDERS[folder])
    checkout.proved()
    assert checkout.untidy() == []
    checkout.change("a line")
    checkout.proved()
