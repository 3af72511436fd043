"""The documentation leads to what is there, and names what there is."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.project import Environment

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("k8s/**/README.md")])
DEPLOYING = ROOT / "docs/1-deploying.md"


def links(text: str) -> list[str]:
    """The targets of TEXT's relative links, as they are written."""
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [one for one in found if not re.match(r"[a-z]+:", one)]


def anchors(text: str) -> set[str]:
    """What the headings of TEXT are called in an address, as GitHub does it."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sessions() -> set[str]:
    """The sessions of noxfile.py, read and not run: nox is not among the tests' packages."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [one for one in tree.body if isinstance(one, ast.FunctionDef)]
    marks = {one.name: ast.unparse(mark) for one in functions for mark in one.decorator_list}
    return {name.replace("_", "-") for name, mark in marks.items() if mark.startswith("nox.session")}


def named_in_code(page: Path) -> set[str]:
    """The words of PAGE's code: in backticks, and in blocks."""
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)
    code += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return {word for one in code for word in re.findall(r"[\w-]+", one)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_leads_to_what_is_there(page: Path) -> None:
    """Each relative link is a file (and a heading of it), each `nox -s NAME` a session."""
    text = page.read_text(encoding="utf-8")
    for link in links(text):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link
    assert set(re.findall(r"nox -s ([a-z0-9-]*[a-z0-9])", text)) <= sessions()


def test_every_environment_and_every_key_of_one_is_explained() -> None:
    """A table of pyproject.toml that a reader does not find in the page that it points at is a riddle."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    environments = set(project["tool"]["slipway"]["environments"])
    keys = {field.name for field in fields(Environment)} - {"name"}
    assert environments | keys <= named_in_code(DEPLOYING)
