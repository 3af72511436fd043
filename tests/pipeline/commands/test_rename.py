"""`nox -s rename -- NAME`, on copies of this repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.rename import renamed
from pipeline.config.project import KubernetesEnvironment, load_project
from pipeline.engines.kustomize import render, trees
from tests.project import NAME

ROOT = Path(__file__).parents[3]
NEW = "quite-another"  # neither the template's name nor likely that of a service made from it
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
# The template's own name is the pipeline's too: these stay.
PIPELINES = re.compile(
    r"tool\.slipway|urn:slipway|"
    r"\.slipway/|/var/lib/slipway|managed-by: slipway|kind-slipway|cluster `slipway`|manager=slipway|"
    r"manager \(`slipway`|slipway-(?:registry|deploy|release-N|proof|synthetic)|slipway/(?:release|secrets)|"
    r"slipway\.(?:release|config|slot|token|drain|needs|password|schema)|rename -- [\w-]+"
)


def git(root: Path, *arguments: str) -> str:
    """What a git command says in ROOT."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, *IDENTITY, "commit", "--quiet", "--message", "x")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A verb of the pipeline in ROOT."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)


def files(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in git(root, "ls-files").splitlines()}


def uses(root: Path, name: str) -> list[str]:
    """The lines that hold NAME, whatever it is called there, but for what rename leaves to the pipeline."""
    places = (":!pipeline", ":!tests", ":!noxfile.py")
    done = subprocess.run(
        ["git", "grep", "-nI", name, "--", ".", *places], cwd=root, check=False, capture_output=True, text=True
    )
    return done.stdout.splitlines()


@pytest.fixture(name="template", scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would hold, uncommitted work included, committed."""
    root = tmp_path_factory.mktemp("template")
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    git(root, "init", "--quiet")
    commit(root)
    return root


@pytest.fixture(name="clone")
def _clone(template: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(template), "clone")
    return tmp_path / "clone"


@pytest.fixture(name="kept", scope="module")
def _kept(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clone for every test that sees it refused: it stays as it was."""
    root = tmp_path_factory.mktemp("kept")
    git(root, "clone", "--quiet", str(template), ".")
    return root


class TestRename:
    def test_leaves_no_old_name(self, clone: Path) -> None:
        """Nowhere but in what is the pipeline's; and what is made from the settings' schema still agrees with it."""
        done = run(clone, "rename", NEW)
        assert done.returncode == 0, done.stderr
        left = [line for line in uses(clone, NAME) if NAME in PIPELINES.sub("", line)]
        assert left == []
        assert (clone / "README.md").read_text().startswith(f"# {NEW}\n")
        assert run(clone, "settings").returncode == 0
        assert not [line for line in git(clone, "diff", "--summary").splitlines() if "mode" in line]
        assert git(clone, "diff", "--stat", "--", "pipeline", "tests", "noxfile.py", "requirements", "LICENSE") == ""

    def test_renames_what_kubernetes_gets(self, clone: Path) -> None:
        """Each tree renders; labels, names, namespaces, secrets, hosts are the new one's."""
        assert run(clone, "rename", NEW).returncode == 0
        for tree in trees(clone):
            objects = render(tree.kustomization)
            text = str(objects).replace("'app.kubernetes.io/managed-by': 'slipway'", "")
            assert NAME not in text, tree.name
            labels = [one["metadata"]["labels"] for one in objects]
            assert {one["app.kubernetes.io/part-of"] for one in labels} == {NEW}, tree.name

    def test_has_a_place_of_its_own_in_the_cluster_that_services_share(self, clone: Path) -> None:
        """Namespace, images and host, and not the address at which the template itself answers, too."""
        assert run(clone, "rename", NEW).returncode == 0
        env = load_project(clone).environment("kind")
        assert isinstance(env, KubernetesEnvironment)
        assert (env.context, env.namespace, env.repository) == ("kind-slipway", NEW, f"localhost:5001/{NEW}")
        assert env.url == f"http://{NEW}.localhost:8088"
        [tree] = [tree for tree in trees(clone) if tree.name == "k8s/overlays/kind"]
        assert [one["spec"]["hostnames"] for one in render(tree.kustomization) if one["kind"] == "HTTPRoute"] == [
            [f"{NEW}.localhost"]
        ]

    def test_works_again_from_the_name_that_it_gave(self, clone: Path, template: Path, tmp_path: Path) -> None:
        """By way of any name: the same tree as at once, and nothing left of the one between."""
        for name in (NEW, "other-2"):
            assert run(clone, "rename", name).returncode == 0
            commit(clone)
        git(tmp_path, "clone", "--quiet", str(template), "direct")
        assert run(tmp_path / "direct", "rename", "other-2").returncode == 0
        assert uses(clone, NEW) == []
        assert files(clone) == files(tmp_path / "direct")

    def test_renames_files_that_it_has_not_seen(self, clone: Path) -> None:
        """A workflow, a badge; code only where the name is a whole text."""
        (clone / ".github/workflows").mkdir(parents=True, exist_ok=True)
        (clone / ".github/workflows/x.yml").write_text(f"image: ghcr.io/acme/{NAME}@sha256:1 # kind-slipway\n")
        (clone / "docs/x.md").write_text(f"![ci](https://github.com/acme/{NAME}/actions/workflows/ci.yml/badge.svg)\n")
        (clone / "backend/x.py").write_text(f'import {NAME}\nTITLE = "{NAME}"\n')
        commit(clone)
        assert run(clone, "rename", NEW).returncode == 0
        workflow = (clone / ".github/workflows/x.yml").read_text()
        assert workflow == f"image: ghcr.io/acme/{NEW}@sha256:1 # kind-slipway\n"
        assert f"/acme/{NEW}/actions/" in (clone / "docs/x.md").read_text()
        assert (clone / "backend/x.py").read_text() == f'import {NAME}\nTITLE = "{NEW}"\n'

    def test_has_nothing_to_do_for_the_same_name(self, kept: Path) -> None:
        """It says so."""
        done = run(kept, "rename", NAME)
        assert (done.returncode, git(kept, "status", "--porcelain")) == (0, "")
        assert f"already called {NAME}: nothing to do" in done.stderr

    @pytest.mark.parametrize(
        "name", ["My-Service", "my_service", "-x", "x-", "a--b", "1st", "é", "", "a" * 41, "a b", "slipway-2"]
    )
    def test_refuses_what_is_no_name(self, kept: Path, name: str) -> None:
        """DNS label, package, image and database: all of these it has to be."""
        self._refused(kept, f"`{name}` is not a valid name for a service", name)

    def test_takes_the_name_of_its_own_example(self, clone: Path) -> None:
        """A page that says `my-service` elsewhere than in the command would make it a word of the tree."""
        done = run(clone, "rename", "my-service")
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", ["backend", "pipeline", "postgres", "tests", "app"])
    def test_refuses_a_word_of_the_tree(self, kept: Path, name: str) -> None:
        """No later rename could tell what is the service's."""
        self._refused(kept, f"`{name}` is already a word of ", name)

    def test_refuses_a_dirty_tree(self, clone: Path) -> None:
        """Git would not undo it."""
        (clone / "notes.txt").write_text("mine")
        self._refused(clone, "notes.txt not committed: commit or stash first", NEW)

    @pytest.mark.parametrize(
        ("name", "place"),
        [("pyproject.toml", "backend/settings.py, PROJECT_NAME"), ("k8s/base/kustomization.yaml", "k8s/base/kustom")],
    )
    def test_refuses_a_half_renamed_tree(self, clone: Path, name: str, place: str) -> None:
        """Which of two names is the old one is for people to say."""
        text = (clone / name).read_text()
        changed = text.replace(f'name = "{NAME}"', 'name = "mine"').replace(f"part-of: {NAME}", "part-of: mine")
        (clone / name).write_text(changed)
        commit(clone)
        for wanted in (NEW, "mine"):
            self._refused(clone, f"half renamed: {place}", wanted)

    def test_refuses_what_git_does_not_track(self, clone: Path) -> None:
        """A download without its history could not be undone."""
        shutil.rmtree(clone / ".git")
        done = run(clone, "rename", NEW)
        assert (done.returncode, "no git repository" in done.stderr) == (2, True), done.stderr

    def test_is_all_or_nothing(self, clone: Path) -> None:
        """A file that cannot be written leaves the tree as it was."""
        last = "tail.md"  # after the others
        (clone / "z").mkdir()
        (clone / "z" / last).write_text(f"`{NAME}`\n")
        commit(clone)
        (clone / "z" / f".{last}.part").mkdir()  # where its new text would be
        done = run(clone, "rename", NEW)
        assert done.returncode == 1, done.stderr
        assert git(clone, "status", "--porcelain") == ""

    def test_says_what_stays(self, clone: Path) -> None:
        """What runs here keeps its name: .env is not git's."""
        (clone / ".env").write_text(f"PROJECT_NAME={NAME}\n")
        said = run(clone, "rename", NEW).stderr
        assert f".env still says `{NAME}` for PROJECT_NAME" in said
        assert "LICENSE stays" in said

    def _refused(self, clone: Path, line: str, name: str) -> None:
        before = git(clone, "status", "--porcelain")
        done = run(clone, "rename", "--", name)
        assert (done.returncode, len(done.stderr.splitlines()) <= 20) == (2, True), done.stderr
        assert line in done.stderr
        assert "Traceback" not in done.stderr
        assert git(clone, "status", "--porcelain") == before


def test_keeps_an_example_of_itself() -> None:
    """A page that says how to rename still says it."""
    assert renamed("docs/x.md", "`nox -s rename -- my-service`; my-service", "my-service", "b") == (
        "`nox -s rename -- my-service`; b"
    )


@pytest.mark.needs("docker compose")
def test_compose_takes_the_name(clone: Path) -> None:
    """Project, images, database: as docker compose resolves them."""
    assert run(clone, "rename", NEW).returncode == 0
    environment = {"PATH": os.environ["PATH"], "HOME": str(clone)}
    text = (clone / ".env.example").read_text()
    (clone / ".env").write_text(re.sub(r"(?m)^(\w*(?:PASSWORD|SECRET_KEY|TOKEN))=.*$", r"\1=x", text))
    done = subprocess.run(
        ["docker", "compose", "config"], cwd=clone, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"name: {NEW}\n" in done.stdout
    assert f"image: {NEW}-backend:dev" in done.stdout
    assert f"POSTGRES_DB: {NEW}" in done.stdout
