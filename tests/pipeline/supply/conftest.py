"""A release in a real registry, by the real cosign and syft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.config.project import load_project
from pipeline.images.build import PushedImages
from pipeline.registry import repository as oci
from pipeline.supply import steps
from pipeline.supply.sbom import make_sboms
from tests.pipeline.supply.releases import PASSWORD, key_pair, make_tree, push_release
from tests.tools import need


@pytest.fixture
def needs_cosign() -> None:
    """Ends the test where there is no cosign."""
    need("cosign")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project in a git repository of its own."""
    return make_tree(tmp_path / "tree")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two key pairs: ours and another's."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        key_pair(folder, name)
    return folder


@pytest.fixture
def our_key(monkeypatch: pytest.MonkeyPatch, needs_cosign: None, keys: Path) -> Path:
    """The variables of whoever signs with our key, outside GitHub; the public half."""
    _ours(monkeypatch, keys)
    return keys / "ours.pub"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes to a test's registry."""
    monkeypatch.setattr(oci, "SETTLE_SECONDS", (0.01, 0.02))


@pytest.fixture(scope="session")
def release(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A pushed release with an old idna, and its SBOMs: made once, looked at by many."""
    root = make_tree(tmp_path_factory.mktemp("release") / "tree")
    images = push_release(f"{registry}/supply/release", root, "idna==3.6", "anyio==4.16.0")
    make_sboms(images.places, root / ".slipway/supply")
    return Release(root, images)


@pytest.fixture(scope="session")
def signed(release: Release, request: pytest.FixtureRequest) -> Release:
    """The same, as `sign` signed it with our key."""
    need("cosign")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _ours(monkeypatch, request.getfixturevalue("keys"))
        steps.sign(load_project(release.root), release.images.place("backend"))
    return release


@dataclass(frozen=True)
class Release:
    """A release and the working tree that it was built from."""

    root: Path
    images: PushedImages


def _ours(monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_WORKFLOW_REF", "ACTIONS_ID_TOKEN_REQUEST_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COSIGN_KEY", str(keys / "ours.key"))
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
