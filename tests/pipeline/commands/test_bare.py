"""`nox -s rename -- NAME --bare`, on copies of this repository: what leaves, what stays, and when it is refused."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.rename import _deployed
from pipeline.config.example import PARTS, read_parts
from pipeline.config.project import KubernetesEnvironment
from pipeline.system.progress import Progress
from tests.pipeline.commands.clones import commit, files, git, run
from tests.pipeline.deploy.world import World
from tests.project import PROJECT

pytestmark = pytest.mark.skipif(PROJECT.template is not None, reason="made from the template: the example is its own")

ROOT = Path(__file__).parents[3]
NEW = "quite-another"
OTHER = "other-2"
OWNER = ("--owner", "@acme/shop")
FIRST = "1:55623371a8e00ce42f7bbe99:cf21ea6db6bb32ad1cada8db"  # of 0001, as it is recorded where it was applied


def bare(root: Path, *arguments: str, name: str = NEW) -> subprocess.CompletedProcess[str]:
    """Take the example out of ROOT; no cluster of this machine is asked."""
    return run(root, "rename", name, "--bare", *OWNER, *arguments, KUBECONFIG=os.devnull)


def refused(root: Path, line: str, *arguments: str, name: str = NEW) -> None:
    """It is refused with LINE in a single line, and nothing is touched."""
    before, status = files(root), git(root, "status", "--porcelain", "--ignored")
    done = bare(root, *arguments, name=name)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert [one for one in done.stderr.splitlines() if line in one] != [], done.stderr
    assert (files(root), git(root, "status", "--porcelain", "--ignored")) == (before, status)


def python(root: Path, *arguments: str) -> str:
    """What Python says in ROOT."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=root, check=True, capture_output=True, text=True, env={"PATH": os.defpath}
    ).stdout


def plan(root: Path) -> list[dict[str, Any]]:
    """The migrations of ROOT, with their SQL."""
    steps: list[dict[str, Any]] = json.loads(python(root, "-m", "backend.migrations", "plan", "--from", "none"))
    return steps


def statements(step: dict[str, Any]) -> list[str]:
    """The statements of a migration, without layout."""
    return [" ".join(one.split()) for one in step["sql"].split(";") if one.strip()]


@pytest.fixture(name="emptied", scope="module")
def _emptied(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare copy, committed, for every test that only looks at it."""
    root = tmp_path_factory.mktemp("bare") / "copy"
    git(root.parent, "clone", "--quiet", str(template), str(root))
    done = bare(root)
    assert done.returncode == 0, done.stderr
    commit(root)
    return root


@pytest.fixture(name="other", scope="module")
def _other(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that was renamed, committed, for every test that goes on from there in a clone of its own."""
    root = tmp_path_factory.mktemp("other")
    git(root, "clone", "--quiet", str(template), ".")
    assert run(root, "rename", OTHER).returncode == 0
    commit(root)
    return root


class TestWhatStays:
    def test_is_one_resource_of_six_files(self, emptied: Path, template: Path) -> None:
        """Beside what takes another's place, no more is new than what one copies."""
        new = set(files(emptied)) - set(files(template))
        first = "backend/migrations/versions/0001_idempotency_keys.py"
        assert len(new - {first}) <= 6, new
        assert {name.partition("/")[0] for name in new} == {"backend", "tests"}

    def test_names_the_example_nowhere(self, emptied: Path) -> None:
        """No file of its own, no path, no table, no mark; the client of a board stays, which is the pipeline's."""
        example = r"backend[./](releases|environments)\b|api/v1/(releases|environments)|example-only|docs/page.png"
        found = subprocess.run(
            ["git", "grep", "-nIE", example, "--", ".", ":!pipeline", ":!tests"],
            cwd=emptied, check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert found.stdout == ""
        assert not [folder for folder in ("bare", "backend/releases") if (emptied / folder).exists()]

    def test_is_checked_as_before(self, emptied: Path) -> None:
        """What `lint` asks of the files agrees, and no list of the example's is wanted any more."""
        for verb in ("settings", "migrations", "parts"):
            done = run(emptied, verb)
            assert done.returncode == 0, done.stderr

    def test_serves_the_resource_that_is_in_the_table_of_requests(self, emptied: Path) -> None:
        """Each request's path is a route of the service, which has no other domain."""
        code = (
            "from backend.app import create_app; from backend.settings import load_settings;"
            "print(*create_app(load_settings({})).openapi()['paths'], sep='\\n')"
        )
        paths = {path for path in python(emptied, "-c", code).split() if path.startswith("/api")}
        assert {path for path in paths if "/auth/" not in path} == {"/api/v1/items", "/api/v1/items/{item_id}"}
        table = tomllib.loads((emptied / "pyproject.toml").read_text())["tool"]["slipway"]["requests"]
        assert {request["path"].partition("?")[0] for request in table} == {"/api/v1/items"}

    def test_has_the_new_name(self, emptied: Path) -> None:
        """In what takes the example's place, too; and the owner."""
        assert f"<title>{NEW}</title>" in (emptied / "docker/frontend/index.html").read_text()
        assert "* @acme/shop\n" in (emptied / ".github/CODEOWNERS").read_text()


class TestMigrations:
    def test_lose_the_statements_of_the_example_and_nothing_else(self, emptied: Path, template: Path) -> None:
        """The others keep their numbers and what they do; the resource has the next number."""
        parts = read_parts(template)
        assert parts
        theirs = re.compile(rf"\b(?:{'|'.join(parts.tables.example)})\b")
        before, after = plan(template), plan(emptied)
        kept = {
            step["revision"]: left for step in before if (left := [x for x in statements(step) if not theirs.search(x)])
        }
        *others, resource = after
        assert {step["revision"]: statements(step) for step in others} == kept
        assert int(resource["revision"]) == int(before[-1]["revision"]) + 1
        assert "CREATE TABLE items" in resource["sql"]

    def test_go_on_after_ones_own(self, other: Path, tmp_path: Path) -> None:
        """A migration that is there already stays, and the resource follows it."""
        git(tmp_path, "clone", "--quiet", str(other), "clone")
        clone = tmp_path / "clone"
        number = int(plan(clone)[-1]["revision"]) + 1
        own = f'"""own"""\nrevision = "{number:04d}"\ndown_revision = "{number - 1:04d}"\ndef upgrade(): ...\n'
        (clone / f"backend/migrations/versions/{number:04d}_own.py").write_text(own)
        commit(clone)
        assert bare(clone).returncode == 0
        assert [step["message"] for step in plan(clone)][-2:] == ["own", "items"]
        assert run(clone, "migrations").returncode == 0

    def test_of_ones_own_under_a_number_that_is_taken_are_refused(self, clone: Path) -> None:
        """Both files are named, and how to renumber."""
        own = '"""own"""\nrevision = "0001"\ndown_revision = None\ndef upgrade(): ...\n'
        (clone / "backend/migrations/versions/0001_own.py").write_text(own)
        commit(clone)
        refused(clone, "0001_own.py and 0001_releases.py have the same revision 0001")
        refused(clone, "nox -s migration -- --renumber 0001_releases.py")

    def test_of_installations_are_not_touched(self) -> None:
        """What they applied is what the template still has: an ordinary deploy goes on."""
        first = plan(ROOT)[0]
        assert (first["revision"], first["checksum"]) == ("0001", FIRST)


class TestOrder:
    def test_the_name_can_come_first(self, clone: Path, emptied: Path) -> None:
        """Renamed, then bare under the same name, is the same as both at once."""
        assert run(clone, "rename", NEW, *OWNER).returncode == 0
        commit(clone)
        done = bare(clone)
        assert done.returncode == 0, done.stderr
        commit(clone)
        assert files(clone) == files(emptied)

    def test_twice_is_once(self, emptied: Path) -> None:
        """Nothing is left to do, with or without the owner."""
        for arguments in (("--bare",), ("--bare", *OWNER)):
            done = run(emptied, "rename", NEW, *arguments)
            assert (done.returncode, git(emptied, "status", "--porcelain")) == (0, "")
            assert "the example is gone: nothing to do" in done.stderr

    def test_another_name_can_come_later(self, template: Path, emptied: Path, tmp_path: Path) -> None:
        """A bare copy is renamed as any other."""
        git(tmp_path, "clone", "--quiet", str(emptied), "again")
        git(tmp_path, "clone", "--quiet", str(template), "direct")
        assert run(tmp_path / "again", "rename", OTHER).returncode == 0
        assert bare(tmp_path / "direct", name=OTHER).returncode == 0
        commit(tmp_path / "direct")
        assert files(tmp_path / "again") == files(tmp_path / "direct")


class TestRefusal:
    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("backend/domain.py", "the release board", "my board"),
            ("backend/releases/service.py", "CREATED = 201", "CREATED = 200"),
            ("backend/migrations/versions/0001_releases.py", "notes text,", "notes text, mine text,"),
            ("pyproject.toml", "/api/v1/releases?limit=5", "/api/v1/releases?limit=6"),
            ("docker/frontend/page/board.js", "ROWS = 30", "ROWS = 40"),
            ("docker/frontend/index.html", "Release board</h1>", "My board</h1>"),
            ("tests/backend/releases/test_endpoints.py", "1.4.2", "1.4.3"),
        ],
    )
    def test_of_own_work_where_it_would_go(self, other: Path, tmp_path: Path, name: str, old: str, new: str) -> None:
        """Whole files, and the example's part of others; also after a rename."""
        git(tmp_path, "clone", "--quiet", str(other), "clone")
        clone = tmp_path / "clone"
        text = (clone / name).read_text()
        assert old in text
        (clone / name).write_text(text.replace(old, new))
        commit(clone)
        refused(clone, f"{name} differs from the template's, and --bare would remove or change that")

    @pytest.mark.parametrize("name", ["backend/releases/own.py", "backend/items/service.py"])
    def test_of_own_files_where_it_would_remove_or_write(self, clone: Path, name: str) -> None:
        """In a folder of the example's; in the place of the resource."""
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_text('"""Mine."""\n')
        commit(clone)
        refused(clone, f"{name} differs from the template's", name=OTHER)

    def test_leaves_own_work_elsewhere(self, clone: Path) -> None:
        """In the same file outside of the marks, and in files of one's own."""
        project = clone / "pyproject.toml"
        project.write_text(project.read_text().replace("retain = 5 ", "retain = 3 "))
        (clone / "backend/own.py").write_text('"""Mine."""\n')
        commit(clone)
        assert bare(clone).returncode == 0
        assert "retain = 3 " in project.read_text()
        assert (clone / "backend/own.py").exists()

    def test_of_a_dirty_tree(self, clone: Path) -> None:
        """Git would not undo it."""
        (clone / "notes.txt").write_text("mine")
        refused(clone, "notes.txt not committed: commit or stash first")

    @pytest.mark.parametrize("name", ["backend", "items"])
    def test_of_a_word_of_the_tree(self, kept: Path, name: str) -> None:
        """As without `--bare`; what takes the example's place counts."""
        refused(kept, f"`{name}` is already a word of ", name=name)

    @pytest.mark.parametrize("environment", ["local", "compose", "kind"])
    def test_where_the_example_was_deployed(self, clone: Path, environment: str) -> None:
        """On this machine: the command that removes it is named; then it goes on."""
        record = clone / f".slipway/{environment}/releases/1"
        record.mkdir(parents=True)
        refused(clone, f"`nox -s down -- {environment} --volumes`", "--never-deployed", environment)
        record.rmdir()
        assert bare(clone).returncode == 0

    def test_where_nobody_can_say_what_was_deployed(self, clone: Path) -> None:
        """Elsewhere, once its address is one's own: unless a person says that nothing ever was."""
        project = clone / "pyproject.toml"
        project.write_text(project.read_text().replace("staging.example.com", "staging.acme.dev"))
        commit(clone)
        refused(clone, "staging cannot be asked for its releases (")
        refused(clone, "say `--never-deployed staging`")
        assert bare(clone, "--never-deployed", "staging").returncode == 0

    def test_where_another_cluster_has_releases(self, world: World, served: World) -> None:
        """An environment elsewhere is asked: each record is one too many."""
        env = KubernetesEnvironment(
            name="staging", url="https://staging.acme.dev", overlay="x", context="staging", namespace="x"
        )
        for never in (False, True):
            [line] = _deployed(world.target.project, env, Progress(), never=never, opened=lambda *_: served.target)
            assert "staging has releases with the example: `nox -s down -- staging --volumes`" in line

    def test_of_an_environment_that_is_none(self, kept: Path) -> None:
        """A misspelled one would be asked."""
        refused(kept, "unknown environment `stagin`", "--never-deployed", "stagin")

    def test_without_an_owner_and_a_terminal(self, kept: Path) -> None:
        """Nobody is asked where nobody can answer."""
        done = run(kept, "rename", NEW, "--bare")
        assert (done.returncode, git(kept, "status", "--porcelain")) == (2, "")
        assert "CODEOWNERS names nobody: say who reviews changes, `--owner @org/team`" in done.stderr

    def test_asks_for_the_owner_in_a_terminal(self, clone: Path) -> None:
        """An answer is taken; one that names nobody changes nothing."""
        command = [sys.executable, "-m", "pipeline", "rename", NEW, "--bare"]
        for answer, code, line in (("me", 2, "@your-organization/your-team"), ("@me", 0, "@me")):
            keys, terminal = pty.openpty()
            os.write(keys, f"{answer}\n".encode())
            done = subprocess.run(command, cwd=clone, stdin=terminal, check=False, capture_output=True, text=True,
                                  env={**os.environ, "KUBECONFIG": os.devnull})  # fmt: skip
            os.close(keys)
            os.close(terminal)
            assert done.returncode == code, done.stderr
            assert (clone / ".github/CODEOWNERS").read_text().endswith(f"\n* {line}\n")

    def test_is_all_or_nothing(self, clone: Path) -> None:
        """A file that cannot be written brings back those that were removed."""
        (clone / "backend/items").write_text("")  # where a folder would be
        commit(clone)
        done = bare(clone)
        assert done.returncode == 1, done.stderr
        assert git(clone, "status", "--porcelain") == ""


class TestParts:
    def test_every_part_is_in_one_list(self) -> None:
        """And the digests are those of the files."""
        done = run(ROOT, "parts")
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        ("kind", "name", "text"),
        [
            ("tables", "backend/migrations/versions/0003_x.py", 'op.execute("CREATE TABLE unheard_of (id int)")'),
            ("page", "docker/frontend/index.html", '<section aria-labelledby="unheard_of">'),
            (
                "requests",
                "pyproject.toml",
                '[[tool.slipway.requests]]\nname = "unheard_of"\nmethod = "GET"\npath = "/"',
            ),
            ("dashboards", "monitoring/dashboards/unheard_of.json", "{}"),
            ("tests", "tests/backend/test_unheard_of.py", ""),
        ],
    )
    def test_a_part_in_neither_list_is_refused(self, clone: Path, kind: str, name: str, text: str) -> None:
        """Whoever adds one says whose it is; in a service made from the template nobody has to."""
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.read_text() if path.exists() else ''}\n{text}\n")
        git(clone, "add", "--all")
        done = run(clone, "parts")
        assert done.returncode == 1
        assert re.search(rf"{PARTS} \[{kind}\]: `.*unheard_of.*` is in neither list", done.stderr), done.stderr
        project = clone / "pyproject.toml"
        project.write_text(project.read_text().replace("[tool.slipway]\n", '[tool.slipway]\ntemplate = "0123abc"\n'))
        assert run(clone, "parts").returncode == 0

    def test_a_part_that_is_gone_or_in_both_lists_is_refused(self, clone: Path) -> None:
        """A list that is older than the files would say nothing."""
        path = clone / PARTS
        path.write_text(
            path.read_text().replace('example = ["releases"]', 'example = ["releases", "idempotency_keys", "x"]')
        )
        said = run(clone, "parts").stderr
        assert f"{PARTS} [tables]: `idempotency_keys` is in both lists" in said
        assert f"{PARTS} [tables]: there is no `x`: take it out" in said

    def test_a_change_of_the_example_is_noted(self, clone: Path) -> None:
        """Otherwise every copy would be told that it has work of its own in it."""
        domain = clone / "backend/domain.py"
        domain.write_text(domain.read_text() + "\n")
        assert "bare/digests.txt does not have the files as they are" in run(clone, "parts").stderr
        assert run(clone, "parts", "--write").returncode == run(clone, "parts").returncode == 0
