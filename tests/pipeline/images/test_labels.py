"""What an image says of itself, and that its Dockerfile lets it."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.config.settings import needed_secrets
from pipeline.images.build import labels, needs_of
from pipeline.system.git import last_change

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "docker/Dockerfile.backend"


def test_each_argument_of_a_build_becomes_a_label_of_the_service() -> None:
    """An argument that the last stage does not declare would be dropped without a word."""
    stage = DOCKERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    declared = set(re.findall(r"(\w+)=", re.findall(r"^ARG (.+)$", stage, re.MULTILINE)[-1]))
    labelled = dict(re.findall(r"([\w.]+)=\"?\$\{(\w+)\}", stage))
    given = labels(ROOT, last_change(ROOT, ["backend"]), "shop")
    assert declared == set(labelled.values()) == set(given)
    said = {label: given[argument] for label, argument in labelled.items()}
    assert needs_of(said) == needed_secrets()


def test_an_older_image_says_nothing_of_secrets() -> None:
    """It is shipped as it was."""
    assert needs_of({"slipway.schema": "0001"}) == []
