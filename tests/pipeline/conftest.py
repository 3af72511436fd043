"""What several of the pipeline's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.registries import running_registry


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The address of a real registry: one for all tests of a worker, each with repositories of its own."""
    with running_registry() as address:
        yield address
