"""What the plan says of a cluster that other services made."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config.project import KubernetesEnvironment
from pipeline.system.progress import Progress
from pipeline.targets.kubernetes import KubernetesTarget
from tests.project import NAME, PROJECT


def test_names_a_namespace_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked that needs it, with the command that makes it."""
    (tmp_path / "kubectl").write_text('#!/bin/sh\ncase "$*" in *"config view"*) echo "{}";; esac\n')  # nothing is found
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    env = PROJECT.environment("kind").model_copy(update={"namespace": NAME})
    assert isinstance(env, KubernetesEnvironment)
    target = KubernetesTarget(PROJECT, env, Progress(Console(quiet=True)))
    assert target.problems() == [f"the cluster has no namespace {NAME}: `nox -s cluster` makes it"]
