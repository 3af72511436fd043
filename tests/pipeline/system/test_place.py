"""Where state is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.system.place import env_file, state_folder


class TestStateFolder:
    def test_is_in_the_project(self, tmp_path: Path) -> None:
        """`.env` is beside it, where everybody looks for it."""
        assert state_folder(tmp_path, {}) == state_folder(tmp_path, {"SLIPWAY_STATE": " "}) == tmp_path / ".slipway"
        assert env_file(tmp_path, {}) == tmp_path / ".env"

    def test_is_elsewhere_where_that_is_chosen(self, tmp_path: Path) -> None:
        """With `.env` in it, so that `git clean -ffdx` takes nothing; by its real path."""
        (tmp_path / "kept").mkdir()
        (tmp_path / "link").symlink_to("kept")
        chosen = {"SLIPWAY_STATE": str(tmp_path / "link")}
        assert state_folder(tmp_path / "clone", chosen) == tmp_path / "kept"
        assert env_file(tmp_path / "clone", chosen) == tmp_path / "kept/.env"

    def test_is_not_wherever_somebody_stands(self, tmp_path: Path) -> None:
        """A relative path would be another folder from another one."""
        with pytest.raises(UsageError, match="SLIPWAY_STATE: `state` is not an absolute path: for example"):
            state_folder(tmp_path, {"SLIPWAY_STATE": "state"})
