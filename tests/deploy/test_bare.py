"""The example leaves: by `nox -s rename -- NAME --bare`, or, with data to keep, by a contraction."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.runs import Outcome
from tests.deploy.sessions import run_session
from tests.project import PROJECT

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROJECT.template is not None, reason="made from the template: the example is its own"),
]

ROOT = Path(__file__).parents[2]
BARE = ("bare-shop", "--bare", "--owner", "@acme/shop")
ITEMS = "/api/v1/items"
DROP = '''"""drop the releases"""

from alembic import op

revision = "0004"
down_revision = "0003"
contract_after = "0003"
destroys = "the example's, which nobody reads any more"


def upgrade() -> None:
    """Take the last of the example away."""
    op.execute("DROP TABLE releases")
'''


def rename(checkout: Checkout) -> Outcome:
    """Take the example out. A cluster that this machine may have is not the clone's: it is not asked."""
    return checkout.run("rename", *BARE, KUBECONFIG=os.devnull)


def uses_the_resource(checkout: Checkout) -> None:
    """Write an item and read it, as a user."""
    made = checkout.request("POST", ITEMS, token=True, json={"name": "lamp"})
    assert made.status_code == 201, made.text
    listed = checkout.request("GET", ITEMS).json()["items"]
    assert listed[0] == made.json()


def test_a_bare_copy_is_proved_and_green(own: Checkout) -> None:
    """Two commands; then an update under the resource's own traffic, lint and test."""
    made = rename(own)
    assert made.code == 0, str(made)
    first = own.proved()
    assert first.traffic["writes_acknowledged"] > 0
    assert own.revision() == "0003"
    uses_the_resource(own)
    own.commit()
    own.change("for another release")
    second = own.proved()
    assert set(second.traffic["by_release"]) == {first.release, second.release}
    assert own.sql("SELECT count(*) FROM items") == 1, "what the proof wrote was removed"
    own.commit()
    for session in ("lint", "test"):
        done = run_session(own, session)
        assert done.code == 0, f"{session}: {done.stdout}{done.stderr}"


def test_an_example_that_was_deployed_goes_down_first(own: Checkout) -> None:
    """As the README says, one deploys first. It is refused with the command, and goes on after that."""
    own.proved()
    refused = rename(own)
    assert (refused.code, own.git("status", "--porcelain")) == (2, ""), str(refused)
    assert "`nox -s down -- local --volumes`" in refused.problems()[0]
    assert own.run("down", "--volumes").code == 0
    assert rename(own).code == 0
    own.proved()
    assert own.settings()["POSTGRES_DB"] == BARE[0]
    uses_the_resource(own)


def test_an_example_with_data_leaves_by_a_contraction(own: Checkout) -> None:
    """As docs/3 says: a release that does not use it, then, when no kept one does, a migration that drops it."""
    own.patch("pyproject.toml", "retain = 5 ", "retain = 2 ")
    own.proved()
    body = {"service": "shop", "environment": "production", "version": "1", "status": "deployed"}
    assert own.request("POST", "/api/v1/releases", token=True, json=body).status_code == 201

    _replace_the_example_by_hand(own)
    without = own.proved()
    uses_the_resource(own)
    assert own.sql("SELECT count(*) FROM releases") == 1

    drop = "backend/migrations/versions/0004_drop.py"
    own.write(drop, DROP)
    early = own.deploy()
    assert early.code == 1, str(early)
    assert "still needs" in early.reason
    (own.root / drop).unlink()
    own.change("one more that does not use it")
    kept = own.proved()
    assert set(kept.traffic["by_release"]) == {without.release, kept.release}
    own.write(drop, DROP)
    own.proved()
    assert own.sql("SELECT to_regclass('releases')") is None
    uses_the_resource(own)


def _replace_the_example_by_hand(checkout: Checkout) -> None:
    """Write a domain of one's own in the place of the example; its migration and its table stay."""
    tree, backend = checkout.root / "bare/tree/backend", checkout.root / "backend"
    for folder in ("releases", "environments"):
        shutil.rmtree(backend / folder)
    shutil.copy(tree / "domain.py", backend)
    shutil.copytree(tree / "items", backend / "items")
    text = (tree / "migrations/versions/NNNN_items.py").read_text()
    text = text.replace('down_revision = "NNNN"', 'down_revision = "0002"').replace('"NNNN"', '"0003"')
    checkout.write("backend/migrations/versions/0003_items.py", text)
    marked = re.compile(r"# example-only: bare/requests.toml.*?# /example-only\n", re.DOTALL)
    requests = (checkout.root / "bare/requests.toml").read_text()
    project = (checkout.root / "pyproject.toml").read_text()
    assert marked.search(project)
    checkout.write("pyproject.toml", marked.sub(requests, project))
