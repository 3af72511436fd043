"""A service without a DELETE on Compose: a command in a one-off container removes what the proof wrote."""

from __future__ import annotations

import re

import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.parcels import DOMAIN, SYNTHETIC, replace_the_domain

pytestmark = pytest.mark.e2e


def test_a_command_removes_what_the_proof_wrote(checkout: ComposeCheckout) -> None:
    """No synthetic row is left, and no container; a command that fails is a remark, until it works."""
    replace_the_domain(checkout)
    checkout.commit()
    first = checkout.proved()
    assert first.report["unremoved"] is None
    assert re.search(r"removed [1-9]\d* synthetic rows", first.stderr)
    assert (checkout.sql(SYNTHETIC), checkout.containers("migrate")) == ("0", [])
    checkout.patch(DOMAIN, '"DELETE FROM parcels WHERE', '"DELETE FROM nowhere WHERE')
    assert "does not exist" in checkout.proved().report["unremoved"]
    checkout.restore()
    assert checkout.proved().report["unremoved"] is None
    assert (checkout.sql(SYNTHETIC), checkout.containers("migrate")) == ("0", [])


def test_the_log_of_a_release_that_was_undone_is_kept(checkout: ComposeCheckout) -> None:
    """Its containers are gone, and with them what the engine kept: the report leads to a copy."""
    replace_the_domain(checkout)
    checkout.commit()
    checkout.proved()
    checkout.patch(
        DOMAIN, '    query = "UPDATE parcels', '    raise RuntimeError("no way")\n    query = "UPDATE parcels'
    )
    outcome = checkout.deploy()
    assert outcome.verdict == "rolled_back", str(outcome)
    log = checkout.newest_record() / "service.log"
    assert outcome.report["log"] == f"grep -F REQUEST_ID {log.relative_to(checkout.root)}"
    assert outcome.traffic["failures"]["5xx"]["examples"][0]["request_id"] in log.read_text(encoding="utf-8")
