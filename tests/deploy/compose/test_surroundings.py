"""PostgreSQL, Redis and the edge are changed like a release: tried first, and put back."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx2
import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.visitors import Visitors
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

TABLE = "compose: a change of what is around the replicas"
FILE = "docker-compose.yml"
# What is changed, in which file: text, its replacement, and what the reason must say.
REFUSED = {
    "postgres, a bad argument": (
        FILE,
        '"shared_buffers=128MB"',
        '"shared_buffers=12bananas"',
        'invalid value for parameter "shared_buffers"',
    ),
    "redis, a bad argument": (
        FILE,
        '"redis-server", "--aclfile"',
        '"redis-server", "--bogus", "1", "--aclfile"',
        "redis would not run",
    ),
    "redis, a health check that fails": (FILE, "'PONG|NOAUTH'", "PANG", "redis would not run"),
    "the edge, a bad Caddyfile": ("docker/edge/Caddyfile", "{\n", "{\n\tbogus_option on\n", "bogus_option"),
    "redis, an image that nobody has": (
        FILE,
        "${REDIS_IMAGE:-redis:8-trixie}",
        "localhost:1/redis:8-none",
        "redis: its image localhost:1/redis:8-none cannot be pulled",
    ),
}

# Passes on an empty volume.
FAILS_WITH_DATA = (
    'command: ["redis-server", "--aclfile"',
    'command: ["sh", "-c", "test ! -e /data/appendonlydir && exec \\"$$@\\"", "sh", "redis-server", "--aclfile"',
)


@pytest.fixture
def tree(deployed: ComposeCheckout) -> Iterator[ComposeCheckout]:
    """The module's clone, whose files are as committed before and after."""
    yield deployed
    deployed.git("checkout", "--quiet", "--", ".")


def started(one: ComposeCheckout) -> dict[str, str]:
    """Each container that runs, and when it was started."""
    return {name: one.inspect(name)["State"]["StartedAt"] for name in one.containers()}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_run_is_refused_before_anything_is_touched(
    name: str, tree: ComposeCheckout, add_row: AddRow
) -> None:
    """No container is restarted, no visitor turned away, and the reason names the service and its last words."""
    path, text, other, says = REFUSED[name]
    whole = (tree.root / path).read_text()
    assert text in whole
    (tree.root / path).write_text(whole.replace(text, other, 1))
    before = started(tree)
    with Visitors(f"http://localhost:{tree.port}", f"{NOTES}?limit=1") as seen:
        outcome = tree.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert says in outcome.reason, str(outcome)
    assert outcome.report["stages"][-1]["name"] == "check", str(outcome)
    assert started(tree) == before
    assert [visit.status for visit in seen.visits if visit.status != 200] == []
    assert tree.untidy() == []
    add_row(TABLE, f"{name:35} refused in {outcome.seconds:4.1f} s, 0 of {len(seen.visits)} visits failed")


IN_EARNEST = {
    "redis, fails with its data": (FAILS_WITH_DATA, "redis ends as often as it starts"),
    # It runs, and the service does not: its replicas need more connections.
    "postgres, starves the service": (("max_connections=${POSTGRES_MAX_CONNECTIONS:-100}", "max_connections=4"), ""),
}


@pytest.mark.parametrize("name", IN_EARNEST)
def test_what_fails_in_earnest_is_put_back(name: str, tree: ComposeCheckout, add_row: AddRow) -> None:
    """It passes the try, then fails: the deploy ends `rolled_back`, and what served before serves again."""
    service, (change, says) = name.partition(",")[0], IN_EARNEST[name]
    [container] = tree.containers(service)
    old, arguments = tree.answering(), tree.inspect(container)["Config"]["Cmd"]
    tree.patch(FILE, *change)
    tree.configure(timeout=25)
    tree.change(name)  # a release that a failing store alone prevents
    with Visitors(f"http://localhost:{tree.port}", f"{NOTES}?limit=1") as seen:
        outcome = tree.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert says in outcome.reason, str(outcome)
    assert outcome.report["rollback"]["verdict"] == "proved", str(outcome)
    [container] = tree.containers(service)
    assert tree.inspect(container)["Config"]["Cmd"] == arguments
    assert tree.answering() == old
    assert tree.untidy() == []
    failed = sum(visit.status != 200 for visit in seen.visits)
    add_row(TABLE, f"{name:35} put back in {outcome.seconds:4.1f} s, {failed} of {len(seen.visits)} visits failed")


def test_what_a_killed_deploy_had_exchanged_is_put_back(tree: ComposeCheckout, add_row: AddRow) -> None:
    """The next deploy begins with it, before it asks what ships."""
    [container] = tree.containers("redis")
    before = tree.inspect(container)["Config"]["Cmd"]
    tree.patch(FILE, *FAILS_WITH_DATA)
    tree.change("killed")
    deploy = tree.start("deploy")
    deploy.wait_for(
        lambda: [tree.inspect(one)["Config"]["Cmd"] for one in tree.containers("redis")] != [before], "redis"
    )
    deploy.kill()
    tree.git("checkout", "--quiet", "--", ".")
    outcome = tree.proved()
    [container] = tree.containers("redis")
    assert tree.inspect(container)["Config"]["Cmd"] == before
    assert tree.untidy() == []
    add_row(TABLE, f"{'redis, killed in between':35} next deploy proved in {outcome.seconds:4.1f} s")


@pytest.mark.parametrize(
    ("address", "says"), [("192.0.2.1", "is not an address of this machine"), ("localhost", "is not an IP address")]
)
def test_an_address_of_nobody_is_refused(address: str, says: str, tree: ComposeCheckout) -> None:
    """The edge goes on where it is; the corrected value needs no deploy to heal."""
    before = started(tree)
    with tree.dotenv(EDGE_ADDRESS=address):
        refused = tree.run("deploy")
    assert (refused.code, started(tree)) == (2, before), refused.stderr
    assert f"EDGE_ADDRESS: {address} {says}" in refused.stderr
    assert tree.deploy().verdict == "unchanged"


def test_an_address_that_somebody_has_the_port_of_is_refused(tree: ComposeCheckout) -> None:
    """It is looked at there, not at 127.0.0.1, where it is ours."""
    before = started(tree)
    with socket.socket() as listener, tree.dotenv(EDGE_ADDRESS="127.0.0.2"):
        listener.bind(("127.0.0.2", tree.port))
        listener.listen()
        refused = tree.run("deploy")
    assert (refused.code, started(tree)) == (2, before), refused.stderr
    assert f"port {tree.port} is taken by" in refused.stderr


def test_the_proof_asks_the_address_of_the_edge(tree: ComposeCheckout) -> None:
    """There and back again."""
    for address, host in (("127.0.0.2", "127.0.0.2"), ("::1", "[::1]"), ("127.0.0.1", "localhost")):
        with tree.dotenv(EDGE_ADDRESS=address):
            outcome = tree.proved()
        assert outcome.report["url"] == f"http://{host}:{tree.port}"
        assert httpx2.get(f"http://{host}:{tree.port}/ready", timeout=10).status_code == 200
