"""What counts as an image's digest."""

from __future__ import annotations

import pytest

from pipeline.reference import is_digest

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize("reference", [DIGEST, f"ghcr.io/owner/name@{DIGEST}", f"localhost:5000/name@{DIGEST}"])
def test_a_whole_digest_is_one(reference: str) -> None:
    """Alone, or behind where it is."""
    assert is_digest(reference)


@pytest.mark.parametrize(
    "reference", ["7", DIGEST[:20], DIGEST.removeprefix("sha256:"), f"{DIGEST}+01234567", "ghcr.io/owner/name:latest"]
)
def test_what_only_a_record_can_explain_is_none(reference: str) -> None:
    """A number, the beginning of a name, a release with settings of its own, a tag."""
    assert not is_digest(reference)
