"""Production takes what staging proved: the same digest, by the proof in the registry, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.kind import CONTEXT, REGISTRY
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import ELSEWHERE, KindCheckout, image_ids, second_environment
from tests.deploy.runs import Outcome
from tests.project import NAME

pytestmark = pytest.mark.e2e


@pytest.fixture(name="two")
def _two(deployed: KindCheckout) -> Iterator[KindCheckout]:
    """The clone with a second environment, in a namespace that an administrator made."""
    assert deployed.deploy().code == 0  # what serves may be an image with other manifests, of the test before
    with second_environment(deployed, "promoted", context=CONTEXT, keys='promote_from = "kind"'):
        yield deployed


def run(one: KindCheckout, *arguments: str) -> Outcome:
    """Run the pipeline as the administrator: the account of one namespace has no business in the other."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return one.start_program(command, KUBECONFIG=str(Path.home() / ".kube/config")).finish(400)


def test_takes_what_was_proved_and_nothing_else(two: KindCheckout, add_row: AddRow) -> None:
    """Refused before the first proof of a digest; then the same imageID runs in both namespaces."""
    [proved] = two.answering()
    unproved = f"{REGISTRY}/{NAME}@sha256:{'0' * 64}"
    refused = run(two, "deploy", "promoted", "--release", unproved)
    assert refused.code == 2, str(refused)
    assert "was not proved in kind, and promoted takes only what was" in refused.problems()[0]
    assert image_ids(ELSEWHERE) == set()
    outcome: Any = run(two, "deploy", "promoted", "--json")
    assert (outcome.code, outcome.verdict, outcome.release) == (0, "proved", proved), str(outcome)
    assert "docker build" not in outcome.stderr
    assert image_ids(ELSEWHERE) == image_ids(NAME) == {f"{REGISTRY}/{NAME}@{proved}"}
    again: Any = run(two, "deploy", "promoted", "--json")
    assert (again.code, again.verdict) == (0, "unchanged"), str(again)
    add_row("kind: promotion", f"unproved digest refused; {proved[:19]}… proved in kind runs as promoted, same imageID")
