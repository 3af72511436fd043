"""A service without a DELETE on Kubernetes: a Job removes what the proof wrote."""

from __future__ import annotations

import re

import pytest

from tests.deploy.kind.stack import KindCheckout, kubectl

pytestmark = pytest.mark.e2e

STATEMENT = """REMOVE_SYNTHETIC = (
    "DELETE FROM testing_notes WHERE synthetic AND "
    "(id::text = ANY ($1::text[]) OR name = ANY ($1::text[]) OR $2::timestamptz IS NOT NULL)",
)
"""


def test_a_job_removes_what_the_proof_wrote(sound: KindCheckout) -> None:
    """As the deployer, under the namespace's policies and quota; no Job and no synthetic row is left."""
    text = (sound.root / "pyproject.toml").read_text(encoding="utf-8")
    changed, count = re.subn(r"(?m)^remove = \{.*\}$", 'remove = "command"', text)
    assert count == 2
    sound.write("pyproject.toml", changed)
    sound.append("backend/domain.py", STATEMENT)
    outcome = sound.proved()
    assert outcome.report["unremoved"] is None
    assert re.search(r"removed [1-9]\d* synthetic rows", outcome.stderr)
    assert kubectl("get", "jobs", "--output=name") == ""
    assert sound.untidy() == []
