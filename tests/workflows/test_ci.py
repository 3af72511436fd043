"""ci.yml, run: as on the pull request of a stranger who tries what strangers try; and what it leaves out for a change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AddRow
from tests.workflows.act import Checkout, Run

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
    assert done.jobs.keys() == {"changes", "lint", "test", "workflows", "image", "e2e", "all-green"}
    assert set(done.played()) == {"astral-sh/setup-uv", "sigstore/cosign-installer"}
    assert SECRET not in done.output
    assert not mark.exists()
    add_row(
        TABLE, f"ci, a fork's pull request   green in {done.seconds:3.0f} s, {len(done.jobs)} jobs; no login, no secret"
    )
    for where in ("branch", "title", "body", "commit message"):
        add_row("workflows: script injection", f"{where:15} $(…) `…` ;…   not run")


LIST = """[tool.slipway.harmless]
domain = ["backend/notes"]
page = ["docker/frontend"]
docs = ["docs"]

"""
# What a change needs is asked here, and not whether it is good: but for the first job, a session says what it was given.
SAYS = """

def _say(session: nox.Session) -> None:
    print(f"{session.name} was given {session.posargs}")


for _session in (settings, test, workflows, image, e2e):
    _session.func = _say
"""
ALWAYS = {"changes", "lint", "test", "all-green"}
EVERYTHING = ALWAYS | {"workflows", "image", "e2e"}
GATE = "e2e was given ['tests/deploy', '--collect-only', '-q']"  # the stand-in for no words at all
OTHER = "pipeline/notes.py"


@pytest.fixture(name="quick")
def _quick(checkout: Checkout) -> Checkout:
    """Return a clone whose sessions say what they were given, with a list of its own."""
    project = checkout.root / "pyproject.toml"
    text, count = re.subn(r"(?ms)^\[tool\.slipway\.harmless\]$.*?(?=^\[|^#)", LIST, project.read_text(encoding="utf-8"))
    assert count == 1
    project.write_text(text, encoding="utf-8")
    with (checkout.root / "noxfile.py").open("a", encoding="utf-8") as file:
        file.write(SAYS)
    checkout.commit("sessions that say what they were given")
    return checkout


def run(checkout: Checkout, event: str, base: str) -> Run:
    """Run ci as an EVENT starts it: a push by way of cd, as its only job."""
    payloads: Mapping[str, Mapping[str, Any]] = {
        "pull_request": {"number": 7, "pull_request": {"number": 7, "base": {"sha": base}}},
        "merge_group": {"merge_group": {"base_sha": base}},
        "push": {"before": base},
        "workflow_dispatch": {},
    }
    if event == "push":
        return checkout.run("cd.yml", event, payload=payloads[event], job="ci")
    return checkout.run("ci.yml", event, payload=payloads[event])


# Event, what changed, the jobs that run for it, and what the end-to-end tests were given.
CHANGES = (
    ("pull_request", ["docs/notes.txt"], ALWAYS, None),
    ("pull_request", ["backend/notes/a.py"], ALWAYS | {"image", "e2e"}, "e2e was given ['own']"),
    ("pull_request", ["docs/notes.txt", OTHER], EVERYTHING, GATE),
    ("merge_group", ["docker/frontend/notes.js"], ALWAYS | {"e2e"}, "e2e was given ['page']"),
    ("merge_group", [OTHER], EVERYTHING, GATE),
    ("push", ["backend/notes/a.py", "docker/frontend/a.js"], ALWAYS | {"image", "e2e"}, "given ['own', 'page']"),
    ("push", [OTHER], EVERYTHING, GATE),
    ("workflow_dispatch", ["docs/notes.txt"], EVERYTHING, GATE),
)


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: f"{case[0]} {'+'.join(case[1])}")
def test_what_a_change_cannot_break_is_left_out(
    quick: Checkout, case: tuple[str, list[str], set[str], str | None], add_row: AddRow
) -> None:
    """By each event that starts it; and `all green` is green with what its first job left out."""
    event, names, jobs, words = case
    base = quick.git("rev-parse", "HEAD").strip()
    for name in names:
        (quick.root / name).parent.mkdir(parents=True, exist_ok=True)
        (quick.root / name).write_text("# new\n", encoding="utf-8")
    quick.commit("a change")
    done = run(quick, event, base)
    assert done.code == 0, str(done)
    assert {name for name in done.jobs if name != "ci"} == jobs
    assert set(done.jobs.values()) == {"success"}
    assert words is None or words in done.said("e2e")
    assert ("left out" in done.summary) == (jobs != EVERYTHING), done.summary
    add_row(TABLE, f"ci, {event:17} {', '.join(names):48} {len(jobs)} jobs in {done.seconds:3.0f} s")


@pytest.mark.parametrize("base", ["", "0" * 40, "1" * 40])
def test_an_unknown_base_runs_everything(quick: Checkout, base: str) -> None:
    """None, a new branch's, or one that a forced push took away."""
    (quick.root / "docs/notes.txt").write_text("new\n", encoding="utf-8")
    quick.commit("a page")
    done = run(quick, "pull_request", base)
    assert (done.code, set(done.jobs)) == (0, EVERYTHING), str(done)
    assert GATE in done.said("e2e")
    assert "what to compare with is not known here: everything runs" in done.said("changes")


def test_a_first_job_that_failed_is_red(quick: Checkout) -> None:
    """What it did not say is left out, is skipped: which GitHub would take for passed."""
    base = quick.git("rev-parse", "HEAD").strip()
    quick.replace("pyproject.toml", 'docs = ["docs"]', 'docs = ["pipeline"]')
    quick.commit("a list of more than is harmless")
    done = run(quick, "pull_request", base)
    assert done.code != 0
    assert done.jobs == {"changes": "failure", "lint": "success", "test": "success", "all-green": "failure"}, str(done)
    assert "harmless: docs: `pipeline`: `pipeline` is the pipeline's" in done.said("changes")


def test_a_job_that_nobody_left_out_and_did_not_run_is_red(quick: Checkout) -> None:
    """Another condition on it, as somebody may add one."""
    base = quick.git("rev-parse", "HEAD").strip()
    quick.replace(".github/workflows/ci.yml", "left_out), 'workflows') }}", "left_out), 'workflows') && false }}")
    quick.commit("a condition more")
    done = run(quick, "pull_request", base)
    assert done.code != 0
    assert done.jobs == {name: "failure" if name == "all-green" else "success" for name in EVERYTHING - {"workflows"}}
