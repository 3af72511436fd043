"""ci.yml, run: as on the pull request of a stranger who tries what strangers try."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import AddRow
from tests.workflows.act import Checkout

pytestmark = pytest.mark.e2e

TABLE = "workflows"
SECRET = "a-secret-that-no-stranger-sees"


def test_a_strangers_pull_request_is_green_and_gets_nothing(
    checkout: Checkout, tmp_path: Path, add_row: AddRow
) -> None:
    """Every job passes without a login, a secret or an attestation; names that are scripts stay names."""
    mark = tmp_path / "injected"
    script = f"$(touch {mark})`touch {mark}`;touch {mark}#${{IFS}}"
    checkout.commit(f"fix: {script}\n\n::set-output name=digest::x")
    head = {"ref": script.replace(" ", "${IFS}"), "label": script, "repo": {"fork": True, "full_name": "stranger/app"}}
    payload = {"number": 7, "pull_request": {"number": 7, "title": script, "body": script, "head": head}}
    done = checkout.run("ci.yml", "pull_request", payload=payload, secrets={"KUBECONFIG": SECRET})
    assert done.code == 0, str(done)
    assert set(done.jobs.values()) == {"success"}
    assert done.jobs.keys() == {"lint", "test", "workflows", "image", "e2e", "all-green"}
    assert set(done.played()) == {"astral-sh/setup-uv", "sigstore/cosign-installer"}
    assert SECRET not in done.output
    assert not mark.exists()
    add_row(
        TABLE, f"ci, a fork's pull request   green in {done.seconds:3.0f} s, {len(done.jobs)} jobs; no login, no secret"
    )
    for where in ("branch", "title", "body", "commit message"):
        add_row("workflows: script injection", f"{where:15} $(…) `…` ;…   not run")
