"""A deploy that says too little: neither proved nor refused, and everybody who asks is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.sessions import run_session

pytestmark = pytest.mark.e2e


def test_a_few_answers_are_no_proof(deployed: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 3 through nox, one line on GitHub's summary, and what served before serves again."""
    old = deployed.answering()
    deployed.set_env(EDGE_PORT=str(deployed.port))  # nox is not told the clone's environment
    deployed.configure(rate=1, bake_seconds=1)
    deployed.change("hardly asked")
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = run_session(deployed, "deploy")
    assert done.code == 3, str(done)
    assert "neither proved nor refused" in done.stdout
    assert "answers, and 300 are needed for a verdict" in done.stdout
    assert "::error title=deploy local::" in done.stderr
    assert "neither proved nor refused" in summary.read_text(encoding="utf-8").splitlines()[0]
    assert "verdict=inconclusive\n" in output.read_text(encoding="utf-8")
    assert deployed.answering() == old
    report = deployed.report(2)
    assert (report["verdict"], report["rollback"]["verdict"]) == ("inconclusive", "proved")
    assert report["traffic"]["confidence"] > 0.01


def test_it_may_stay_all_the_same(deployed: Checkout) -> None:
    """Then it is what serves, and what the next one is compared with; and it is not called proved."""
    deployed.configure(inconclusive='"keep"')
    kept = deployed.deploy()
    assert (kept.code, kept.verdict, kept.report["rollback"]) == (3, "inconclusive", None), str(kept)
    assert deployed.answering() == {kept.release}
    deployed.configure(rate=100, bake_seconds=3)
    deployed.change("asked enough")
    proved = deployed.proved()
    assert proved.report["previous"] == kept.release
    assert 0 < proved.traffic["confidence"] < 0.01
    compared = {one["request"]: one for one in proved.traffic["comparison"]["requests"]}
    assert all(one["effect"] for one in compared.values()), compared
    back = deployed.run("rollback")
    assert (back.code, back.release) == (0, kept.release), str(back)
