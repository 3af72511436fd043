"""Which rooms of the house open into which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("local", "compose", "kubernetes")
OPENS = ROOT / "pipeline/targets/__init__.py"  # it chooses the target


def _imports(path: Path) -> Iterator[str]:
    """The modules, and the names in them, that the file at PATH imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{one.name}" for one in node.names)


@pytest.mark.parametrize("target", TARGETS)
def test_only_a_target_itself_knows_its_rooms(target: str) -> None:
    """What two targets need stands beside them: one can be removed, or a fourth be written, without reading another."""
    room = ROOT / "pipeline/targets" / target
    dotted = f"pipeline.targets.{target}"
    outside = [path for path in (ROOT / "pipeline").rglob("*.py") if room not in path.parents and path != OPENS]
    assert room.is_dir()
    strangers = [path for path in outside for name in _imports(path) if f"{name}.".startswith(f"{dotted}.")]
    assert strangers == []
