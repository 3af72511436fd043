"""`nox -s cluster`: one cluster for all projects of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.__main__ import parser
from pipeline.errors import LockHeld, UsageError
from pipeline.releases.lock import hold_lock
from pipeline.system.progress import Progress
from tests.project import PROJECT


@pytest.mark.parametrize("arguments", [["up"], ["up", "--monitoring"], ["down"], ["down", "--all"]])
def test_waits_for_no_other_project(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one makes or removes the cluster, another's run ends before it looks at what is half made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")  # neither kind nor Docker is asked
    options = parser("cluster").parse_args(["cluster", *arguments])
    with hold_lock(tmp_path / ".kube/kind-slipway.lock"), pytest.raises(LockHeld, match="holds the lock"):
        options.run(PROJECT, options, Progress(Console(quiet=True)))


def test_what_watches_goes_with_the_cluster() -> None:
    """There is no way to remove it alone, and no need: whoever asks for one is told."""
    options = parser("cluster").parse_args(["cluster", "down", "--monitoring"])
    with pytest.raises(UsageError, match="--monitoring goes with `up`"):
        options.run(PROJECT, options, Progress(Console(quiet=True)))
