"""Encryption of a backup's files, each for itself, with age: by streaming, so that memory stays flat."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyrage
from pyrage import x25519

from backend.backups.errors import BackupFailed
from backend.backups.manifest import StoredFile

__all__ = ["ENCRYPTED", "Unnamed", "decrypt", "encrypt", "hashed", "identity_for"]

ENCRYPTED = ".age"
CHUNK_BYTES = 1 << 20
LOOK_SECONDS = 0.02
SPARE_DESCRIPTORS = 100


class Unnamed:
    """The files that a program writes into `folder`, each without a name from its first moment on.

    So what is not encrypted yet is gone with the processes that have it open, whatever ends them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, io.BufferedReader] = {}
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS

    async def watch(self) -> None:
        """Take the names away until this is cancelled."""
        while True:
            self.take()
            await asyncio.sleep(LOOK_SECONDS)

    def take(self) -> None:
        """Take the names away of the files that are there. Of thousands, as many keep theirs as cannot be open."""
        with contextlib.suppress(FileNotFoundError):  # the folder is not there yet
            for entry in os.scandir(self._folder):
                if entry.name not in self.files and len(self.files) < self._most:
                    self._take(Path(entry.path))

    def _take(self, path: Path) -> None:
        if path.name in self.files:
            raise BackupFailed(
                f"pg_dump wrote {path.name} twice, which none is known to do: tell whoever keeps Slipway"
            )
        self.files[path.name] = path.open("rb")
        path.unlink()

    def written(self) -> int:
        """Return how much has been written so far."""
        return sum(os.fstat(file.fileno()).st_size for file in self.files.values())

    def open(self) -> dict[str, io.BufferedReader]:
        """Return each file, open, by the name it had."""
        for path in [*self._folder.iterdir()]:
            self._take(path)
        return dict(sorted(self.files.items()))

    def close(self) -> None:
        """Let go of all of them."""
        for file in self.files.values():
            file.close()


class _Hashing(io.BufferedIOBase):
    """A file for writing that knows the checksum and the size of what was written."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file, self._hash, self.bytes = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:  # which pyrage would turn into text
            self.error = error
            raise
        self._hash.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        if not self._file.closed:  # when it is collected, it flushes once more
            self._file.flush()

    def stored(self, name: str) -> StoredFile:
        return StoredFile(path=name, bytes=self.bytes, sha256=self._hash.hexdigest())


def encrypt(source: io.BufferedIOBase, path: Path, recipients: Sequence[str]) -> StoredFile:
    """Write what `source` has to `path`, encrypted for `recipients`; return what is stored."""
    with path.open("xb") as file:
        target = _Hashing(file)
        try:
            pyrage.encrypt_io(source, target, [_recipient(key) for key in recipients])
        except pyrage.EncryptError as error:
            raise (target.error or BackupFailed(f"cannot encrypt: {error}")) from error
    return target.stored(path.name)


def hashed(path: Path) -> StoredFile:
    """Return what is stored at `path`, as it is."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
        return StoredFile(path=path.name, bytes=file.tell(), sha256=digest.hexdigest())


def decrypt(source: io.BufferedIOBase, target: io.BufferedIOBase, identity: x25519.Identity) -> None:
    """Write to `target` what is encrypted in `source`. Raise `BackupFailed` where it cannot be decrypted."""
    try:
        pyrage.decrypt_io(source, target, [identity])
    except pyrage.DecryptError as error:
        raise BackupFailed(f"cannot be decrypted: {str(error).lower()}") from error
    except OSError as error:
        if error.errno is not None:  # the target's: no space, nobody reads any more
            raise
        raise BackupFailed("cannot be decrypted: it ends too early, or was changed") from error


def identity_for(recipients: Sequence[str], key: str | None) -> x25519.Identity:
    """Return the secret `key` of one of the `recipients`. Raise `BackupFailed` where it is missing or of another."""
    whose = ", ".join(recipients)
    if key is None:
        raise BackupFailed(f"it is encrypted for {whose}: give the secret key of that in BACKUP_IDENTITY")
    try:
        identity = x25519.Identity.from_str(key)
    except pyrage.IdentityError:
        raise BackupFailed("BACKUP_IDENTITY: is no secret key of age: its checksum is wrong") from None
    if str(identity.to_public()) not in recipients:
        raise BackupFailed(
            f"it is encrypted for {whose}, and BACKUP_IDENTITY is the key of {identity.to_public()}: give the right one"
        )
    return identity


def _recipient(key: str) -> x25519.Recipient:
    try:
        return x25519.Recipient.from_str(key)
    except pyrage.RecipientError:
        raise BackupFailed(f"BACKUP_RECIPIENTS: {key} is no public key of age: its checksum is wrong") from None
