"""`python -m backend.backups`: its verbs, its exit codes and what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.backups import __main__ as program
from tests.backend.backups.conftest import ALL_ROWS, Place
from tests.project import NAME

pytestmark = pytest.mark.usefixtures("turn")


def _run(place: Place, *arguments: str, given: str | None = None, **changed: str) -> tuple[int, Any, list[str]]:
    """Run it; return its exit code, the JSON of its last line, and the lines of its standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "backend.backups", *arguments], env={**os.environ, **place.environ, **changed},
        input=given or "", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else None, done.stderr.splitlines()


class TestVerbs:
    def test_from_a_backup_to_a_swap_and_back(self, place: Place) -> None:
        """Each answers with one JSON object on its last line, and 0."""
        code, answer, _ = _run(place, "backup", **place.encrypted())
        assert (code, answer["removed"], answer["backup"]["here"]) == (0, [], True)
        name, new = answer["backup"]["name"], f"{place.database}-new"
        assert "files" not in answer["backup"]
        assert [one["name"] for one in _run(place, "list")[1]["backups"]] == [name]
        verified = _run(place, "verify", name)[1]["verified"]
        assert (verified["name"], verified["schema"], verified["project"]) == (name, "same", "keeper")
        restored = _run(place, "restore", "newest", "--into", new, **place.encrypted())[1]["restored"]
        assert (restored["database"], restored["rows"], restored["migrated"]) == (new, ALL_ROWS, [])
        assert _run(place, "compare", new)[1]["compared"]["lost"] == 0
        swapped = _run(place, "swap", place.database, new, REDIS_HOST="/nowhere")[1]["swapped"]
        assert (swapped["database"], swapped["caches"], swapped["sessions"]) == (place.database, None, 1)
        assert _run(place, "drop", swapped["before"])[1] == {"dropped": swapped["before"]}
        assert _run(place, "prune")[1] == {"removed": [], "kept": [name]}

    def test_what_is_wrong_is_the_last_line_and_1(self, place: Place) -> None:
        """Without a JSON object, and without a traceback."""
        for verb in (("verify", "newest"), ("verify", "20260101T000000Z-aaaaaa"), ("fetch", "newest")):
            code, answer, said = _run(place, *verb)
            assert (code, answer, len(said)) == (1, None, 1)

    def test_a_problem_of_the_list_is_in_it_and_1(self, place: Place, tmp_path: Path) -> None:
        """A server that is newer than pg_dump is known before the night."""
        old = tmp_path / "pg_dump"
        old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.3'\n")
        old.chmod(0o755)
        code, answer, _ = _run(place, "list", PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert (code, answer["backups"]) == (1, [])
        assert answer["problem"].startswith("the server is PostgreSQL 18, pg_dump is 12.3")

    def test_a_database_that_is_away(self, place: Place) -> None:
        """One line; what is there can be listed without it."""
        code, answer, said = _run(place, "backup", POSTGRES_HOST="/nowhere")
        assert (code, answer) == (1, None)
        assert said[-1].startswith("the database: ")
        assert _run(place, "list", POSTGRES_HOST="/nowhere")[:2] == (0, {"backups": [], "others": []})

    @pytest.mark.parametrize("given", ["[]", "{", '{"project": 1}', '{"other": ""}'])
    def test_bad_input_is_2(self, place: Place, given: str) -> None:
        """It says what may come."""
        code, answer, said = _run(place, "verify", "newest", given=given)
        assert (code, answer) == (2, None)
        assert said == ['standard input: must be one JSON object, {"project": NAME} or {}']

    def test_of_another_project_with_a_word(self, place: Place) -> None:
        """Standard input says that it is meant."""
        name = _run(place, "backup", PROJECT_NAME="another")[1]["backup"]["name"]
        code, _, said = _run(place, "verify", name)
        assert (code, f"{name} is of project another, not of keeper" in said[-1]) == (1, True)
        assert _run(place, "list")[:2] == (0, {"backups": [], "others": ["another"]})
        assert _run(place, "verify", "newest", given='{"project": "another"}')[1]["verified"]["name"] == name

    def test_bad_settings_are_2_with_a_line_each(self, place: Place) -> None:
        """And never their values."""
        code, _, said = _run(place, "list", BACKUP_KEEP="1y", BACKUP_IDENTITY="a-secret", POSTGRES_PORT="x")
        assert code == 2
        assert sorted(line.partition(":")[0] for line in said) == ["POSTGRES_PORT"] or len(said) == 3
        assert "a-secret" not in "".join(said)


def test_help_is_the_protocol() -> None:
    """Each verb of the program is in the docstring that others read."""
    from backend.backups import __main__ as program

    assert program.__doc__ is not None
    for verb in ("backup", "list", "fetch", "verify", "prune", "restore", "compare", "swap", "drop", "drill"):
        assert f"\n    {verb}" in program.__doc__
    assert NAME


class TestTermination:
    def test_a_backup_leaves_its_time_and_size_in_the_status_of_its_pod(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Where Kubernetes gives each container a file for that; another verb leaves nothing."""
        file = tmp_path / "termination-log"
        file.touch()
        monkeypatch.setattr(program, "TERMINATION", file)
        for name, value in place.environ.items():
            monkeypatch.setenv(name, value)
        assert program.main(["list"]) == 0
        assert file.read_text() == ""
        assert program.main(["backup"]) == 0
        made = json.loads(capsys.readouterr().out.splitlines()[-1])["backup"]
        assert json.loads(file.read_text()) == {"backup": {"snapshot": made["snapshot"], "bytes": made["bytes"]}}
