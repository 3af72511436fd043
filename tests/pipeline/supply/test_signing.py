"""`sign` and `verify-image` with the real cosign, syft and registry: what holds, and each thing that does not."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.policy import Policy
from pipeline.config.project import load_project
from pipeline.errors import SlipwayError, UsageError
from pipeline.images.build import PushedImages, find_pushed
from pipeline.registry.image import resolve
from pipeline.registry.reference import PARTS
from pipeline.registry.repository import digest_of
from pipeline.supply import steps
from pipeline.supply.cosign import CYCLONEDX, PROVENANCE, Cosign, Signer
from pipeline.supply.provenance import provenance
from pipeline.supply.verify import verification_problems
from pipeline.system.git import read_source
from tests.pipeline.supply.conftest import Release
from tests.pipeline.supply.releases import attach_copy, push_release

pytestmark = pytest.mark.e2e
SOURCE = "https://github.com/owner/board"


@pytest.fixture
def repository(registry: str, request: pytest.FixtureRequest) -> str:
    """An empty repository of the real registry."""
    return f"{registry}/supply/{digest_of(request.node.nodeid.encode())[7:19]}"


def sign(root: Path, images: PushedImages) -> None:
    steps.sign(load_project(root), images.place("backend"))


def problems(images: PushedImages, key: Path, source: str | None = None) -> list[str]:
    return verification_problems(images, Policy(key=str(key), source=source))


class TestSigned:
    @pytest.mark.gate
    def test_a_signed_release_holds(self, our_key: Path, signed: Release) -> None:
        """All images by digest, without any of Sigstore's services; its provenance says whence it came."""
        for source in (None, SOURCE, f"{SOURCE}@{commit(signed.root)}"):
            assert problems(signed.images, our_key, source) == []
        assert str(our_key) in steps.verify(load_project(signed.root), signed.images.place("backend"), None)

    def test_the_sbom_names_what_is_in_the_image(self, our_key: Path, signed: Release) -> None:
        """What was attested is what syft found."""
        [bill] = Cosign("the release").attestations(Policy(key=str(our_key)), signed.images.place("migrate"), CYCLONEDX)
        assert [(one["name"], one["version"]) for one in bill["components"] if "purl" in one] == [
            ("anyio", "4.16.0"),
            ("idna", "3.6"),
        ]

    def test_so_does_an_index_with_an_sbom_for_each_platform(
        self, our_key: Path, tree: Path, repository: str, keys: Path
    ) -> None:
        """Signed by the digest that ships; what is in it differs by platform."""
        images = push_release(repository, tree, platforms=("amd64", "arm64"))
        bills = [f"{repository}@{one.digest}" for place in images.places for one in resolve(place).platforms]
        assert len(bills) == 8
        assert find_pushed(images.place("backend")) == images
        sign_parts(tree, images, keys, sboms=tuple(bills[1:]))
        [line] = problems(images, our_key)
        assert line.startswith(f"{bills[0]}: no")
        sign_parts(tree, images, keys, sboms=tuple(bills[:1]), attest=False)
        assert problems(images, our_key) == []


class TestRefused:
    def test_not_for_what_a_stranger_adds(self, our_key: Path, signed: Release, keys: Path) -> None:
        """Who may push could stop every deploy otherwise."""
        Cosign("the release").sign(Signer(str(keys / "other.key")), signed.images.places)
        assert problems(signed.images, our_key) == []

    def test_an_unsigned_image(self, our_key: Path, tree: Path, repository: str) -> None:
        """A line for each image, with the command that mends it."""
        images = push_release(repository, tree)
        place = images.place("backend")
        assert problems(images, our_key)[0] == f"{place}: not signed: `nox -s sign -- {place}` as the key of {our_key}"
        assert len(problems(images, our_key)) == 4
        assert problems(images, our_key)[2].startswith(
            f"{images.place('frontend')}: not signed: `nox -s sign -- {place}`"
        )

    @pytest.mark.gate
    def test_one_that_another_key_signed(self, our_key: Path, tree: Path, repository: str, keys: Path) -> None:
        """Not just anybody's signature."""
        images = push_release(repository, tree)
        Cosign("the release").sign(Signer(str(keys / "ours.key")), images.places)
        found = problems(images, keys / "other.pub")
        place = images.place("backend")
        assert f"{place}: signed by another key than the key of {keys}/other.pub" in found[0]

    def test_one_that_the_signature_of_another_was_copied_to(self, our_key: Path, signed: Release) -> None:
        """A signature is of a digest."""
        evil = push_release(signed.images.repository, signed.root, content="evil")
        for part in PARTS:
            attach_copy(evil.repository, getattr(signed.images, part), getattr(evil, part))
        found = problems(evil, our_key)
        assert len(found) == 4
        assert all("its signature is of another image and was copied" in line for line in found)

    def test_one_without_an_sbom(self, our_key: Path, tree: Path, repository: str, keys: Path) -> None:
        """The image that lacks it is named."""
        images = push_release(repository, tree)
        sign_parts(tree, images, keys, sboms=without(images, "frontend"))
        [line] = problems(images, our_key)
        assert line.startswith(f"{images.place('frontend')}: no SBOM by the key of {our_key}: `nox -s sign -- ")

    def test_one_without_a_provenance(self, our_key: Path, tree: Path, repository: str, keys: Path) -> None:
        """Nobody says where it was built."""
        images = push_release(repository, tree)
        sign_parts(tree, images, keys, sboms=images.places, attest=False)
        [line] = problems(images, our_key)
        assert line.startswith(f"{images.place('backend')}: no provenance by the key of {our_key}: `nox -s sign -- ")

    def test_one_with_an_attestation_and_no_signature(
        self, our_key: Path, tree: Path, repository: str, keys: Path
    ) -> None:
        """`cosign verify` takes one for the other."""
        images = push_release(repository, tree)
        sign_parts(tree, images, keys, sboms=images.places, signed=without(images, "frontend"))
        [line] = problems(images, our_key)
        assert line.startswith(f"{images.place('frontend')}: no signature by the key of {our_key}")

    @pytest.mark.parametrize(
        "source",
        [
            "https://github.com/owner/other",
            "https://github.com/owner/boar",
            "https://github.com/owner/board@refs/heads/main",
            f"https://github.com/owner/board@{'0' * 40}",
        ],
    )
    def test_one_from_another_source(self, our_key: Path, signed: Release, source: str) -> None:
        """Another repository, branch or commit than the policy's."""
        [line] = problems(signed.images, our_key, source)
        assert line == (
            f"{signed.images.place('backend')}: built from {SOURCE} ({commit(signed.root)})"
            f" and not from {source}: use an image that was"
        )

    def test_one_from_files_that_nobody_committed(self, our_key: Path, tree: Path, repository: str, keys: Path) -> None:
        """A source that is demanded must have what was built."""
        (tree / "backend/app.py").write_text("changed", encoding="utf-8")
        images = push_release(repository, tree)
        sign_parts(tree, images, keys, sboms=images.places)
        [line] = problems(images, our_key, SOURCE)
        assert "built from files that differ from their commit" in line
        assert problems(images, our_key) == []
        subprocess.run(["git", "-C", str(tree), "checkout", "--quiet", "."], check=True, timeout=30)
        sign_parts(tree, images, keys, sboms=(), signed=())
        assert problems(images, our_key, SOURCE) == [], "a job that is run again adds one, and any that holds will do"

    def test_a_signed_part_of_another_release(self, our_key: Path, signed: Release, tree: Path, keys: Path) -> None:
        """Each image is signed, and they were not built together: somebody moved a tag."""
        one, other = signed.images, push_release(signed.images.repository, tree, content="other")
        sign_parts(tree, other, keys, sboms=other.places[2:], signed=other.places[2:], attest=False)
        [line] = problems(replace(one, frontend=other.frontend), our_key)
        assert f"its provenance names another frontend image, {one.frontend}, than {other.frontend}" in line
        [line] = problems(replace(one, backup=None), our_key)
        assert f"its provenance names another backup image, {one.backup}, than none" in line

    def test_one_whose_key_is_not_here(self, our_key: Path, tree: Path, repository: str) -> None:
        """Nothing is asked without it."""
        images = push_release(repository, tree)
        assert "there is no" in problems(images, tree / "cosign.pub")[0]


class TestSigning:
    def test_takes_no_tag(self, our_key: Path, tree: Path, repository: str) -> None:
        """It could be another image a moment later."""
        images = push_release(repository, tree)
        tag = f"{repository}:{images.backend[7:19]}"
        with pytest.raises(UsageError, match="a tag can be moved: name the image by digest"):
            steps.sign(load_project(tree), tag)

    def test_vouches_for_nothing_that_was_built_elsewhere(self, our_key: Path, tree: Path, repository: str) -> None:
        """A provenance says whence an image came, and whoever signs must have seen that."""
        images = push_release(repository, tree)
        (tree / "backend/app.py").write_text("changed", encoding="utf-8")
        with pytest.raises(UsageError, match=r"built from .*, and this working tree is .*-dirty: sign it where it was"):
            sign(tree, images)

    def test_a_wrong_password_is_said(
        self, our_key: Path, signed: Release, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In one line, and without it."""
        monkeypatch.setenv("COSIGN_PASSWORD", "wrong")
        with pytest.raises(SlipwayError, match="COSIGN_PASSWORD is not the password of COSIGN_KEY"):
            Cosign("the release").sign(Signer(str(keys / "ours.key")), signed.images.places[:1])

    def test_the_signer_of_this_place_does_not_decide_who_must_have_signed(
        self, our_key: Path, signed: Release
    ) -> None:
        """Cosign takes its options from variables, too."""
        found = verification_problems(signed.images, Policy(identity=f"{SOURCE}/.github/workflows/cd.yml@main"))
        assert found
        assert not any("exactly one of" in line for line in found)


def without(images: PushedImages, part: str) -> tuple[str, ...]:
    return tuple(place for place in images.places if place != images.place(part))


def commit(root: Path) -> str:
    found = read_source(root).commit
    assert found
    return found


def sign_parts(
    root: Path,
    images: PushedImages,
    keys: Path,
    *,
    sboms: tuple[str, ...],
    signed: tuple[str, ...] | None = None,
    attest: bool = True,
) -> None:
    """What `sign` does, but for some of it."""
    signer, cosign = Signer(str(keys / "ours.key")), Cosign("the release")
    path = root.parent / "predicate.json"  # not in the tree, which it would make dirty
    for place in sboms:
        path.write_text('{"bomFormat": "CycloneDX"}', encoding="utf-8")
        cosign.attest(signer, place, CYCLONEDX, path)
    if attest:
        path.write_text(json.dumps(provenance(images, read_source(root), SOURCE, {})), encoding="utf-8")
        cosign.attest(signer, images.place("backend"), PROVENANCE, path)
    if signed != ():
        cosign.sign(signer, signed or images.places)
