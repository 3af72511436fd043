"""Commands, as they are shown and run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.system.run import run


class TestRun:
    def test_shows_the_projects_paths_from_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What only looks like one stays: a longer path, an image with the folder's name, a path in a container."""
        monkeypatch.chdir(tmp_path)
        caplog.set_level(logging.INFO)
        kept = [f"/mnt{tmp_path}/x", f"localhost:5001{tmp_path}/backend:1", f"volume:{tmp_path}/x"]
        run(["true", f"{tmp_path}/bin/python", f"--file={tmp_path}/my file", *kept])
        assert caplog.messages == [f"$ true bin/python '--file=my file' {' '.join(kept)}"]
