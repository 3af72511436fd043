"""The script of `all green`, run: the one check that a ruleset requires."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from pipeline.commands.changes import JOBS
from tests.workflows.flows import GATE, read

pytestmark = pytest.mark.needs("jq")

SKIPPED = {"result": "skipped", "outputs": {}}


def passes(left_out: str | None, **jobs: dict[str, Any]) -> bool:
    """Return whether the gate is green where the first job said `left_out` (None: nothing), and `jobs` did not succeed."""
    gate = read().flows["ci"]["jobs"][GATE]
    needs: dict[str, dict[str, Any]] = {name: {"result": "success", "outputs": {}} for name in gate["needs"]}
    needs["changes"]["outputs"] = {} if left_out is None else {"left_out": left_out, "e2e": ""}
    for name, job in jobs.items():
        needs[name] = {**needs[name], **job}
    environ = {"PATH": os.environ["PATH"], "NEEDS": json.dumps(needs)}
    done = subprocess.run(["bash", "-e", "-c", gate["steps"][-1]["run"]], env=environ, check=False, capture_output=True)
    return done.returncode == 0


def test_is_green_where_every_job_is() -> None:
    """As after a change of the pipeline."""
    assert passes("[]")


def test_takes_skipped_of_what_the_first_job_left_out() -> None:
    """One, or all that may be."""
    assert passes('["workflows"]', workflows=SKIPPED)
    assert passes(json.dumps(JOBS), **dict.fromkeys(JOBS, SKIPPED))


@pytest.mark.parametrize("job", ["lint", "test", "workflows", "image", "e2e"])
@pytest.mark.parametrize("result", ["skipped", "failure", "cancelled", ""])
def test_is_red_for_what_did_not_succeed(job: str, result: str) -> None:
    """Whatever it is called: of what nobody left out, `skipped` is not enough."""
    others = [name for name in JOBS if name != job]
    assert not passes(json.dumps(others), **{job: {"result": result}})


@pytest.mark.parametrize("result", ["failure", "cancelled"])
def test_is_red_for_what_was_left_out_and_ran_all_the_same(result: str) -> None:
    """The word of the first job excuses nothing else."""
    assert not passes('["e2e"]', e2e={"result": result})


@pytest.mark.parametrize("left_out", [None, "", "null", "x", json.dumps(JOBS), json.dumps(["changes", *JOBS])])
@pytest.mark.parametrize("result", ["failure", "cancelled"])
def test_is_red_where_the_first_job_failed(left_out: str | None, result: str) -> None:
    """GitHub skips the others then, and a skipped check counts as passed."""
    assert not passes(left_out, changes={"result": result}, **dict.fromkeys(JOBS, SKIPPED))


@pytest.mark.parametrize("left_out", [None, "", "x"])
def test_is_red_where_the_first_job_said_nothing(left_out: str | None) -> None:
    """An answer that nobody can read is none, even where all is green; nor is that of a job that did not run."""
    assert not passes(left_out)
    assert not passes(left_out, changes={"result": "skipped"})
