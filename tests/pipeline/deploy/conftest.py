"""What several tests of a deploy begin with."""

from __future__ import annotations

import pytest

from tests.pipeline.deploy.hearing import listens
from tests.pipeline.deploy.world import World, release


@pytest.fixture(name="heard")
def _heard(served: World) -> World:
    """Release a serves, the working tree has b, and the environment watches."""
    served.target.releases.tree = release("b")
    return listens(served)
