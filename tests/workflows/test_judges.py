"""What others say of `.github/`: zizmor's auditor, actionlint, GitHub's schemas. Each is seen to find something."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools import need
from tests.workflows.flows import ROOT, read, understood

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
SCHEMAS = {
    "vendor.github-workflows": ("workflows/*.yml",),
    "vendor.github-actions": ("actions/*/action.yml",),
    "vendor.dependabot": ("dependabot.yml",),
    "vendor.github-issue-forms": ("ISSUE_TEMPLATE/[0-9]*.yml",),
    "vendor.github-issue-config": ("ISSUE_TEMPLATE/config.yml",),
}
CHECKOUT = next(f"{name}{rest}" for _, name, rest in read().uses() if name == "actions/checkout")


def said(*command: str, cwd: Path) -> tuple[int, str]:
    """The exit code of COMMAND, and all that it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(name="copy")
def _copy(tmp_path: Path) -> Path:
    """`.github/` in a folder of its own, to break."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def replace(path: Path, old: str, new: str) -> None:
    """Break a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def zizmor(folder: Path) -> tuple[int, str]:
    """Its strictest judgement, without a network and without a configuration that might hide something."""
    return said(need("zizmor"), "--persona", "auditor", "--offline", "--no-config", ".github", cwd=folder)


def test_zizmor_finds_nothing_and_nothing_is_suppressed() -> None:
    """0 findings of any severity; no comment tells it to look away."""
    code, output = zizmor(ROOT)
    assert (code, "No findings to report" in output) == (0, True), output
    files = [path.read_text() for path in (ROOT / ".github").rglob("*.yml")]
    assert not any("zizmor: ignore" in text for text in files)
    assert not list(ROOT.glob("**/zizmor.yml"))


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("workflows/ci.yml", CHECKOUT, "actions/checkout@v7", "unpinned-uses"),
        ("workflows/ci.yml", "run: jq", "run: echo ${{ github.head_ref }}; jq", "template-injection"),
        ("workflows/ci.yml", "  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
        ("workflows/rollback.yml", "secrets: {", "secrets: inherit #", "secrets-inherit"),
        ("workflows/cd.yml", "packages: write # push the images", "packages: write", "undocumented-permissions"),
        ("dependabot.yml", "    cooldown: { default-days: 7 }\n", "", "dependabot-cooldown"),
    ],
)  # fmt: skip
def test_zizmor_notices(file: str, old: str, new: str, says: str, copy: Path) -> None:
    """It judges what we think it judges."""
    replace(copy / ".github" / file, old, new)
    code, output = zizmor(copy)
    assert code != 0
    assert says in output, output


@pytest.fixture(name="actionlint", scope="session")
def _actionlint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The machine's, else its Go makes one: no wheel has it, and a runner of GitHub has Go."""
    found, folder = need("actionlint", "go"), tmp_path_factory.mktemp("go")
    if Path(found).name == "actionlint":
        return found
    subprocess.run([found, "install", ACTIONLINT], env={**os.environ, "GOBIN": str(folder)}, check=True, timeout=300)
    return str(folder / "actionlint")


def test_actionlint_finds_nothing_but_what_is_broken(actionlint: str, copy: Path) -> None:
    """Types of expressions, inputs of our own action, scripts. What it does not know yet is left out."""
    for path in copy.glob(".github/workflows/*.yml"):
        path.write_text(understood(path.read_text()))
    assert said(actionlint, cwd=copy) == (0, "")
    replace(copy / ".github/workflows/ci.yml", "session: lint", "sesion: lint")
    code, output = said(actionlint, cwd=copy)
    assert code == 1
    assert 'input "sesion" is not defined in action "nox session"' in output


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schemas_hold(schema: str, tmp_path: Path) -> None:
    """GitHub's own; and a file with a key that there is not is refused."""
    check = (need("check-jsonschema"), "--builtin-schema", schema)
    files = [str(path) for pattern in SCHEMAS[schema] for path in sorted((ROOT / ".github").glob(pattern))]
    code, output = said(*check, *files, cwd=tmp_path)
    assert code == 0, output
    broken = tmp_path / "broken.yml"
    broken.write_text("a-key-that-there-is-not: true\n")
    assert said(*check, str(broken), cwd=tmp_path)[0] == 1
