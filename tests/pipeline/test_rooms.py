"""Which packages of the pipeline open into which: dependencies run one way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The map: what a package may import, beside itself and `errors`. What is further down knows nothing of what is above.
ALLOWED = {
    "__main__": {"commands", "config", "system"},
    "commands": {"rotation", "restore", "deploy", "data", "live", "targets", "targets.common", "proof", "supply",
                 "images", "releases", "monitoring", "config", "engines", "registry", "system"},
    "rotation": {"deploy", "targets", "releases", "config", "system"},
    "restore": {"deploy", "data", "targets", "proof", "releases", "config", "system"},
    "deploy": {"data", "targets", "metrics", "proof", "supply", "releases", "config", "system"},
    "data": {"targets", "proof", "releases", "config", "system"},
    "targets": {"targets.local", "targets.compose", "targets.kubernetes", "targets.common", "releases", "config",
                "system"},
    "targets.local": {"targets.common", "proof", "releases", "config", "engines", "system"},
    "targets.compose": {"targets.common", "proof", "images", "releases", "monitoring", "config", "engines", "registry",
                        "system"},
    "targets.kubernetes": {"targets.common", "proof", "images", "releases", "monitoring", "config", "engines",
                           "registry", "system"},
    "targets.common": {"proof", "images", "releases", "config", "engines", "system"},
    "live": {"metrics", "releases", "config", "system"},
    "metrics": {"system"},
    "proof": {"releases", "config", "system"},
    "supply": {"images", "config", "registry", "system"},
    "images": {"releases", "config", "engines", "registry", "system"},
    "releases": {"config", "system"},
    "monitoring": {"config", "system"},
    "config": {"system"},
    "engines": {"registry", "system"},
    "registry": {"system"},
    "system": set(),
    "errors": set(),
}  # fmt: skip
TARGETS = ("local", "compose", "kubernetes")


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules, and the names in them, that the file at `path` imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{one.name}" for one in node.names)


def _package(dotted: str) -> str:
    """Return the package of ALLOWED that a dotted name is in."""
    _, first, *rest = [*dotted.split("."), ""]
    inner = f"targets.{rest[0]}" if first == "targets" and rest else ""
    return inner if inner in ALLOWED else first


def _opened() -> Iterator[tuple[str, str, Path]]:
    """Yield each package with one that it imports, and where."""
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        here = _package(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in _imports(path):
            if name.startswith("pipeline.") and _package(name) not in (here, "errors"):
                yield here, _package(name), path


def test_dependencies_run_one_way() -> None:
    """Each import is one that the map allows; and what the map allows is needed."""
    opened = list(_opened())
    assert [f"{path}: {here} must not know {there}" for here, there, path in opened if there not in ALLOWED[here]] == []
    assert {here: {there for one, there, _ in opened if one == here} for here in ALLOWED} == ALLOWED


def test_every_package_is_on_the_map() -> None:
    """A new one says what it may know."""
    folders = {
        path.parent.relative_to(ROOT / "pipeline").as_posix() for path in (ROOT / "pipeline").rglob("__init__.py")
    }
    assert {folder.replace("/", ".") for folder in folders - {"."} if not re.search(r"kubernetes/", folder)} <= set(
        ALLOWED
    )


@pytest.mark.parametrize("package", sorted(name for name in ALLOWED if name not in ("__main__", "errors")))
def test_a_package_says_what_it_is_for(package: str) -> None:
    """In its first lines, and what it must not know."""
    said = ast.get_docstring(
        ast.parse((ROOT / "pipeline" / package.replace(".", "/") / "__init__.py").read_text("utf-8"))
    )
    assert said is not None
    assert len(re.findall(r"\.(?:\s|$)", said)) >= 2


@pytest.mark.parametrize("target", TARGETS)
def test_only_a_target_itself_knows_its_rooms(target: str) -> None:
    """What two targets need is in `common`: one can be removed, or a fourth be written, without reading another."""
    knowing = {here for here, there, _ in _opened() if there == f"targets.{target}"}
    assert knowing == {"targets"}


def test_the_pipeline_knows_the_settings_and_the_database_of_the_service_and_nothing_else() -> None:
    """What it ships could be any service. What `doctor` runs beside a replica connects as that does."""
    found = {
        name for path in (ROOT / "pipeline").rglob("*.py") for name in _imports(path) if name.startswith("backend")
    }
    assert found == {"backend.settings.load_settings", "backend.postgres.Connector"}


def _reached(known: Mapping[str, set[str]], start: str) -> set[str]:
    """Return what `start` leads to, over any number of arrows."""
    there = set(known.get(start, ()))
    return there.union(*(_reached(known, one) for one in there))


def test_the_map_is_drawn() -> None:
    """The picture in pipeline/README.md leads from each package to those that it may know, and to no others."""
    text = (ROOT / "pipeline/README.md").read_text("utf-8")
    drawn: dict[str, set[str]] = {}
    for here, there in re.findall(r"^ +(\S+) --> (\S+)$", text, re.MULTILINE):
        drawn.setdefault(here, set()).add(there)
    assert {one: _reached(drawn, one) for one in ALLOWED} == {one: _reached(ALLOWED, one) for one in ALLOWED}
