"""Copies of the backups off the host: on S3 or by SFTP, with rclone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.backups import store
from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST, Manifest, time_of
from backend.backups.programs import run, variables_without_server
from backend.backups.settings import Address, BackupSettings
from backend.backups.words import in_bytes

__all__ = ["Away"]

Say = Callable[[str], None]

REMOTE = "away"
# Away or wrong is said within half a minute; a stall after it has begun within two: each of the tries waits for it.
LIMITS = ("--contimeout=10s", "--timeout=30s", "--retries=2", "--low-level-retries=2", "--config=")
PRIVATE_KEY = "-----BEGIN "
SSH_PORT = 22
SMALL_SECONDS = 60.0  # for what is not as large as a backup
LONGEST = 400  # of what rclone says
# What the SDK of S3 says: the operation, the status (0: none came), and what else is known.
ANSWERED = re.compile(r"operation error S3: (\w+),.*?StatusCode: (\d+), RequestID: [^,]*, HostID: [^,]*, (.*)")
HINTS = {
    "401": "look at BACKUP_ADDRESS_SECRET",
    "403": "look at BACKUP_ADDRESS_SECRET, and at what its key may do",
    "404": "is there such a bucket?",
    "507": "it is full: make room there",
}


class _Nothing(BackupFailed):
    """There is no such folder there, yet."""


@dataclass(frozen=True)
class Away:
    """The place of BACKUP_ADDRESS. Each method raises `BackupFailed` where it does not answer as it should."""

    address: Address
    secret: str

    @classmethod
    def of(cls, own: BackupSettings) -> Away | None:
        """Return the place of the settings, None where there is none."""
        if own.backup_address is None or own.backup_address_secret is None:
            return None
        return cls(own.backup_address, own.backup_address_secret.get_secret_value())

    async def backups(self) -> list[Manifest]:
        """Return the manifests of the whole backups there, the newest first."""
        with tempfile.TemporaryDirectory(prefix="backups-away-") as folder:
            only = ("--max-depth=2", f"--include=/*/{MANIFEST}")
            with contextlib.suppress(_Nothing):
                await self._rclone("copy", self._place(), folder, *only, seconds=SMALL_SECONDS)
            return store.backups(Path(folder))

    async def take(self, path: Path, say: Say) -> None:
        """Copy the backup at `path` there, its manifest last, and compare the copy."""
        place = self._place(path.name)
        say(f"{path.name}: on its way to {self.address}")
        files = f"--exclude={MANIFEST}"
        await self._rclone("copy", str(path), place, files, "--transfers=4")
        # By the checksums that the place knows; where it knows none, as with SFTP, by reading all of it again.
        read = ("--download",) if self.address.kind == "sftp" else ()
        await self._rclone("check", str(path), place, files, *read)
        await self._rclone("copyto", str(path / MANIFEST), f"{place}/{MANIFEST}")
        await self._rclone("check", str(path), place, *read)
        say(f"{path.name}: at {self.address}, and the same there")

    async def fetch(self, manifest: Manifest, own: BackupSettings, say: Say) -> Path:
        """Copy a backup from there, and return where it is now."""
        free = store.free_bytes(own.backup_folder)
        if free < manifest.bytes:
            raise BackupFailed(
                f"BACKUP_FOLDER: {own.backup_folder} has {in_bytes(free)} free, and {manifest.name} has"
                f" {in_bytes(manifest.bytes)}: make room"
            )
        say(f"{manifest.name}: {in_bytes(manifest.bytes)} on their way from {self.address}")
        with store.part(own.backup_folder, f"{manifest.name}-{secrets.token_hex(3)}") as (part, _):
            await self._rclone("copy", self._place(manifest.name), str(part), "--transfers=4")
            return store.publish(part, manifest.name)

    async def remove(self, name: str) -> None:
        """Remove a backup there: first what makes it one."""
        time_of(name)
        await self._rclone("deletefile", f"{self._place(name)}/{MANIFEST}", seconds=SMALL_SECONDS)
        await self.purge(name)

    async def left(self, names: Sequence[str]) -> list[str]:
        """Return the folders there that are named as backups, and are none of `names`: what is not whole."""
        # By their files: S3 has no folders, and some servers show one that is empty.
        files = ("--recursive", "--files-only", "--max-depth=2")
        listed = (await self._rclone("lsf", self._place(), *files, seconds=SMALL_SECONDS)).split()
        found = set()
        for name in {path.partition("/")[0] for path in listed} - {*names}:
            with contextlib.suppress(BackupFailed):
                time_of(name)
                found.add(name)
        return sorted(found)

    async def purge(self, name: str) -> None:
        """Remove the folder of what is no whole backup there."""
        time_of(name)
        await self._rclone("purge", self._place(name))

    def _place(self, name: str = "") -> str:
        return f"{REMOTE}:{self.address.folder}/{name}".rstrip("/")

    async def _rclone(self, *arguments: str, seconds: float | None = None) -> str:
        """Run rclone, for at most so many `seconds`; return what it printed."""
        async with self._variables() as variables:
            try:
                async with asyncio.timeout(seconds):
                    return await run("rclone", *arguments, *LIMITS, variables=variables)
            except TimeoutError:
                raise BackupFailed(f"BACKUP_ADDRESS: {self.address}: no answer within {seconds:.0f} s") from None
            except BackupFailed as error:
                said = str(error).removeprefix("rclone: ")
                kind = _Nothing if said.endswith("directory not found") else BackupFailed
                raise kind(f"BACKUP_ADDRESS: {self.address}: {_clear(said)[:LONGEST]}") from error

    @asynccontextmanager
    async def _variables(self) -> AsyncIterator[dict[str, str]]:
        """Yield the variables that tell rclone of the place."""
        given = {"type": self.address.kind}
        if self.address.kind == "s3":
            key, _, secret = self.secret.partition(":")
            given |= {"access_key_id": key, "secret_access_key": secret, "no_check_bucket": "true"}
            given |= {"provider": "Other" if self.address.endpoint else "AWS"}
            given |= {"endpoint": self.address.endpoint, "region": self.address.region}
            yield _named(given)
            return
        host, port = self.address.host, self.address.port or SSH_PORT
        given |= {"user": self.address.user, "host": host, "port": str(port), "shell_type": "none"}
        if self.secret.startswith(PRIVATE_KEY):
            given["key_pem"] = self.secret.strip().replace("\n", "\\n")
        else:
            # Which is no encryption, but the form in which rclone takes a password.
            given["pass"] = (await run("rclone", "obscure", "-", variables=_bare(), given=self.secret.encode())).strip()
        with tempfile.NamedTemporaryFile("w", prefix="known-host-") as file:
            file.write(f"{host if port == SSH_PORT else f'[{host}]:{port}'} {self.address.host_key}\n")
            file.flush()
            yield _named({**given, "known_hosts_file": file.name})


def _clear(said: str) -> str:
    """Return what rclone `said` without what only a programmer of its SDK needs, and with what to do."""
    match = ANSWERED.search(said)
    if match is None:
        return said
    operation, status, more = match.groups()
    more = more.removeprefix("api error ").removeprefix("request send failed, ")
    hint = f" ({HINTS[status]})" if status in HINTS else ""
    return f"{operation}: {more}" if status == "0" else f"{operation}: {status}, {more}{hint}"


def _named(given: Mapping[str, str]) -> dict[str, str]:
    remote = {f"RCLONE_CONFIG_{REMOTE.upper()}_{name.upper()}": value for name, value in given.items() if value}
    return {**_bare(), **remote}


def _bare() -> dict[str, str]:
    # Nobody's configuration, and none is made: without that variable, rclone would make a folder for one in its home.
    return {**variables_without_server(), "RCLONE_CONFIG": os.devnull, "HOME": "/nowhere"}
