"""The stage `check` under an environment's `verify`: what is asked, and of what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.policy import Policy
from pipeline.config.project import ComposeEnvironment, Project
from pipeline.deploy import story, verification
from pipeline.images.build import PushedImages
from pipeline.releases.model import Artifact
from pipeline.releases.records import write_json
from pipeline.system.git import Source
from pipeline.system.progress import Progress
from tests.pipeline.deploy.fake_target import FakeTarget

IMAGES = PushedImages("ghcr.io/owner/board", *(f"sha256:{digit * 64}" for digit in "123"))
POLICY = Policy(key="cosign.pub")
RELEASE = Artifact(IMAGES.backend, Source(None, dirty=False), None, ())


def objections(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    policy: Policy | None = POLICY,
    images: PushedImages | None = IMAGES,
    recorded: str | None = None,
) -> list[str]:
    """What `verify` has against the release, which is RECORDED with a verdict and asked for by its number."""
    env = ComposeEnvironment(name="staging", url="https://x", verify=policy)
    project = Project(root=folder, name="slipway", environments={}, requests=())
    target = FakeTarget(project, env, RELEASE)
    target.releases.images = images
    monkeypatch.setattr(verification, "verification_problems", lambda images, *_: [f"asked: {images.backend}"])
    if recorded:
        record = target.records().begin({"release": RELEASE.name})
        write_json(record.folder / "report.json", {"verdict": recorded})
    one = story.Story(project, env, Progress(), target=target)
    one._recorded = recorded is not None
    return [] if one._trusted(RELEASE) else verification.unverified(env, target.releases, RELEASE)


def test_asks_for_what_ships(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the environment's policy, and where it has none, nothing."""
    assert objections(monkeypatch, tmp_path) == [f"asked: {IMAGES.backend}"]
    assert objections(monkeypatch, tmp_path, policy=None) == []


def test_goes_back_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was proved here was verified when it came; a night's rollback waits for no registry."""
    assert objections(monkeypatch, tmp_path, recorded="proved") == []


def test_asks_again_for_what_it_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refused release is in the records, too: its number is no way round."""
    assert objections(monkeypatch, tmp_path, recorded="failed") == [f"asked: {IMAGES.backend}"]


def test_refuses_what_is_in_no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A build of this machine is signed by nobody."""
    [line] = objections(monkeypatch, tmp_path, images=None)
    assert line == (
        "release 111111111111… was built here and is not signed; staging requires a signature (`verify`):"
        " `nox -s push`, `nox -s sign`, then `--release REPOSITORY@sha256:…`"
    )
