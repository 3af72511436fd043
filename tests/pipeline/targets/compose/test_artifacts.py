"""The images of a project on this machine, and which of them `down --volumes` removes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.engines.docker import Docker
from pipeline.releases.records import write_json
from pipeline.targets.compose.artifacts import Artifacts
from tests.project import PROJECT

PUSHED = f"sha256:{'a' * 64}"
PULLED = f"ghcr.io/o/shop@{PUSHED}"


def test_removes_every_name_of_the_project_and_what_it_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built by a deploy or by hand; a release of a registry by its digest, its migrations by the tag beside it."""
    for number, release in enumerate((PUSHED, f"{PUSHED}+12345678", "sha256:built")):
        folder = tmp_path / f"artifacts/{number}"
        folder.mkdir(parents=True)
        write_json(folder / "release.json", {"name": release, "images": {"backend": "sha256:built", "migrate": "m"}})
    (tmp_path / "artifacts/killed").mkdir()
    (tmp_path / "artifacts/killed/release.json").touch()
    image = json.dumps([{"RepoDigests": [PULLED, f"mirror.example.org/shop@sha256:{'b' * 64}"]}])
    (tmp_path / "docker").write_text(
        f"""#!/bin/sh
        case "$*" in
        "images "*) for tag in 1 dev; do echo "$4:$tag"; done ;;
        "image inspect"*) echo '{image}' ;;
        "rmi "*) echo "$3" >>{tmp_path}/removed ;;
        esac
        """
    )
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    Artifacts(PROJECT, tmp_path / "artifacts", Docker(tmp_path), "shop").forget_images()
    own = [f"shop-{part}:{tag}" for part in ("backend", "migrate", "frontend", "backup") for tag in (1, "dev")]
    beside = [f"ghcr.io/o/shop:{part}-{'a' * 12}" for part in ("backup", "migrate")]
    assert (tmp_path / "removed").read_text().split() == [*own, *beside, PULLED]
