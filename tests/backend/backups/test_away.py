"""Copies off the host: on a real S3, and by a real SFTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import asyncssh
import pytest

from backend.backups import store
from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST, Manifest
from backend.backups.shelf import Shelf
from tests.backend.backups import s3, sftp
from tests.backend.backups.between import FULL, SLOW, STALLS, between
from tests.backend.backups.conftest import Place

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", name="endpoint")
def _endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3.serving(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


@pytest.fixture(name="bucket")
def _bucket(endpoint: str, place: Place, request: pytest.FixtureRequest) -> s3.S3:
    """A folder of a bucket that is this test's alone."""
    found = s3.S3(endpoint, f"keeper/{abs(hash(request.node.nodeid))}")
    _rclone(found, "mkdir", f"s3:{s3.BUCKET}")
    return found


def _rclone(bucket: s3.S3, *arguments: str, given: str = "") -> list[str]:
    """Do something on S3 as a person would."""
    environ = {**os.environ, **bucket.rclone()}
    return subprocess.run(["rclone", "--config=", *arguments], env=environ, check=True, input=given,
                          capture_output=True, text=True, timeout=60).stdout.split()  # fmt: skip


def _names(bucket: s3.S3) -> set[str]:
    """The backups there, whole or not, by their files."""
    listed = _rclone(bucket, "lsf", "--recursive", "--files-only", f"s3:{s3.BUCKET}/{bucket.folder}")
    return {name.partition("/")[0] for name in listed}


def _shelf(place: Place, given: dict[str, str]) -> Shelf:
    return Shelf(place.own(**given), place.environ["PROJECT_NAME"], place.say)


async def _put(place: Place, given: dict[str, str]) -> tuple[Manifest, dict[str, object]]:
    """Make a backup, and copy it."""
    manifest = await place.back_up(given=given)
    return manifest, await _shelf(place, given).put(manifest)


class TestS3:
    async def test_has_the_whole_backup(self, place: Place, bucket: s3.S3) -> None:
        """Each file, byte by byte; it is listed as here and away."""
        given = bucket.environ()
        manifest, answer = await _put(place, given)
        assert "problem" not in answer
        root = f"s3:{s3.BUCKET}/{bucket.folder}/{manifest.name}"
        assert {*_rclone(bucket, "lsf", root)} == {MANIFEST, *(file.path for file in manifest.files)}
        _rclone(bucket, "check", "--download", str(place.folder / manifest.name), root)
        listed = await _shelf(place, given).everything()
        assert [(one["name"], one["here"], one["away"]) for one in listed["backups"]] == [(manifest.name, True, True)]

    async def test_brings_it_back_to_an_empty_machine(self, place: Place, bucket: s3.S3) -> None:
        """`fetch`, and whatever reads a backup that is only there; it is checked like any other."""
        given = {**bucket.environ(), **place.encrypted()}
        manifest, _ = await _put(place, given)
        store.remove(place.folder / manifest.name)
        path = await _shelf(place, given).find("newest")
        assert path == place.folder / manifest.name
        assert (await place.check(manifest.name, given=given)).manifest == manifest
        store.remove(path)
        assert (await _shelf(place, given).fetch(manifest.name))["here"]
        with pytest.raises(BackupFailed, match="no backup 20200101T000000Z-aaaaaa at s3://"):
            await _shelf(place, given).fetch("20200101T000000Z-aaaaaa")

    async def test_is_not_fetched_where_there_is_no_room(
        self, place: Place, bucket: s3.S3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing of it is brought here."""
        manifest, _ = await _put(place, bucket.environ())
        store.remove(place.folder / manifest.name)
        monkeypatch.setattr("backend.backups.store.free_bytes", lambda _: 1000)
        with pytest.raises(BackupFailed, match=rf"has 1\.0 kB free, and {manifest.name} has .*: make room"):
            await _shelf(place, bucket.environ()).fetch(manifest.name)
        assert [*place.folder.iterdir()] == []

    async def test_keeps_by_the_same_rule(self, place: Place, bucket: s3.S3) -> None:
        """The older one of the day leaves here and there, and another project's stays; so does what is not of ours."""
        given = bucket.environ()
        place.environ["PROJECT_NAME"] = "other"
        other, _ = await _put(place, given)
        place.environ["PROJECT_NAME"] = "keeper"
        first, _ = await _put(place, given)
        await asyncio.sleep(1.1)  # names have seconds
        second, answer = await _put(place, given)
        assert answer["removed"] == [first.name]
        left = {other.name, second.name}
        assert _names(bucket) == left
        assert {one.name for one in store.backups(place.folder)} == left

    async def test_what_was_not_copied_follows(self, place: Place, bucket: s3.S3) -> None:
        """A backup of a night without S3 is copied by the next one, where it stays."""
        nowhere = bucket.environ(endpoint="http://127.0.0.1:1")
        first, answer = await _put(place, nowhere)
        assert str(answer["problem"]).startswith(f"{first.name} is whole, and here alone: BACKUP_ADDRESS: s3://")
        yesterday = _older(place, first)
        await _put(place, bucket.environ())
        listed = await _shelf(place, bucket.environ()).everything()
        assert {one["name"]: one["away"] for one in listed["backups"]}[yesterday]

    async def test_half_a_copy_is_none_and_leaves(self, place: Place, bucket: s3.S3) -> None:
        """Files without a manifest are not listed; a day later they are removed."""
        given, old, new = (
            bucket.environ(),
            "20260101T000000Z-aaaaaa",
            f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-bbbbbb",
        )
        for name in (old, new):
            _rclone(bucket, "rcat", f"s3:{s3.BUCKET}/{bucket.folder}/{name}/toc.dat", given="half")
        assert (await _shelf(place, given).everything())["backups"] == []
        await _put(place, given)
        left = _names(bucket)
        assert old not in left
        assert new in left  # it may be on its way

    @pytest.mark.parametrize("fault", ["away", "hung", "wrong key", "no bucket"])
    async def test_a_fault_is_one_line_and_the_backup_here_stays(self, place: Place, bucket: s3.S3, fault: str) -> None:
        """Within a minute; nothing is removed, and the secret is in no line."""
        with socket.create_server(("127.0.0.1", 0)) as hung:
            given, said = {
                "away": (bucket.environ(endpoint="http://127.0.0.1:1"), "connection refused"),
                "hung": (bucket.environ(endpoint=f"http://127.0.0.1:{hung.getsockname()[1]}"), "s3://"),
                "wrong key": (
                    bucket.environ(secret="another-secret-of-tests"),
                    "403, Forbidden: Forbidden (look at BACKUP_ADDRESS_SECRET",
                ),
                "no bucket": (bucket.environ(bucket="nobody-made-it"), ": 40"),
            }[fault]
            began = time.monotonic()
            manifest, answer = await _put(place, given)
            assert time.monotonic() - began < 150
        problem = str(answer["problem"])
        assert problem.startswith(f"{manifest.name} is whole, and here alone: BACKUP_ADDRESS: s3://")
        assert said in problem
        assert "\n" not in problem
        assert not any(given["BACKUP_ADDRESS_SECRET"].partition(":")[2] in line for line in [problem, *place.said])
        assert answer["removed"] == []
        assert (await place.check(manifest.name)).manifest == manifest
        listed = await _shelf(place, given).everything()
        assert [one["here"] for one in listed["backups"]] == [True]
        assert ("problem" in listed) == (fault != "no bucket")

    @pytest.mark.parametrize(("fault", "said"), [(STALLS, "timeout"), (FULL, "507, XMinioStorageFull")])
    async def test_a_fault_in_the_middle_leaves_no_backup_there(
        self, place: Place, bucket: s3.S3, fault: str, said: str
    ) -> None:
        """1, with one line; what came through is not listed, and once the fault is over the copy follows."""
        async with between(bucket.endpoint, fault) as endpoint:
            given = bucket.environ(endpoint=endpoint)
            program = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "backend.backups", "backup", env={**os.environ, **place.environ, **given},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            printed, _ = await program.communicate()
        answer = json.loads(printed.splitlines()[-1])
        assert program.returncode == 1
        name, problem = answer["backup"]["name"], answer["problem"]
        assert problem.startswith(f"{name} is whole, and here alone: BACKUP_ADDRESS: s3://")
        assert said in problem
        assert "\n" not in problem
        assert _names(bucket) == ({name} if fault == STALLS else set())
        assert await _shelf(place, bucket.environ()).away() == {}
        await _put(place, bucket.environ())
        assert len(await _shelf(place, bucket.environ()).away()) == 1

    async def test_a_slow_one_is_no_fault(self, place: Place, bucket: s3.S3) -> None:
        """20 kB a second: it takes its time, and is whole."""
        async with between(bucket.endpoint, SLOW) as endpoint:
            manifest, answer = await _put(place, bucket.environ(endpoint=endpoint))
        assert "problem" not in answer
        assert {*await _shelf(place, bucket.environ()).away()} == {manifest.name}

    async def test_what_was_changed_there_is_found(self, place: Place, bucket: s3.S3) -> None:
        """By the checksums of the manifest, once it is brought back."""
        given = bucket.environ()
        manifest, _ = await _put(place, given)
        _rclone(bucket, "rcat", f"s3:{s3.BUCKET}/{bucket.folder}/{manifest.name}/toc.dat", given="x" * 99)
        store.remove(place.folder / manifest.name)
        await _shelf(place, given).fetch(manifest.name)
        with pytest.raises(BackupFailed, match=r"toc\.dat is truncated"):
            await place.check(manifest.name)


def _older(place: Place, manifest: Manifest) -> str:
    """Make a backup one of the day before; return its new name."""
    name = f"20261127T160000Z-{manifest.name[-6:]}"
    path = place.folder / manifest.name
    (path / MANIFEST).write_text((path / MANIFEST).read_text().replace(manifest.name, name))
    path.rename(place.folder / name)
    return name


class TestSFTP:
    @pytest.mark.parametrize("way", ["password", "key"])
    async def test_there_and_back(self, place: Place, tmp_path: Path, way: str) -> None:
        """By password and by private key; each file is the same there, and read again."""
        folder = tmp_path / "there"
        folder.mkdir()
        async with sftp.serving(folder) as server:
            given = server.environ() if way == "password" else server.environ(secret=server.private_key)
            manifest, answer = await _put(place, given)
            assert "problem" not in answer, answer
            copied = folder / "some/folder" / manifest.name
            for path in (place.folder / manifest.name).iterdir():
                assert (copied / path.name).read_bytes() == path.read_bytes()
            store.remove(place.folder / manifest.name)
            await _shelf(place, given).fetch(manifest.name)
            assert (await place.check(manifest.name)).manifest == manifest
            await asyncio.sleep(1.1)
            _, answer = await _put(place, given)
            assert answer["removed"] == [manifest.name]
            assert not copied.exists()

    FAULTS: ClassVar[dict[str, tuple[Callable[[sftp.SFTP], dict[str, str]], str]]] = {
        "wrong password": (lambda server: server.environ(secret="another-password"), "unable to authenticate"),
        "another host": (
            lambda server: server.environ(host_key=sftp.public(asyncssh.generate_private_key("ssh-ed25519"))),
            "knownhosts: key mismatch",
        ),
    }

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_a_fault_is_one_line(self, place: Place, tmp_path: Path, fault: str) -> None:
        """A wrong password, and a server that is not the one whose key was given."""
        async with sftp.serving(tmp_path) as server:
            change, said = self.FAULTS[fault]
            manifest, answer = await _put(place, change(server))
        assert said in str(answer["problem"])
        assert "another-password" not in str(answer["problem"])
        assert (await place.check(manifest.name)).manifest == manifest
