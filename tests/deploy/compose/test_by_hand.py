"""What somebody does beside a deploy: a plain `up`, the way in to the data, a second clone, a proxy in front."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import free_port, wait_until
from tests.deploy.visitors import Visitors
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

# What docker gives to a bridge of its own; a request from this host comes from there.
DOCKERS = "172.16.0.0/12,192.168.0.0/16,10.0.0.0/8"


def compose(one: ComposeCheckout, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `docker compose` in the clone, as a person would."""
    command = ["docker", "compose", *arguments]
    given = {**one.environ, **environ}
    return subprocess.run(command, cwd=one.root, env=given, capture_output=True, text=True, check=False, timeout=180)


def facts(one: ComposeCheckout) -> dict[str, str]:
    """Return when each container was started, by its ID."""
    found = [one.inspect(name) for name in one.containers()]
    return {each["Id"]: each["State"]["StartedAt"] for each in found}


def test_a_plain_up_replaces_nothing(deployed: ComposeCheckout) -> None:
    """It stops before it touches a container, and its last line says why; after `down` it may."""
    before = facts(deployed)
    with Visitors(f"http://localhost:{deployed.port}", "/health") as seen:
        refused = compose(deployed, "up", "--detach")
    assert refused.returncode != 0
    assert "bind source path does not exist" in refused.stderr
    assert "no-deploy-runs-here" in refused.stderr
    left = [name for name in deployed.containers() if "migrate" in name or "rights" in name]  # created, not started
    for name in left:
        docker("rm", name)
    assert facts(deployed) == before
    assert {visit.status for visit in seen.visits} == {200}
    assert deployed.deploy().verdict == "unchanged"


def test_the_way_in_to_the_data_is_opened_and_closed(deployed: ComposeCheckout) -> None:
    """The profile `debug`: PostgreSQL, Redis and a replica's metrics on this host alone; nothing else is touched."""
    before = facts(deployed)
    ports = {name: str(free_port()) for name in ("POSTGRES_PORT", "REDIS_PORT", "METRICS_PORT")}
    opened = compose(deployed, "--profile", "debug", "up", "--detach", "--wait", "debug", **ports)
    assert opened.returncode == 0, opened.stderr
    try:
        assert _said(ports["REDIS_PORT"], b"PING\r\n").startswith(b"-NOAUTH")
        assert b"http_requests_total" in _said(ports["METRICS_PORT"], b"GET /metrics HTTP/1.0\r\n\r\n")
        assert _said(ports["POSTGRES_PORT"], b"\x00\x00\x00\x08\x04\xd2\x16\x2f") == b"N"  # does it speak TLS? No
    finally:
        closed = compose(deployed, "--profile", "debug", "rm", "--force", "--stop", "debug", **ports)
    assert closed.returncode == 0, closed.stderr
    assert facts(deployed) == before


def test_what_was_started_by_hand_is_taken_over_whole(checkout: ComposeCheckout) -> None:
    """The first deploy makes all of it anew: nothing that stays needs the link that is gone, after a restart either."""
    assert checkout.run("init").code == 0
    by_hand = compose(checkout, "up", "--build", "--detach", "--wait")
    assert by_hand.returncode == 0, by_hand.stderr
    assert checkout.answering() == {"dev"}
    written = checkout.write_note("by hand")
    outcome = checkout.proved()
    for name in checkout.containers():
        docker("restart", name)
    wait_until(lambda: checkout.serves() and checkout.answering() == {outcome.release}, "it does not come back", 60)
    assert checkout.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert checkout.deploy().verdict == "unchanged"


def test_a_replica_without_a_socket_is_refused(deployed: ComposeCheckout) -> None:
    """One of an earlier version: the edge of today could not reach it, and an exchange would be an outage."""
    one = deployed.inspect(deployed.containers("backend")[0])
    labels = {**one["Config"]["Labels"], "slipway.slot": "6"}
    given = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    old = docker("run", "--detach", "--entrypoint", "sleep", *given, one["Image"], "600")
    try:
        deployed.change("another")
        refused = deployed.deploy()
        assert refused.code == 1, str(refused)
        assert (
            ": of an earlier Slipway, whose edge asked names and not sockets: run `nox -s down -- compose`"
            in (refused.problems()[0])
        )
        assert len(deployed.answering()) == 1
    finally:
        docker("rm", "--force", old)
        deployed.restore()


def test_who_stands_before_the_edge_is_believed_where_it_is_named(deployed: ComposeCheckout) -> None:
    """TRUSTED_PROXIES: a redirect keeps https, and the log has the client that the proxy saw; else neither."""
    forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7", "X-Forwarded-Proto": "https"}

    def told(number: int) -> tuple[str, str]:
        ident = f"proxied-{number:08}"
        answer = deployed.request(
            "GET", f"{NOTES}/", headers={**forwarded, "X-Request-Id": ident}, follow_redirects=False
        )
        lines = [docker("logs", name).splitlines() for name in deployed.containers("backend")]
        [line] = [json.loads(line) for each in lines for line in each if ident in line]
        return answer.headers["location"].partition(":")[0], line["client"]

    scheme, client = told(1)
    assert (scheme, client in ("6.6.6.6", "203.0.113.7")) == ("http", False)
    with deployed.dotenv(TRUSTED_PROXIES=DOCKERS):
        deployed.proved()
        assert told(2) == ("https", "203.0.113.7")
    deployed.proved()


@pytest.fixture(name="second")
def _second(checkout: ComposeCheckout, template: Path, tmp_path: Path) -> Iterator[ComposeCheckout]:
    """A second clone with the name and the secrets of the first."""
    other = ComposeCheckout.make(template, tmp_path / "second")
    other.environ["PROJECT_NAME"] = checkout.project
    assert checkout.run("init").code == 0
    (other.root / ".env").write_text((checkout.root / ".env").read_text())
    yield other
    if other.containers():
        other.run("down", "--volumes")


def test_two_clones_of_one_name_never_deploy_at_once(checkout: ComposeCheckout, second: ComposeCheckout) -> None:
    """The second is told who holds the lock, and then whose stack it is; the first is proved, and goes down."""
    first = checkout.start("deploy", "--json")
    first.wait_for_stage("build")
    refused = second.deploy()
    assert refused.code == 75, str(refused)
    assert refused.problems()[0].startswith("another deploy holds the lock: "), str(refused)
    done = first.finish()
    assert (done.code, done.verdict) == (0, "proved"), str(done)
    refused = second.deploy(EDGE_PORT=str(free_port()))
    assert refused.code == 2, str(refused)
    assert refused.problems()[0].startswith(f"a compose project `{checkout.project}` runs from {checkout.root} already")
    assert f"`docker compose --project-name {checkout.project} down`" in refused.problems()[0]
    assert len(checkout.answering()) == 1


def _said(port: str, sent: bytes) -> bytes:
    """Return what a port of this host answers."""
    answer = b""

    def complete() -> bool:
        nonlocal answer
        try:
            with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as connection:
                connection.sendall(sent)
                connection.settimeout(1)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
        except TimeoutError:
            pass  # PostgreSQL and Redis keep the connection: what they have said by now is their answer
        except OSError:
            return False
        return bool(answer)

    wait_until(complete, f"port {port} answers", 20)
    return answer
