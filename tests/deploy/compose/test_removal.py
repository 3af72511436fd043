"""A service without a DELETE on Compose: a command in a one-off container removes what the proof wrote."""

from __future__ import annotations

import re

import pytest

from tests.deploy.breaking import IN_SERVICE
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.parcels import DOMAIN, SYNTHETIC, replace_the_domain

pytestmark = pytest.mark.e2e


def test_a_command_removes_what_the_proof_wrote(own: ComposeCheckout) -> None:
    """No synthetic row is left, and no container; a command that fails is a remark, until it works."""
    replace_the_domain(own)
    own.commit()
    first = own.proved()
    assert first.report["unremoved"] is None
    assert re.search(r"removed [1-9]\d* synthetic rows", first.stderr)
    assert (own.sql(SYNTHETIC), own.containers("migrate")) == ("0", [])
    own.patch(DOMAIN, '"DELETE FROM parcels WHERE', '"DELETE FROM nowhere WHERE')
    assert "does not exist" in own.proved().report["unremoved"]
    own.restore()
    assert own.proved().report["unremoved"] is None
    assert (own.sql(SYNTHETIC), own.containers("migrate")) == ("0", [])


def test_the_log_of_a_release_that_was_undone_is_kept(own: ComposeCheckout) -> None:
    """Its containers are gone, and with them what the engine kept: the report leads to a copy."""
    replace_the_domain(own)
    own.commit()
    own.proved()
    broken = f'    if {IN_SERVICE}:\n        raise RuntimeError("no way")\n'
    own.patch(DOMAIN, '    query = "UPDATE parcels', f'{broken}    query = "UPDATE parcels')
    outcome = own.deploy()
    assert outcome.verdict == "rolled_back", str(outcome)
    log = own.newest_record() / "service.log"
    assert outcome.report["log"] == f"grep -F REQUEST_ID {log.relative_to(own.root)}"
    assert outcome.traffic["failures"]["5xx"]["examples"][0]["request_id"] in log.read_text(encoding="utf-8")
