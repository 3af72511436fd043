"""Two services of this template on one machine: each has its own port, processes, data and traffic."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import pytest

from pipeline.config.settings import DEFAULT_EDGE_PORT
from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow, MakeCheckout
from tests.deploy.visitors import Visitors

pytestmark = pytest.mark.e2e

OTHER = "quite-another"


def test_two_services_share_a_machine(make_checkout: MakeCheckout, add_row: AddRow) -> None:
    """Both are proved; an update and the end of one is nothing to the users of the other."""
    one, other = make_checkout("one"), make_checkout("other")
    assert other.run("rename", OTHER).code == 0
    other.commit()
    first = one.proved()

    refused = other.deploy(EDGE_PORT=str(one.port))
    assert refused.code == 2, str(refused)
    [line] = refused.problems()
    assert f"EDGE_PORT: port {one.port} is taken by `local` of {one.root}: `nox -s down -- local` there, or" in line
    assert other.processes() == []
    _takes_the_next_free_port(other)

    second = other.proved()
    assert other.settings()["POSTGRES_DB"] == OTHER
    with Visitors(f"http://localhost:{one.port}", "/health") as seen:
        other.change("beside another service")
        update = other.proved()
        assert other.run("down").code == 0
    assert {(visit.status, visit.release) for visit in seen.visits} == {(200, first.release)}
    assert len({first.release, second.release, update.release}) == 3
    assert one.answering() == {first.release}
    assert one.untidy() == []
    failed = [outcome.traffic["failed"] for outcome in (first, second, update)]
    add_row("two services beside each other", f"local: three proofs, {failed} failed, {len(seen.visits)} visits of one")


def _takes_the_next_free_port(one: Checkout) -> None:
    """Do as a refused first deploy says, where somebody has the port that it would have had."""
    del one.environ["EDGE_PORT"]
    (one.root / ".env").unlink()
    with ExitStack() as stack:
        with suppress(OSError):  # somebody else has it, which is as well
            stack.enter_context(socket.create_server(("127.0.0.1", DEFAULT_EDGE_PORT)))
        [line] = one.deploy().problems()
        assert line.startswith(f"EDGE_PORT: port {DEFAULT_EDGE_PORT} is taken by "), line
        assert "or `nox -s init`, which writes the next free port, " in line
        assert not (one.root / ".env").exists()
        assert one.run("init").code == 0
    one.port = int(one.settings()["EDGE_PORT"])
    assert one.port > DEFAULT_EDGE_PORT
