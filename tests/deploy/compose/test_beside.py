"""`compose` beside `local` of the same project, and beside another project; and what `down --volumes` leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import httpx2
import pytest

from pipeline.registry.reference import PARTS
from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.machine import free_port
from tests.deploy.runs import Outcome
from tests.deploy.visitors import Visitors

pytestmark = pytest.mark.e2e

HEAD = '[tool.slipway.environments.compose]\ntarget = "compose"\nurl = '


def local(one: ComposeCheckout, *arguments: str) -> Outcome:
    """Run a verb of the clone for its environment `local`."""
    return one.start_program([sys.executable, "-m", "pipeline", *arguments]).finish()


@pytest.fixture
def both(checkout: ComposeCheckout) -> Iterator[ComposeCheckout]:
    """A clone that is deployed to `local`, at the port that `compose` would have, too."""
    done = local(checkout, "deploy", "local", "--json")
    assert (done.code, done.verdict) == (0, "proved"), str(done)
    yield checkout
    assert local(checkout, "down", "local", "--volumes").code == 0


def test_ones_own_local_is_named_and_compose_gets_a_port_of_its_own(
    both: ComposeCheckout, deployed: ComposeCheckout, add_row: AddRow
) -> None:
    """One line of pyproject.toml; then three deploys of this template serve on one machine."""
    shared = both.port
    refused = both.deploy()
    assert refused.code == 2, str(refused)
    [line] = refused.problems()
    assert f"EDGE_PORT: port {shared} is taken by `local` of this project: `nox -s down -- local`, or give" in line
    assert "in [tool.slipway.environments.compose]" in line
    assert both.containers() == []

    both.port = free_port()
    both.patch("pyproject.toml", f'{HEAD}"http://localhost:{{EDGE_PORT}}"', f'{HEAD}"http://localhost:{both.port}"')
    with Visitors(f"http://localhost:{shared}", "/health") as seen:
        outcome = both.proved()
    assert outcome.report["url"] == f"http://localhost:{both.port}"
    assert {visit.status for visit in seen.visits} == {200}
    assert both.answering() == {outcome.release}
    assert httpx2.get(f"http://localhost:{shared}/health").headers["x-release"] != outcome.release
    assert len(deployed.answering()) == 1
    assert both.untidy() == []
    add_row(
        "two services beside each other", f"compose: {outcome.traffic['sent']} requests beside `local`, none failed"
    )


def test_another_projects_compose_is_named(deployed: ComposeCheckout, checkout: ComposeCheckout) -> None:
    """With its folder, and the command that stops it there."""
    refused = checkout.deploy(EDGE_PORT=str(deployed.port))
    assert refused.code == 2, str(refused)
    [line] = refused.problems()
    assert f"port {deployed.port} is taken by `compose` of {deployed.root}: `nox -s down -- compose` there, or" in line
    assert checkout.containers() == []


def test_down_with_volumes_leaves_no_image(checkout: ComposeCheckout) -> None:
    """Of two releases and the edge nothing is left; what is not the project's stays."""
    checkout.proved()
    checkout.change("a second image")
    checkout.proved()
    docker("tag", "redis:8-trixie", f"{checkout.project}-mirror:8")
    assert _images(checkout, *PARTS)
    done = checkout.run("down", "--volumes")
    assert done.code == 0, str(done)
    assert _images(checkout, *PARTS) == []
    assert _images(checkout, "mirror") == [f"{checkout.project}-mirror:8"]
    docker("rmi", f"{checkout.project}-mirror:8")


def _images(one: ComposeCheckout, *parts: str) -> list[str]:
    form = "{{.Repository}}:{{.Tag}}"
    return " ".join(docker("images", "--format", form, f"{one.project}-{part}") for part in parts).split()
