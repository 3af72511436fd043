"""An environment's `backups = { … }`: read strictly, as what it says is kept or thrown away by it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.backup_policy import BackupPolicy
from pipeline.config.project import LocalEnvironment
from pipeline.config.tables import read_table

WHERE = "pyproject.toml [tool.slipway.environments.here]"


def read(table: Any) -> tuple[LocalEnvironment | None, list[str]]:
    """Return the environment whose table has this for `backups`, and what is wrong with it."""
    problems: list[str] = []
    return read_table(
        LocalEnvironment, {"url": "http://localhost", "backups": table}, WHERE, problems, name="here"
    ), problems


class TestBackupPolicy:
    @pytest.mark.parametrize("keep", ["7d 4w", "1d", "52w", "30d"])
    @pytest.mark.parametrize(("max_age", "seconds"), [("24h", 86400), ("2d", 172800), ("1h", 3600)])
    def test_is_days_and_weeks_and_an_age(self, keep: str, max_age: str, seconds: int) -> None:
        """The age may be given in hours or in days."""
        env, problems = read({"keep": keep, "max_age": max_age})
        assert problems == []
        assert env
        assert env.kept == BackupPolicy(keep=keep, max_age=max_age)
        assert env.kept.seconds == seconds

    def test_has_defaults_for_each_environment(self) -> None:
        """One that says nothing keeps its backups by the same rule."""
        env, _ = read({})
        assert env
        assert env.kept == BackupPolicy(keep="7d 4w", max_age="24h")
        assert LocalEnvironment(name="here", url="http://localhost").kept == env.kept
        assert LocalEnvironment(name="here", url="http://localhost").backups is None

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            ({"keep": "0d"}, 'backups: keep: must be days and weeks; for example `keep = "7d 4w"`'),
            ({"keep": "7d4w"}, 'backups: keep: must be days and weeks; for example `keep = "7d 4w"`'),
            ({"keep": "4w 7d"}, 'backups: keep: must be days and weeks; for example `keep = "7d 4w"`'),
            ({"keep": "7d 12m"}, 'backups: keep: must be days and weeks; for example `keep = "7d 4w"`'),
            ({"keep": 7}, "backups: keep: must be text"),
            ({"max_age": "24"}, 'backups: max_age: must be hours or days; for example `max_age = "24h"`'),
            ({"max_age": "0h"}, 'backups: max_age: must be hours or days; for example `max_age = "24h"`'),
            ({"max_age": "1w"}, 'backups: max_age: must be hours or days; for example `max_age = "24h"`'),
            ({"age": "1h"}, "backups: unknown key `age`"),
            ("7d", "backups: must be a table"),
        ],
    )
    def test_is_refused_where_it_is_anything_else(self, table: Any, problem: str) -> None:
        """With the key, and an example."""
        env, problems = read(table)
        assert env is None
        assert len(problems) == 1
        assert problems[0].startswith(f"{WHERE}: {problem}")
