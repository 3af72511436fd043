"""The documentation leads to what is there, and names what there is."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from pipeline.__main__ import FAMILIES, parser
from pipeline.config.project import ComposeEnvironment, KubernetesEnvironment, LocalEnvironment
from pipeline.errors import UsageError
from tests.pages import PAGES, ROOT, Block, blocks
from tests.workflows.flows import read, table

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]
VERBS = {verb for verbs in FAMILIES.values() for verb in verbs}
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


def test_every_page_and_every_test_that_is_named_is_there() -> None:
    """By a comment, a docstring or a workflow; act's stand-ins name tests to run."""
    folders = ("pipeline", "backend", "docs", "docker", "k8s", "requirements", ".github", "tests/workflows")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.is_file()]
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in [*files, ROOT / "noxfile.py"]}
    named = r"(?<![\w./])(?:tests/[\w/]+\.py|docs/[\w-]+\.md)"
    missing = [(path, name) for path, text in texts.items() for name in re.findall(named, text)
               if path.suffix != ".pyc" and not (ROOT / name).exists()]  # fmt: skip
    assert missing == []


def test_every_environment_and_every_key_of_one_is_explained() -> None:
    """A table of pyproject.toml that a reader does not find in the page that it points at is a riddle."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    environments = set(project["tool"]["slipway"]["environments"])
    kinds = (ComposeEnvironment, KubernetesEnvironment, LocalEnvironment)
    keys = {key for kind in kinds for key in kind.model_fields} - {"name"}
    assert environments | keys <= named_in_code(DEPLOYING)


def calls(text: str) -> list[list[str]]:
    """What each `nox -s NAME -- ARGUMENTS` of TEXT asks for: the name, and the arguments."""
    found = re.findall(r"nox -s ([a-z0-9-]*[a-z0-9])(?: -- ([^`\n#&|)]*))?", text)
    return [[name, *shlex.split(arguments)] for name, arguments in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_its_session_takes(page: Path) -> None:
    """A renamed verb or option is found here and not by a reader."""
    for call in calls(page.read_text(encoding="utf-8")):
        if call[0] in VERBS:
            try:
                _, rest = parser().parse_known_args(call)
            except UsageError as error:
                pytest.fail(f"{shlex.join(call)}: {error}")
            assert rest == [], call


def test_every_verb_has_a_session() -> None:
    """Of its name, but for what other sessions run."""
    assert VERBS - sessions() == {"leaks", "migrations", "parts", "rules"}


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_every_block_of_commands_is_one(block: Block) -> None:
    """Whether it is run (tests/deploy/test_docs.py) or needs something, a shell can read it."""
    done = subprocess.run(["bash", "-n"], input=block.text, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_block_says_what_it_is() -> None:
    """A block without its language, or an indented command, would be seen by no test."""
    assert {block.language for block in BLOCKS} <= {"sh", "console", "toml", "python", "sql", "yaml", "json", "mermaid"}
    for block in BLOCKS:
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "python":
            ast.parse(block.text)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"(?m)^ *```", text)) == 2 * len(blocks(page)), page
        prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", text)
        indented = re.findall(r"(?m)^ {4,}(?:nox|kubectl|docker|curl|git|pip|gh) .*", prose)
        assert indented == [], page


def test_the_documented_rights_are_those_of_the_jobs() -> None:
    """docs/8-github.md has the table that this makes. It stands here, as a change of a page alone runs no more."""
    page = (ROOT / "docs/8-github.md").read_text(encoding="utf-8")
    assert table(read()) in page, f"put this into docs/8-github.md:\n{table(read())}"


@pytest.mark.needs("jq")
def test_whoever_works_alone_asks_nobody_and_keeps_the_check() -> None:
    """The command of docs/8-github.md for one person, but for the part that is GitHub's."""
    [block] = [one for one in COMMANDS if one.page == "docs/8-github.md" and one.text.startswith("jq ")]
    script, count = re.subn(r"gh api \S+ --input -", "cat", block.text)
    assert count == 1
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env={"PATH": os.environ["PATH"]},
                          check=True, capture_output=True, text=True)  # fmt: skip
    alone = json.loads(done.stdout)
    whole = json.loads((ROOT / ".github/rulesets/main.json").read_text(encoding="utf-8"))
    [asked] = [rule["parameters"] for rule in whole["rules"] if rule["type"] == "pull_request"]
    off = {
        "required_approving_review_count": 0,
        "require_code_owner_review": False,
        "require_last_push_approval": False,
    }
    assert off.keys() <= asked.keys()
    asked |= off
    assert alone == whole
