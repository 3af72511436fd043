"""`nox -s changes`, on git repositories of its own: what CI runs for a difference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.changes import JOBS, answer
from pipeline.config.harmless import Harmless

ROOT = Path(__file__).parents[3]
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
LIST = Harmless(domain=("backend/notes",), page=("page",), docs=("docs",))
PYPROJECT = """
[project]
name = "shop"
[tool.slipway.harmless]
domain = ["backend/notes"]
page = ["page"]
docs = ["docs"]
[tool.slipway.environments.local]
target = "local"
url = "http://localhost:8080"
"""


class TestAnswer:
    @pytest.mark.parametrize(
        ("names", "left_out", "e2e"),
        [
            (["docs/a.md"], ["workflows", "image", "e2e"], ""),
            (["page/app.js", "docs/a.md"], ["workflows", "image"], "page"),
            (["backend/notes/a.py"], ["workflows"], "own"),
            (["backend/notes/a.py", "page/app.js", "docs/a.md"], ["workflows"], "own page"),
            (["docs/a.md", "backend/app.py"], [], ""),
            (["pipeline/x.py"], [], ""),
            (["docs.py"], [], ""),
            ([], [], ""),
            (None, [], ""),
        ],
    )
    def test_leaves_out_what_only_listed_files_can_break(
        self, names: list[str] | None, left_out: list[str], e2e: str
    ) -> None:
        """One other path runs everything; so does a difference that is empty or not known."""
        found = answer(names, LIST)
        assert (list(found.left_out), found.e2e) == (left_out, e2e)

    def test_names_the_file_that_runs_everything(self) -> None:
        """Whoever wonders why sees it; a name is quoted, as anybody may choose one."""
        found = answer(["docs/a.md", "x\n::error::y", "backend/app.py"], LIST)
        assert found.why.startswith("'x\\n::error::y' and 1 more can break the pipeline")

    def test_leaves_out_only_what_may_be(self) -> None:
        """`lint` and `test` read every file."""
        assert {*answer(["docs/a.md"], LIST).left_out} == {*JOBS}
        assert not {*JOBS} & {"lint", "test", "changes", "all-green"}


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """Return a repository with one commit."""
    root = tmp_path / "shop"
    for name in ("backend/notes/a.py", "page/app.js", "docs/a.md", "pipeline/x.py"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"{name}, long enough to be known again by its content\n" * 9)
    (root / "pyproject.toml").write_text(PYPROJECT)
    git(root, "init", "--quiet", "--initial-branch=main")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    """Return what a git command prints in `root`."""
    return subprocess.run(["git", *IDENTITY, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> str:
    """Commit all that changed; return the commit."""
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "x")
    return head(root)


def head(root: Path) -> str:
    return git(root, "rev-parse", "HEAD").strip()


def change(root: Path, *names: str) -> str:
    """Change the files `names` of `root`; return the commit before."""
    before = head(root)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with (root / name).open("a") as file:
            file.write("more\n")
    commit(root)
    return before


def run(root: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str], str]:
    """Run `nox -s changes` as a step of a job; return it, its outputs and its summary."""
    output, summary = root.with_name("output"), root.with_name("summary")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
    command = [sys.executable, "-m", "pipeline", "changes", *arguments]
    done = subprocess.run(command, cwd=root, env=environ, check=False, capture_output=True, text=True)
    lines = output.read_text().splitlines() if output.exists() else []
    return done, dict(line.split("=", 1) for line in lines), summary.read_text() if summary.exists() else ""


class TestChanges:
    def test_tells_the_jobs_after_it_and_the_summary(self, root: Path) -> None:
        """What is left out is no secret: what it is, why, and how to run it all the same."""
        before = change(root, "backend/notes/a.py", "docs/b.md")
        done, outputs, summary = run(root, f"--base={before}")
        assert done.returncode == 0, done.stderr
        assert outputs == {"left_out": '["workflows"]', "e2e": "own"}
        assert summary == (
            "- only domain, docs changed, as `[tool.slipway.harmless]` lists them: workflows left out; end to end,"
            " `own` alone. *Run workflow* of `ci` runs everything\n"
        )
        assert "workflows left out" in done.stderr

    def test_runs_everything_for_another_file(self, root: Path) -> None:
        """Also where it is one of many; then nothing is left out, and the summary stays empty."""
        before = change(root, "docs/a.md", "pipeline/x.py")
        done, outputs, summary = run(root, f"--base={before}")
        assert (outputs, summary) == ({"left_out": "[]", "e2e": ""}, "")
        assert "'pipeline/x.py' can break the pipeline" in done.stderr
        assert "everything runs" in done.stderr

    @pytest.mark.parametrize("base", ["", "0" * 40, "1" * 40, "--output=x", "no-such-branch"])
    def test_runs_everything_where_the_base_is_not_known(self, root: Path, base: str) -> None:
        """A new branch's, one that a forced push took away, one that is no commit."""
        change(root, "docs/a.md")
        done, outputs, _ = run(root, f"--base={base}")
        assert (done.returncode, outputs) == (0, {"left_out": "[]", "e2e": ""}), done.stderr
        assert "what to compare with is not known here: everything runs" in done.stderr

    def test_runs_everything_without_git(self, root: Path) -> None:
        """A download has no commit to compare with."""
        (root / ".git").rename(root.with_name("gone"))
        _, outputs, _ = run(root, "--base=HEAD")
        assert json.loads(outputs["left_out"]) == []

    def test_sees_where_a_moved_file_came_from(self, root: Path) -> None:
        """What leaves the pipeline for a harmless folder is a change of the pipeline."""
        before = head(root)
        git(root, "mv", "pipeline/x.py", "docs/x.py")
        commit(root)
        _, outputs, _ = run(root, f"--base={before}")
        assert json.loads(outputs["left_out"]) == []

    def test_compares_the_two_trees(self, root: Path) -> None:
        """A branch back to an older commit changes what lies between, though it adds no commit."""
        older = head(root)
        change(root, "pipeline/x.py")
        newer = head(root)
        git(root, "checkout", "--quiet", older)
        _, outputs, _ = run(root, f"--base={newer}")
        assert json.loads(outputs["left_out"]) == []

    def test_sees_all_commits_of_a_push(self, root: Path) -> None:
        """Not the last one alone."""
        before = change(root, "pipeline/x.py")
        change(root, "docs/a.md")
        _, outputs, _ = run(root, f"--base={before}")
        assert json.loads(outputs["left_out"]) == []

    def test_sees_a_merge_as_the_branch_that_it_brings(self, root: Path) -> None:
        """As GitHub tests a pull request: merged into its base, which has gone on."""
        git(root, "checkout", "--quiet", "-b", "topic")
        change(root, "docs/a.md")
        git(root, "checkout", "--quiet", "main")
        change(root, "pipeline/x.py")
        base = head(root)
        git(root, "merge", "--quiet", "--no-edit", "topic")
        _, outputs, _ = run(root, f"--base={base}")
        assert json.loads(outputs["left_out"]) == ["workflows", "image", "e2e"]

    def test_ends_before_it_answers_where_the_list_is_wrong(self, root: Path) -> None:
        """No output: what comes after has to take that for a failure."""
        text = (root / "pyproject.toml").read_text()
        (root / "pyproject.toml").write_text(text.replace('"docs"', '"pipeline"'))
        before = change(root, "docs/a.md")
        done, outputs, _ = run(root, f"--base={before}")
        assert (done.returncode, outputs) == (2, {})
        assert "harmless: docs: `pipeline`: `pipeline` is the pipeline's" in done.stderr

    def test_needs_no_github(self, root: Path) -> None:
        """A laptop asks before it pushes."""
        before = change(root, "docs/a.md")
        command = [sys.executable, "-m", "pipeline", "changes", "--base", before]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
        environ["PYTHONPATH"] = str(ROOT)
        done = subprocess.run(command, cwd=root, env=environ, check=False, capture_output=True, text=True)
        assert (done.returncode, "workflows, image, e2e left out" in done.stderr) == (0, True), done.stderr
