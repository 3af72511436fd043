"""What is wrong with a backup is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pyrage import x25519

from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST
from tests.backend.backups.conftest import REVISIONS, Place

Change = Callable[[Path], object]


def _manifest(**changed: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return change


def _data(folder: Path) -> Path:
    """The largest file of a backup's rows."""
    return max(folder.glob("*.dat.*"), key=lambda path: path.stat().st_size)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(folder: Path) -> None:
    _data(folder).write_bytes(_data(folder).read_bytes()[:-1])


def _lengthen(folder: Path) -> None:
    _data(folder).write_bytes(_data(folder).read_bytes() + b"x")


FAULTS: dict[str, tuple[Change, str]] = {
    "truncated": (_cut, r"\.dat\.\S+ is truncated \(\d+ bytes of"),
    "longer": (_lengthen, "is too long"),
    "changed": (lambda folder: _flip(_data(folder)), "was changed: its checksum is another"),
    "a file is gone": (lambda folder: _data(folder).unlink(), "is missing"),
    "a file is new": (lambda folder: (folder / "more").touch(), "more is not in its manifest.json: it was tamp"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "has no manifest.json: it is no whole backup"),
    "half a manifest": (lambda folder: (folder / MANIFEST).write_text('{"schema": 1'), "cannot be read"),
    "a newer format": (_manifest(schema=2), r"schema: Input should be 1.*a newer release made it"),
    "of another name": (_manifest(name="20200101T000000Z-abcdef"), "was moved or tampered with"),
    "leads elsewhere": (_manifest(files=[{"path": "../x", "bytes": 1, "sha256": "0" * 64}]), "cannot be read"),
    "lists nothing": (_manifest(files=[]), "is not in its manifest.json"),
}  # fmt: skip


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    async def test_is_named(self, place: Place, fault: str) -> None:
        """By its file, with what to do."""
        manifest = await place.back_up()
        change, said = FAULTS[fault]
        change(place.folder / manifest.name)
        with pytest.raises(BackupFailed, match=said):
            await place.check(manifest.name)

    async def test_a_foreign_project_needs_a_word(self, place: Place) -> None:
        """It is refused by its name, and taken where that is said."""
        place.environ["PROJECT_NAME"] = "somebody-else"
        manifest = await place.back_up()
        place.environ["PROJECT_NAME"] = "keeper"
        with pytest.raises(
            BackupFailed, match="is of project somebody-else, not of keeper: if that one is meant, say so"
        ):
            await place.check(manifest.name)
        assert (await place.check(manifest.name, project="somebody-else")).manifest == manifest
        with pytest.raises(BackupFailed, match="is of project somebody-else, not of a-third"):
            await place.check(manifest.name, project="a-third")


class TestSchema:
    @pytest.mark.parametrize(
        ("revision", "schema"), [(REVISIONS[-1], "same"), (REVISIONS[0], "older"), ("9999", "newer"), (None, "none")]
    )
    async def test_is_said(self, place: Place, revision: str | None, schema: str) -> None:
        """How it stands to this release."""
        manifest = await place.back_up()
        _manifest(revision=revision)(place.folder / manifest.name)
        assert (await place.check(manifest.name)).schema == schema
        assert str(revision) in place.said[-1] or schema == "none"


class TestKeys:
    async def test_the_right_one_opens_it(self, place: Place) -> None:
        """What is inside can be read."""
        manifest = await place.back_up(given=place.encrypted())
        assert (await place.check(manifest.name, given=place.encrypted())).identity is not None

    async def test_a_missing_one_is_named_with_whose_it_is(self, place: Place) -> None:
        """Checksums alone are looked at without it; who wants to restore needs it."""
        manifest = await place.back_up(given=place.encrypted())
        await place.check(manifest.name, needs_key=False)
        assert "BACKUP_IDENTITY is not set: the checksums are right, and nobody has looked inside" in place.said
        with pytest.raises(BackupFailed, match=f"encrypted for {place.identity.to_public()}: give the secret key"):
            await place.check(manifest.name)

    async def test_of_somebody_else_is_named(self, place: Place) -> None:
        """With whose it is, and whose it should be."""
        manifest = await place.back_up(given=place.encrypted())
        other = x25519.Identity.generate()
        with pytest.raises(BackupFailed, match=f"is the key of {other.to_public()}: give the right one"):
            await place.check(manifest.name, given={"BACKUP_IDENTITY": str(other)})

    async def test_encrypted_for_another_than_it_says(self, place: Place) -> None:
        """The manifest names a key that does not open it."""
        manifest = await place.back_up(given=place.encrypted())
        other = x25519.Identity.generate()
        _manifest(encrypted=[str(other.to_public())])(place.folder / manifest.name)
        with pytest.raises(BackupFailed, match=r"toc\.dat\.age cannot be decrypted: no matching keys"):
            await place.check(manifest.name, given={"BACKUP_IDENTITY": str(other)})
