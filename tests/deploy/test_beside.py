"""Two services of this template on one machine: each has its own port, processes, data and traffic."""

from __future__ import annotations

import pytest

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
