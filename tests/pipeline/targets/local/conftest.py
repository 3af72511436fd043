"""A layout that leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.targets.local.layout import Layout, make_layout


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Iterator[Layout]:
    """The folders of an environment below a path that is long and odd, as users have them."""
    layout = make_layout(tmp_path / "state of 100% ours" / "local")
    layout.make()
    yield layout
    shutil.rmtree(layout.run)
