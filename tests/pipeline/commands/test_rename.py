"""`nox -s rename -- NAME`, on copies of this repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pipeline.commands.rename import renamed
from pipeline.config.project import KubernetesEnvironment, load_project
from pipeline.engines.kustomize import render, trees
from tests.pipeline.commands.clones import IDENTITY, commit, files, git, run
from tests.project import NAME, PROJECT

ROOT = Path(__file__).parents[3]
MADE = PROJECT.template is not None  # of the template, by a rename
AUTHOR = {f"GIT_{who}_{what}": "t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
NEW = "quite-another"  # neither the template's name nor likely that of a service made from it
# The template's own name is the pipeline's too: these stay.
PIPELINES = re.compile(
    r"tool\.slipway|urn:slipway|"
    r"\.slipway[/}`]|/var/lib/slipway|managed-by: slipway|kind-slipway|cluster `slipway`|manager=slipway|"
    r"manager \(`slipway`|slipway-(?:registry|deploy|release-N|proof|synthetic)|slipway/(?:release|secrets)|"
    r"slipway\.(?:release|config|slot|token|drain|monitoring|needs|password|schema|socket)|rename -- [\w-]+|"
    r"slipway_(?:deploy|backup|drill)_"
)


def uses(root: Path, name: str) -> list[str]:
    """The lines that hold NAME, whatever it is called there, but for what rename leaves to the pipeline."""
    places = (":!pipeline", ":!tests", ":!noxfile.py")
    done = subprocess.run(
        ["git", "grep", "-nI", name, "--", ".", *places], cwd=root, check=False, capture_output=True, text=True
    )
    return done.stdout.splitlines()


LABEL = re.compile(r"slipway[./][a-z]+\b")


def labels(root: Path) -> Counter[str]:
    """How often each label of the pipeline's is set, in what it builds and applies."""
    read = {label for path in (root / "pipeline").rglob("*.py") for label in LABEL.findall(path.read_text())}
    files = [root / "docker-compose.yml", *(path for part in ("docker", "k8s") for path in (root / part).rglob("*"))]
    text = "\n".join(path.read_text() for path in files if path.is_file())
    return Counter(label for label in LABEL.findall(text) if label in read)


@pytest.fixture(name="new", scope="module")
def _new(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that was renamed, for every test that only looks at it."""
    root = tmp_path_factory.mktemp("new")
    git(root, "clone", "--quiet", str(template), ".")
    done = run(root, "rename", NEW)
    assert done.returncode == 0, done.stderr
    return root


class TestRename:
    def test_keeps_what_the_pipeline_reads(self, template: Path, new: Path) -> None:
        """A label of an image that has another name by then is not found: nothing could be deployed twice."""
        before = labels(template)
        assert {"slipway.socket", "slipway.needs"} <= before.keys()
        assert labels(new) == before

    def test_leaves_no_old_name(self, new: Path) -> None:
        """Nowhere but in what is the pipeline's; and what is made from the settings' schema still agrees with it."""
        left = [line for line in uses(new, NAME) if NAME in PIPELINES.sub("", line)]
        assert left == []
        assert (new / "README.md").read_text().startswith(f"# {NEW}\n")
        assert run(new, "settings").returncode == 0
        assert not [line for line in git(new, "diff", "--summary").splitlines() if "mode" in line]
        assert git(new, "diff", "--stat", "--", "pipeline", "tests", "noxfile.py", "requirements", "LICENSE") == ""

    def test_renames_what_kubernetes_gets(self, new: Path) -> None:
        """Each tree renders; labels, names, namespaces, secrets, hosts are the new one's."""
        for tree in trees(new):
            objects = render(tree.kustomization)
            text = PIPELINES.sub("", str(objects).replace("'app.kubernetes.io/managed-by': 'slipway'", ""))
            assert NAME not in text.replace("slipway_{name}", ""), tree.name  # the exporter: a program of the pipeline
            if tree.name in ("k8s/bootstrap/logs", "k8s/cluster/monitoring"):
                continue  # of the cluster, which services share
            labels = [one["metadata"]["labels"] for one in objects]
            assert {one["app.kubernetes.io/part-of"] for one in labels} == {NEW}, tree.name

    def test_has_a_place_of_its_own_in_the_cluster_that_services_share(self, new: Path) -> None:
        """Namespace, images and host, and not the address at which the template itself answers, too."""
        env = load_project(new).environment("kind")
        assert isinstance(env, KubernetesEnvironment)
        assert (env.context, env.namespace, env.repository) == ("kind-slipway", NEW, f"localhost:5001/{NEW}")
        assert env.url == f"http://{NEW}.localhost:8088"
        [tree] = [tree for tree in trees(new) if tree.name == "k8s/overlays/kind"]
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

    def test_lets_the_names_in_env_follow(self, clone: Path) -> None:
        """Where nothing was deployed: those that are the old name, and nothing else; the file stays private."""
        env = clone / ".env"
        text = f"PROJECT_NAME={NAME}\nPOSTGRES_DB='{NAME}'\nPOSTGRES_USER={NAME}-app-1\nREDIS_USERNAME={NAME}-x\n"
        env.write_text(text)
        said = run(clone, "rename", NEW).stderr
        followed = f"PROJECT_NAME={NEW}\nPOSTGRES_DB='{NEW}'\nPOSTGRES_USER={NEW}-app-1\nREDIS_USERNAME={NAME}-x\n"
        assert env.read_text() == followed
        assert env.stat().st_mode & 0o077 == 0
        assert f".env says `{NAME}` for PROJECT_NAME, POSTGRES_DB, POSTGRES_USER: `{NEW}` now" in said

    def test_leaves_the_names_of_data_in_env(self, clone: Path) -> None:
        """Where something was deployed they stay; it says how they move, and that works."""
        env, state = clone / ".env", clone / ".slipway/local"
        env.write_text(f"PROJECT_NAME={NAME}\n")
        (state / "releases/1").mkdir(parents=True)
        said = run(clone, "rename", NEW).stderr
        assert env.read_text() == f"PROJECT_NAME={NAME}\n"
        assert f"`nox -s down -- local --volumes`, then `nox -s rename -- {NEW}` again" in said
        shutil.rmtree(state)  # as `down --volumes` does
        assert run(clone, "rename", NEW).returncode == 0
        assert env.read_text() == f"PROJECT_NAME={NEW}\n"

    @pytest.mark.skipif(MADE, reason="made from the template: its first rename is over, and only that does this")
    def test_records_the_commit_of_the_template(self, clone: Path) -> None:
        """The first time, the newest commit that is the template's, not one's own; from then on it stays."""
        template = git(clone, "rev-parse", "HEAD").strip()
        (clone / "docs/own.md").write_text("mine\n")
        commit(clone)
        for name in (NEW, "other-2"):
            assert run(clone, "rename", name).returncode == 0
            commit(clone)
            assert load_project(clone).template == template

    @pytest.mark.skipif(MADE, reason="made from the template: its first rename is over, and only that does this")
    def test_says_how_to_leave_the_templates_history(self, clone: Path) -> None:
        """It changes neither that nor `origin`; the commands that it prints do."""
        commit_again = ("commit", "--quiet", "--allow-empty", "--message", "y")
        git(clone, *IDENTITY, *commit_again)
        git(clone, "remote", "set-url", "origin", f"git@github.com:acme/{NAME}.git")
        said = run(clone, "rename", NEW, "--owner", "@shop/team").stderr
        assert (git(clone, "rev-list", "--count", "HEAD"), NAME in git(clone, "remote", "-v")) == ("2\n", True)
        commands = re.findall(r"`(git [^`]+)`", said.replace("`git diff`", ""))
        before = files(clone)
        for command in commands:
            done = subprocess.run(["bash", "-c", command], cwd=clone, check=False, env={**os.environ, **AUTHOR})
            assert done.returncode == 0, command
        assert git(clone, "remote", "get-url", "origin") == f"git@github.com:shop/{NEW}.git\n"
        assert git(clone, "rev-list", "--count", "HEAD") == "1\n"
        assert files(clone) == before

    def test_says_nothing_of_a_history_of_ones_own(self, clone: Path) -> None:
        """A repository that GitHub made from the template has one commit, and an `origin` of its name."""
        git(clone, "remote", "set-url", "origin", f"https://github.com/acme/{NEW}.git")
        said = run(clone, "rename", NEW).stderr
        assert "origin" not in said
        assert "begin anew" not in said
        assert "LICENSE stays" in said

    @pytest.mark.skipif(MADE, reason="made from the template: its CODEOWNERS names somebody already")
    def test_writes_who_reviews(self, clone: Path) -> None:
        """`--owner` takes the place of nobody in CODEOWNERS, at once or later; without it, it says so."""
        assert f"`nox -s rename -- {NEW} --owner @org/team`" in run(clone, "rename", NEW).stderr
        commit(clone)
        assert run(clone, "rename", NEW, "--owner", "@acme/shop").returncode == 0
        assert (clone / ".github/CODEOWNERS").read_text().endswith("\n* @acme/shop\n")
        rules = git(clone, "ls-files", "monitoring", "k8s/components/monitoring/rules.yaml").split()
        led = [name for name in rules if "runbook_url: " in (clone / name).read_text()]
        assert git(clone, "diff", "--name-only").split() == [".github/CODEOWNERS", *led]
        address = f"runbook_url: https://github.com/acme/{NEW}/blob/main/docs/4-runbook.md#"
        assert all(address in (clone / name).read_text() for name in led)

    @pytest.mark.parametrize("owner", ["acme", "@", "@a b", "@a/b/c", ""])
    def test_refuses_who_is_nobody(self, kept: Path, owner: str) -> None:
        """GitHub ignores a line of CODEOWNERS that names nobody."""
        done = run(kept, "rename", NEW, "--owner", owner)
        assert (done.returncode, git(kept, "status", "--porcelain")) == (2, "")
        assert f"`{owner}` is nobody's name on GitHub" in done.stderr

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
