"""Whether PostgreSQL's folder is the one that was in use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.targets.local.data import data_majors, judge_data

LOCK = "asyncpg==0.31.0 \\\n    --hash=sha256:1\nembedded-postgres==19.1.0 \\\n    --hash=sha256:2\n"


class TestDataMajors:
    def test_are_those_of_the_folder_and_of_the_lock(self, tmp_path: Path) -> None:
        """Nothing is installed to know it."""
        (tmp_path / "engines.txt").write_text(LOCK)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "PG_VERSION").write_text("18\n")
        assert data_majors(tmp_path / "data", Path("/nonexistent"), tmp_path / "engines.txt") == ("18", "19")

    def test_are_none_where_nothing_is(self, tmp_path: Path) -> None:
        """No folder, no lock."""
        assert data_majors(tmp_path / "data", Path("/nonexistent"), tmp_path / "engines.txt") == (None, None)

    def test_keep_to_the_engine_that_runs(self, tmp_path: Path) -> None:
        """It stays until `down`, whatever the lock says by now: here the one that the tests have."""
        (tmp_path / "engines.txt").write_text(LOCK)
        assert data_majors(tmp_path, Path(sys.prefix), tmp_path / "engines.txt") == (None, "18")


class TestJudgeData:
    @pytest.mark.parametrize("expected", [True, False])
    def test_has_nothing_against_the_same_major(self, expected: bool) -> None:
        """Nor against a lock that has no engine: who makes its environment says that."""
        assert judge_data("local", Path("/data"), "18", "18", expected=expected) == []
        assert judge_data("local", Path("/data"), "18", None, expected=expected) == []

    @pytest.mark.parametrize("expected", [True, False])
    def test_refuses_another_major(self, expected: bool) -> None:
        """Both, the folder, and where the steps are."""
        [line] = judge_data("local", Path("/data"), "18", "19", expected=expected)
        assert line == (
            "the data in /data is of PostgreSQL 18, which PostgreSQL 19 cannot read: put requirements/engines.txt back,"
            " or move it as `nox -s upgrade-database -- local` says"
        )

    def test_refuses_an_empty_folder_where_something_was_proved(self) -> None:
        """It is no first deploy."""
        assert judge_data("local", Path("/data"), None, "18", expected=False) == []
        [line] = judge_data("local", Path("/data"), None, "18", expected=True)
        assert line == (
            "no database is in /data, although releases were proved on local before: put the folder back, or begin with"
            " an empty database: `nox -s deploy -- local --empty-database`"
        )
