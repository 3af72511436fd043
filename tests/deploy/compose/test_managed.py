"""A PostgreSQL and a Redis with TLS outside of the project, as others manage them: nothing runs in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.outside import PASSWORD, Outside, outside
from tests.deploy.rotating import rotates_what_others_manage
from tests.notes import NOTES

pytestmark = [pytest.mark.e2e, pytest.mark.needs("openssl")]


@pytest.fixture(name="managed")
def _managed(tmp_path: Path) -> Iterator[Outside]:
    """Start both at ports of this host, where containers reach them by its address in Docker's own network."""
    folder = tmp_path / "managed"
    folder.mkdir()
    host = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    with outside(folder, host=host) as managed:
        yield managed


def test_are_used_and_nothing_runs_in_their_place(managed: Outside, checkout: ComposeCheckout) -> None:
    """Deployed, changed and brought back; neither container nor volume of a store is made; the data outlives it all."""
    checkout.set_env(**managed.admit("first"))
    first = checkout.proved()
    assert "(DATABASE_URL), which others manage" in first.stderr
    assert PASSWORD not in first.stderr + first.stdout
    assert checkout.containers("postgres") == checkout.containers("redis") == []
    volumes = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={checkout.project}")
    assert {name.rpartition("_")[2] for name in volumes.split()} == {"edge"}
    row = checkout.write_note("managed")["id"]
    ready = checkout.request("GET", "/ready").json()["checks"]
    assert {name: ready[name]["state"] for name in ("database", "schema", "redis")} == dict.fromkeys(
        ("database", "schema", "redis"), "ok"
    )
    assert checkout.run("doctor").code == 0
    assert checkout.status()["problems"] == []
    checkout.change("another line")
    checkout.commit()
    assert checkout.proved().release != first.release
    assert checkout.run("rollback").code == 0
    rotates_what_others_manage(checkout, managed.admit("second"), lambda: managed.dismiss("first"))
    assert checkout.run("down", "--volumes").code == 0
    checkout.proved()
    assert checkout.request("GET", f"{NOTES}/{row}").status_code == 200


def test_an_address_of_this_machine_is_refused(checkout: ComposeCheckout) -> None:
    """In a container it is the container's own."""
    checkout.set_env(DATABASE_URL=f"postgresql://app:{PASSWORD}@localhost/shop")
    refused = checkout.deploy()
    assert refused.code == 2
    assert [line for line in refused.problems() if line.startswith("DATABASE_URL: leads to this machine")]
