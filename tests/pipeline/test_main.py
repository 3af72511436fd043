"""The command line: exit codes, one line for each mistake, streams apart."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.__main__ import FAMILIES
from pipeline.commands import Parser, Verbs

ROOT = Path(__file__).parents[2]
TABLE = '[project]\nname = "shop"\n[tool.slipway.environments.local]\ntarget = "local"\nurl = "http://localhost:{EDGE_PORT}"\n'


def pipeline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in FOLDER, which has a pyproject.toml and the service's settings, and nothing deployed."""
    if not (folder / "pyproject.toml").exists():
        (folder / "pyproject.toml").write_text(TABLE)
        (folder / "backend").symlink_to(ROOT / "backend")
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}", "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


class TestFamilies:
    def test_are_the_files_of_commands(self) -> None:
        """A file that is not listed would add its verbs to nothing."""
        files = {path.stem for path in (ROOT / "pipeline/commands").glob("[!_]*.py")}
        assert set(FAMILIES) == files

    @pytest.mark.parametrize("family", FAMILIES)
    def test_list_the_verbs_that_their_file_has(self, family: str) -> None:
        """A verb that is not listed would be known only where every file is read."""
        verbs = Verbs(Parser())
        import_module(f"pipeline.commands.{family}").add_parsers(verbs)
        assert tuple(verbs._parsers.choices) == FAMILIES[family]


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["deploi"], "invalid choice: 'deploi'"),
            (["deploy", "--dry"], "unknown argument `--dry`: `nox -l`"),
            (["deploy", "--release"], "expected one argument"),
            (["deploy", "prod"], "unknown environment `prod`: there is `local`"),
            (["rollback"], "none to go back to: `nox -s deploy` first"),
            (["rollback", "--release", "7"], "no release `7` is recorded"),
        ],
    )
    def test_gets_one_line_and_code_2(self, tmp_path: Path, arguments: list[str], message: str) -> None:
        """Bad usage names the thing and the fix, without a traceback, and leaves nothing behind."""
        done = pipeline(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("✗ ")
        assert message in line
        assert not (tmp_path / ".slipway").exists()

    def test_names_a_folder_without_a_project(self, tmp_path: Path) -> None:
        """Started in the wrong folder, it says so."""
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/pyproject.toml").write_text("")
        done = pipeline(tmp_path / "elsewhere", "status")
        assert done.returncode == 2
        assert "no [tool.slipway.environments.NAME] table" in done.stderr


class TestJson:
    def test_is_all_there_is_on_standard_output(self, tmp_path: Path) -> None:
        """Before the first deploy, too, `--json` prints one document."""
        status = json.loads(pipeline(tmp_path, "status", "--json").stdout)
        assert (status["environment"], status["release"], status["replicas"]) == ("local", None, [])
        assert json.loads(pipeline(tmp_path, "releases", "--json").stdout) == []


class TestInit:
    def test_writes_env_once(self, tmp_path: Path) -> None:
        """The second time there is nothing to add, and nothing is changed."""
        assert pipeline(tmp_path, "init").returncode == 0
        first = (tmp_path / ".env").read_text()
        again = pipeline(tmp_path, "init")
        assert "nothing was changed" in again.stderr
        assert (tmp_path / ".env").read_text() == first


class TestSettings:
    def test_refuses_what_is_stale_and_writes_it(self, tmp_path: Path) -> None:
        """A file that does not agree with the schema is named; `--write` mends it."""
        stale = pipeline(tmp_path, "settings")
        assert stale.returncode == 1
        assert ".env.example does not agree" in stale.stderr
        assert pipeline(tmp_path, "settings", "--write").returncode == 0
        assert pipeline(tmp_path, "settings").returncode == 0


FINALIZER = """
import os, signal, time
from pipeline.__main__ import watch_signals
from pipeline.errors import Interrupted

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

watch_signals()
try:
    Finalized()
    time.sleep(30)
except Interrupted as error:
    print(error)
"""


class TestSignals:
    def test_one_that_comes_while_a_finalizer_runs_is_not_lost(self) -> None:
        """Python ignores what a finalizer raises, and with it the interrupt of whoever pressed Ctrl-C."""
        done = subprocess.run(
            [sys.executable, "-c", FINALIZER], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "stopped by SIGINT\n", "")


class TestBrokenSettings:
    def test_get_a_line_and_no_traceback(self, tmp_path: Path) -> None:
        """A working tree whose settings cannot be imported is told so."""
        (tmp_path / "pyproject.toml").write_text(TABLE)
        (tmp_path / "backend").mkdir()
        (tmp_path / "backend/__init__.py").write_text("")
        (tmp_path / "backend/settings.py").write_text("import nonsense_that_is_not_there\n")
        command = [
            sys.executable,
            "-c",
            f"import sys; sys.path.append({str(ROOT)!r}); from pipeline.__main__ import main; sys.exit(main())",
        ]
        done = subprocess.run([*command, "status"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "backend/settings.py cannot be imported: ModuleNotFoundError" in done.stderr
        assert "Traceback" not in done.stderr
