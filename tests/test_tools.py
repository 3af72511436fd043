"""What is missing skips a test on a laptop, and fails it where green has to mean that it ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import need

FAILED = pytest.fail.Exception
SKIPPED = pytest.skip.Exception


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without programs, and a laptop."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CI", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["docker", "docker compose", "cosign", "chromium"])
def test_what_is_missing_fails_in_ci_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names it."""
    with pytest.raises(SKIPPED, match=name.partition(" ")[0]):
        need(name)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(FAILED, match=name.partition(" ")[0]):
        need(name)


def test_an_engine_may_be_missing_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI, too, as `.ci/run` does it; and no other tool is missing for that."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(SKIPPED):
        need("docker")
    with pytest.raises(FAILED):
        need("cosign")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/podman.sock")
    with pytest.raises(FAILED):
        need("docker")


def test_one_of_several_will_do(tmp_path: Path) -> None:
    """The first that is there."""
    for name in ("chromium", "google-chrome"):
        (tmp_path / name).touch(mode=0o755)
    assert need("firefox", "chromium", "google-chrome") == str(tmp_path / "chromium")
