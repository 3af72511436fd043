"""`nox -s changes`: which jobs of ci.yml a difference needs, by what `[tool.slipway.harmless]` lists.

It is the first job of ci, which gives the others its answer: see docs/8-github.md, "What a change runs".
"""

from __future__ import annotations

import json
import logging
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.commands import Verbs
from pipeline.config.harmless import Harmless
from pipeline.config.project import Project
from pipeline.system.git import changed_since
from pipeline.system.progress import Progress

__all__ = ["JOBS", "Answer", "add_parsers", "answer", "tell"]

log = logging.getLogger(__name__)

JOBS = ("workflows", "image", "e2e")  # what may be left out. `lint` and `test` are fast, and read every file
# What each kind of change can break beyond that: whether the image, and which of `nox -s e2e -- WORDS`.
CAN_BREAK: Mapping[str, tuple[bool, str]] = {"domain": (True, "own"), "page": (False, "page"), "docs": (False, "")}


@dataclass(frozen=True)
class Answer:
    """The `left_out` jobs, what `nox -s e2e` is given (nothing: the gate), and why, in a sentence."""

    left_out: tuple[str, ...]
    e2e: str
    why: str


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("changes", changes, "say what CI runs for the difference to a commit")
    parser.add_argument("--base", default="", metavar="COMMIT", help="what to compare with; unknown: everything runs")


def changes(project: Project, options: Namespace, _: Progress) -> None:
    """Say what CI runs for the difference between a commit and this one; in a job of GitHub, tell the jobs after it."""
    found = answer(changed_since(project.root, options.base), project.harmless)
    log.info(f"{found.why}: {_consequence(found)}")
    tell(found, os.environ)


def answer(names: Sequence[str] | None, harmless: Harmless) -> Answer:
    """Return what a change of the files `names` needs; None: which files changed is not known."""
    if names is None:
        return Answer((), "", "what to compare with is not known here")
    if not names:
        return Answer((), "", "no file differs")
    kinds = {name: harmless.kind(name) for name in names}
    if others := [name for name, kind in kinds.items() if kind is None]:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        return Answer((), "", f"{others[0]!r}{more} can break the pipeline: not in `[tool.slipway.harmless]`")
    met = [kind for kind in CAN_BREAK if kind in kinds.values()]
    image = any(CAN_BREAK[kind][0] for kind in met)
    e2e = " ".join(filter(None, (CAN_BREAK[kind][1] for kind in met)))
    needed = {"image": image, "e2e": bool(e2e)}
    why = f"only {', '.join(met)} changed, as `[tool.slipway.harmless]` lists them"
    return Answer(tuple(job for job in JOBS if not needed.get(job)), e2e, why)


def tell(found: Answer, environ: Mapping[str, str]) -> None:
    """Write the answer to the files that GitHub names in `environ`: outputs of the step, and a line of the summary."""
    if place := environ.get("GITHUB_OUTPUT"):
        _append(place, f"left_out={json.dumps(found.left_out)}\ne2e={found.e2e}\n")
    if found.left_out and (place := environ.get("GITHUB_STEP_SUMMARY")):
        _append(place, f"- {found.why}: {_consequence(found)}. *Run workflow* of `ci` runs everything\n")


def _consequence(found: Answer) -> str:
    if not found.left_out:
        return "everything runs"
    left = f"{', '.join(found.left_out)} left out"
    return f"{left}; end to end, `{found.e2e}` alone" if found.e2e else left


def _append(place: str, text: str) -> None:
    with Path(place).open("a", encoding="utf-8") as file:
        file.write(text)
