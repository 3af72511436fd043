"""What was deployed before each test of a verb."""

from __future__ import annotations

import pytest

from tests.pipeline.deploy.world import World, release


@pytest.fixture
def served(world: World) -> World:
    """Release a serves, and b was proved after it."""
    world.serve(release("aaaa"))
    world.target.fleet.replicas.clear()
    world.serve(release("bbbb"))
    return world
