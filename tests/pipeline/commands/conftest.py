"""The releases that are deployed before a test of a verb."""

from __future__ import annotations

import pytest

from tests.pipeline.deploy.world import World, release


@pytest.fixture
def served(world: World) -> World:
    """Return a world where aaaa was proved, then bbbb, which serves."""
    world.serve(release("aaaa"))
    world.target.fleet.replicas.clear()
    world.serve(release("bbbb"))
    return world
