"""What was deployed before a test of the story."""

from __future__ import annotations

import pytest

from tests.pipeline.deploy.world import FIRST, World, release


@pytest.fixture
def served(world: World) -> World:
    """Release a serves, migrated to 0001."""
    world.serve(release("a", "0001"), FIRST)
    return world
