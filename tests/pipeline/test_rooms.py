"""Which rooms of the house open into which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("local", "compose", "kubernetes")
IMPORT = re.compile(r"^ *(?:from|import) (pipeline\.[\w.]+)", re.MULTILINE)
OPENS = "pipeline/targets/__init__.py"  # it chooses the target


def _imports(folder: Path) -> dict[str, list[str]]:
    """Which of our modules each file below FOLDER imports."""
    return {
        str(path.relative_to(ROOT)): IMPORT.findall(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")
    }


@pytest.mark.parametrize("target", TARGETS)
def test_only_a_target_itself_knows_its_rooms(target: str) -> None:
    """What two targets need stands beside them: one can be removed, or a fourth be written, without reading another."""
    room = f"pipeline/targets/{target}"
    imports = _imports(ROOT / "pipeline")
    inside = [name for name in imports if name.startswith(f"{room}/")]
    assert inside
    dotted = room.replace("/", ".")
    strangers = {
        name
        for name, modules in imports.items()
        for module in modules
        if f"{module}.".startswith(f"{dotted}.") and name not in (*inside, OPENS)
    }
    assert not strangers
