"""`[tool.slipway.harmless]` in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.harmless import Harmless
from pipeline.config.project import load_project
from pipeline.errors import UsageError
from tests.project import PROJECT

GOOD = '[project]\nname = "shop"\n[tool.slipway.environments.local]\ntarget = "local"\nurl = "http://localhost:8080"\n'


def write(root: Path, line: str) -> Path:
    """Return `root` with a pyproject.toml whose list has the `line`."""
    (root / "backend").mkdir(exist_ok=True)
    (root / "pyproject.toml").write_text(f"{GOOD}[tool.slipway.harmless]\n{line}\n", encoding="utf-8")
    return root


class TestHarmless:
    def test_is_empty_where_nobody_wrote_one(self, tmp_path: Path) -> None:
        """Everything is run for everything."""
        (tmp_path / "backend").mkdir()
        (tmp_path / "pyproject.toml").write_text(GOOD)
        assert load_project(tmp_path).harmless.kind("docs/x.md") is None

    def test_takes_files_and_folders_however_they_are_written(self, tmp_path: Path) -> None:
        """As git writes them: without a dot in front, or a slash behind."""
        found = load_project(write(tmp_path, 'docs = ["./docs/", "README.md"]')).harmless
        assert found.docs == ("docs", "README.md")

    @pytest.mark.parametrize("path", ["", ".", "/docs", "../docs", "docs/..", "docs/*", "**", "do[c]s"])
    def test_refuses_what_is_no_path_of_the_project(self, tmp_path: Path, path: str) -> None:
        """A wildcard would be a name that no file has, and a way out leads to nothing that git tracks."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, f'docs = ["{path}"]'))
        (problem,) = caught.value.problems
        assert problem.startswith(f"pyproject.toml [tool.slipway]: harmless: docs: `{path}` is not a file or folder")

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("pipeline", "pipeline"),
            ("pipeline/proof", "pipeline"),
            ("tests", "tests/deploy"),
            (".github/workflows/", ".github"),
            ("./pyproject.toml", "pyproject.toml"),
        ],
    )
    def test_refuses_what_is_the_pipelines(self, tmp_path: Path, path: str, place: str) -> None:
        """Itself, a part of it, or a folder around it."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, f'domain = ["{path}"]'))
        (problem,) = caught.value.problems
        assert f"harmless: domain: `{path}`: `{place}` is the pipeline's" in problem

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('doc = ["docs"]', "harmless: unknown key `doc`: did you mean `docs`?"),
            ('docs = "docs"', 'harmless: docs: must be a list; for example `docs = ["docs"]`'),
            ("page = [3]", "harmless: page, number 1: must be text"),
        ],
    )
    def test_refuses_a_wrong_key_with_its_fix(self, tmp_path: Path, line: str, says: str) -> None:
        """As in every other table."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, line))
        assert caught.value.problems == (f"pyproject.toml [tool.slipway]: {says}",)


class TestKind:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("backend/notes", "domain"),
            ("backend/notes/a/b.py", "domain"),
            ("docs/x.md", "docs"),
            ("README.md", "docs"),
            ("backend/notes.py", None),
            ("backend/notes2/a.py", None),
            ("docs2", None),
            ("a/docs/x.md", None),
            ("Docs/x.md", None),
            ("README.md.py", None),
        ],
    )
    def test_is_that_of_the_list_with_the_file_or_a_folder_around_it(self, name: str, kind: str | None) -> None:
        """A name that begins alike is another one."""
        assert Harmless(domain=("backend/notes",), docs=("docs", "README.md")).kind(name) == kind


def test_the_list_of_this_repository_names_what_is_there() -> None:
    """A folder that was removed or moved is taken out of it, too: pyproject.toml, [tool.slipway.harmless]."""
    listed = [*PROJECT.harmless.domain, *PROJECT.harmless.page, *PROJECT.harmless.docs]
    assert [name for name in listed if not (PROJECT.root / name).exists()] == []
