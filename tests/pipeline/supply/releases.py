"""Releases for tests: small images that syft can read, with the labels of a build, pushed as `nox -s push` does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.images.build import PushedImages, built_from, short_digest
from pipeline.registry.reference import PARTS
from pipeline.registry.repository import ARTIFACT, INDEXES, Repository, digest_of, written

__all__ = ["PASSWORD", "attach_copy", "key_pair", "make_tree", "push_release"]

PASSWORD = "of the test's key"


def make_tree(root: Path) -> Path:
    """A project of its own in a git repository at ROOT."""
    (root / "backend").mkdir(parents=True)
    (root / "backend/app.py").write_text("", encoding="utf-8")
    (root / "pyproject.toml").write_text(
        '[project]\nname = "board"\n\n[tool.slipway.environments.local]\ntarget = "local"\nurl = "http://localhost:8080"\n',
        encoding="utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for command in (
        ["init", "--quiet", "--initial-branch=main"],
        ["remote", "add", "origin", "git@github.com:owner/board.git"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message=it"],
    ):
        subprocess.run(["git", *command], cwd=root, env=environment, check=True, timeout=30)
    return root


def push_release(
    repository: str,
    root: Path,
    *packages: str,
    platforms: tuple[str, ...] = (),
    content: str = "",
    parts: tuple[str, ...] = PARTS,
) -> PushedImages:
    """Push the images of a release that was built from ROOT, each with Python PACKAGES (`name==1.0`) in it; an index of
    them where there are PLATFORMS. Another CONTENT is another release.
    """
    labels = {"org.opencontainers.image.revision": built_from(root), "slipway.schema": "0001"}
    with Repository(repository, write=True) as opened:
        pushed: dict[str, str] = {}
        for part in parts:
            made = [
                _image(opened, f"{part}{content}{platform}", labels, packages, platform)
                for platform in platforms or ("amd64",)
            ]
            body, kind = (_index(made, platforms), INDEXES[0]) if platforms else (made[0], ARTIFACT)
            for one in made:
                opened.put_manifest(digest_of(one), one, ARTIFACT)
            short = short_digest(pushed.get("backend", digest_of(body)))
            opened.put_manifest(short if part == "backend" else f"{part}-{short}", body, kind)
            pushed[part] = digest_of(body)
    return PushedImages(repository, **pushed)


def _image(
    repository: Repository, content: str, labels: Mapping[str, str], packages: tuple[str, ...], platform: str
) -> bytes:
    layer = _layer(content, packages)
    config = written(
        {
            "os": "linux",
            "architecture": platform,
            "config": {"Labels": dict(labels)},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    )
    described = repository.put_blob(config), repository.put_blob(layer)
    return written(
        {
            "schemaVersion": 2,
            "mediaType": ARTIFACT,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described[0]},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **described[1]}],
        }
    )


def _layer(content: str, packages: tuple[str, ...]) -> bytes:
    files = {"app/name": content}
    for package in packages:
        name, _, version = package.partition("==")
        place = f"venv/lib/python3.13/site-packages/{name}-{version}.dist-info"
        files[f"{place}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[f"{place}/RECORD"] = ""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def _index(made: list[bytes], platforms: tuple[str, ...]) -> bytes:
    entries = [
        {
            "mediaType": ARTIFACT,
            "digest": digest_of(one),
            "size": len(one),
            "platform": {"os": "linux", "architecture": platform},
        }
        for one, platform in zip(made, platforms, strict=True)
    ]
    return written({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": entries})


def key_pair(folder: Path, name: str) -> Path:
    """A key pair of cosign, NAME.key and NAME.pub in FOLDER; the private one."""
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD}
    command = ["cosign", "generate-key-pair", "--output-key-prefix", name]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    return folder / f"{name}.key"


def attach_copy(repository: str, of: str, to: str) -> None:
    """Attach all that is signed OF a digest TO another one."""
    with Repository(repository, write=True) as opened:
        subject = opened.manifest(to)
        for one in opened.referrers(of, "application/vnd.dev.sigstore.bundle.v0.3+json"):
            copy: dict[str, Any] = json.loads(json.dumps(opened.manifest(one["digest"]).content))
            copy["subject"] = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
            opened.attach(copy)
