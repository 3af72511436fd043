"""Release folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.config.project import LocalEnvironment, Project
from pipeline.config.settings import needed_secrets
from pipeline.errors import SlipwayError, UsageError
from pipeline.releases.migrations import required_revision
from pipeline.targets.local import difference
from pipeline.targets.local.artifacts import Artifacts, python_works
from pipeline.targets.local.layout import Layout


@pytest.fixture(name="artifacts")
def _artifacts(tmp_path: Path, layout: Layout) -> Artifacts:
    """A project of one file and two empty locks: its environments hold nothing and take no download."""
    root = tmp_path / "project"
    for name, text in {
        "backend/__init__.py": "",
        "backend/app.py": "x = 1\n",
        "backend/migrations/versions/0002_b.py": "",
        "requirements/backend.txt": "",
        "requirements/migrate.txt": "# none\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    env = LocalEnvironment(name="local", url="http://localhost:1")
    project = Project(root=root, name="shop", environments={"local": env}, requests=())
    return Artifacts(project, layout)


class TestBuild:
    def test_names_a_release_by_its_content(self, artifacts: Artifacts) -> None:
        """The same source and settings are the same release; a byte or a setting makes another."""
        first = artifacts.build({"LOG_LEVEL": "INFO"})
        assert artifacts.build({"LOG_LEVEL": "INFO"}).name == first.name
        assert artifacts.build({"LOG_LEVEL": "DEBUG"}).name != first.name
        (artifacts.project.root / "backend/app.py").write_text("x = 2\n")
        assert artifacts.build({"LOG_LEVEL": "INFO"}).name != first.name

    def test_keeps_files_to_ourselves(self, artifacts: Artifacts) -> None:
        """No file of a release can be read by others, whatever its mode was."""
        (artifacts.project.root / "backend/app.py").chmod(0o644)
        folder = artifacts.folder(artifacts.build({}).name)
        assert (folder / "backend/app.py").stat().st_mode & 0o777 == 0o600

    def test_ends_at_a_syntax_error(self, artifacts: Artifacts) -> None:
        """What does not compile is named with its line, and leaves no part behind."""
        (artifacts.project.root / "backend/app.py").write_text("def broken(:\n")
        with pytest.raises(SlipwayError, match=r"does not compile: .*backend/app.py.*line 1"):
            artifacts.build({})
        assert list(artifacts.layout.artifacts.iterdir()) == []

    def test_knows_the_revision_that_its_code_needs(self, artifacts: Artifacts) -> None:
        """The highest number of its migrations; none without migrations."""
        assert artifacts.build({}).revision == "0002"
        assert required_revision(artifacts.layout.home) is None

    def test_knows_the_secrets_without_which_it_does_not_start(self, artifacts: Artifacts) -> None:
        """By the schema that it is built with; a release that was kept before they were noted says nothing."""
        release = artifacts.build({})
        assert list(release.needs) == needed_secrets() != []
        meta = artifacts.folder(release.name) / "release.json"
        meta.write_text(
            json.dumps({name: value for name, value in json.loads(meta.read_text()).items() if name != "needs"})
        )
        assert artifacts.recorded(release.name).needs == ()

    def test_says_which_package_cannot_be_had(self, artifacts: Artifacts) -> None:
        """A lock that cannot be installed is named, and no half environment is kept."""
        (artifacts.project.root / "requirements/backend.txt").write_text(
            "fastapi==0.0.1 --hash=sha256:" + "0" * 64 + "\n"
        )
        with pytest.raises(SlipwayError, match=r"packages of requirements/backend.txt could not be installed"):
            artifacts.build({})
        assert not list(artifacts.layout.venvs.glob(".part-*"))


class TestRecorded:
    def test_refuses_what_was_changed_since(self, artifacts: Artifacts) -> None:
        """A release whose files are not what was built must not be shipped again."""
        name = artifacts.build({}).name
        (artifacts.folder(name) / "backend/app.py").write_text("x = 'other'\n")
        with pytest.raises(SlipwayError, match="are not what was built"):
            artifacts.recorded(name)

    def test_says_when_a_release_is_not_kept_any_more(self, artifacts: Artifacts) -> None:
        """A recorded release that was pruned cannot be shipped; the line says why and what to do."""
        with pytest.raises(UsageError, match="is not kept here: only the last 5 proved"):
            artifacts.recorded("0123456789ab")


class TestAnotherPython:
    """The nox that deploys runs on another Python than the one before, or Python was upgraded or removed."""

    @pytest.fixture(name="kept")
    def _kept(self, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> str:
        """A release that was built with another Python than ours."""
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.targets.local.artifacts._python_tag", lambda: "linux-CPython-3.2")
            return artifacts.build({"LOG_LEVEL": "INFO"}).name

    def test_leaves_a_kept_release_what_was_built(self, artifacts: Artifacts, kept: str) -> None:
        """It can be brought back, and its environments are its own."""
        assert artifacts.recorded(kept).name == kept
        new = artifacts.build({"LOG_LEVEL": "INFO"}).name
        assert new != kept
        assert artifacts.python(new, "backend") != artifacts.python(kept, "backend")
        artifacts.prune({kept, new}, engines=Path("/nonexistent"))
        assert artifacts.python(kept, "backend").exists()

    @pytest.mark.parametrize("lost", ["removed", "upgraded"])
    def test_makes_an_environment_anew_whose_python_is_gone(
        self, artifacts: Artifacts, kept: str, lost: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """At the same place, with a Python that is there; what works is left alone."""
        python = artifacts.python(kept, "backend")
        other = artifacts.python(kept, "migrate").stat()
        if lost == "removed":
            python.unlink()
            python.symlink_to("/nowhere/python3")
        else:
            [packages] = (python.parents[1] / "lib").iterdir()
            packages.rename(packages.with_name("python3.2"))
        assert not python_works(python.parents[1])
        artifacts.prepare(kept)
        assert python_works(python.parents[1])
        assert f"the Python of {python.parents[1]} was removed or upgraded: making it anew" in caplog.text
        assert artifacts.python(kept, "migrate").stat() == other
        caplog.clear()
        artifacts.prepare(kept)
        assert caplog.text == ""


class TestPrune:
    def test_removes_releases_and_environments_that_nothing_needs(self, artifacts: Artifacts) -> None:
        """What is kept keeps its environments; the engines' one stays too."""
        old = artifacts.build({})
        (artifacts.project.root / "backend/app.py").write_text("x = 3\n")
        (artifacts.project.root / "requirements/backend.txt").write_text("# another\n")
        new = artifacts.build({})
        artifacts.prune({new.name}, engines=Path("/nonexistent"))
        assert [path.name for path in artifacts.layout.artifacts.iterdir()] == [new.name]
        assert len(list(artifacts.layout.venvs.iterdir())) == 2
        assert not artifacts.folder(old.name).exists()


class TestDifference:
    def test_is_told_in_words(self, artifacts: Artifacts) -> None:
        """Files, packages and settings that differ, and nothing else."""
        old = artifacts.build({"LOG_LEVEL": "INFO", "DEBUG": "false"})
        (artifacts.project.root / "backend/app.py").write_text("x = 1\ny = 2\n")
        (artifacts.project.root / "backend/new.py").write_text("z = 3\n")
        (artifacts.project.root / "requirements/backend.txt").write_text("# another\n")
        new = artifacts.build({"LOG_LEVEL": "DEBUG", "DEBUG": "false"})
        assert difference.describe_difference(artifacts, new.name, old.name) == [
            "file backend/app.py: +1 -0 lines",
            "file backend/new.py: +1 -0 lines",
            "packages requirements/backend.txt: +1 -0 lines",
            "setting LOG_LEVEL: INFO → DEBUG",
        ]
