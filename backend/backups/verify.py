"""Whether a backup is what its manifest says, and can be restored by this release."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyrage import x25519

from backend.backups import store
from backend.backups.crypt import ENCRYPTED, decrypt, hashed, identity_for
from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST, Manifest, read
from backend.backups.programs import run, variables_without_server
from backend.backups.settings import BackupSettings
from backend.backups.words import in_bytes
from backend.settings import Settings

__all__ = ["Checked", "check", "contents", "plain_name", "relation", "write_toc"]

PROGRESS_SECONDS = 2.0
TOC = "toc.dat"


@dataclass(frozen=True)
class Checked:
    """A backup whose files are what its manifest says. `schema`: see `relation`. `identity`: None if not encrypted."""

    path: Path
    manifest: Manifest
    schema: str
    identity: x25519.Identity | None


async def check(
    settings: Settings, own: BackupSettings, path: Path, *, project: str | None, needs_key: bool,
    say: Callable[[str], None],
) -> Checked:  # fmt: skip
    """Check the backup at `path`. `project`: another one that it may be of. `needs_key`: it is going to be restored.

    Raise `BackupFailed` with the first thing that is wrong.
    """
    manifest = read(path)
    meant = project or settings.project_name
    if manifest.project != meant:
        raise BackupFailed(
            f"{manifest.name} is of project {manifest.project}, not of {meant}: if that one is meant, say so"
            f' ({{"project": "{manifest.project}"}} on standard input)'
        )
    identity = None
    secret = own.backup_identity.get_secret_value() if own.backup_identity else None
    if manifest.encrypted and (secret or needs_key):
        identity = identity_for(manifest.encrypted, secret)
    await _check_files(path, store.files(path) - {MANIFEST}, manifest, say)
    if identity or not manifest.encrypted:
        await _check_contents(own, path, identity)
    else:
        say("BACKUP_IDENTITY is not set: the checksums are right, and nobody has looked inside")
    schema = relation(manifest.revision)
    say(f"{manifest.name}: whole, {in_bytes(manifest.bytes)}, {_SCHEMAS[schema].format(manifest.revision)}")
    return Checked(path, manifest, schema, identity)


_SCHEMAS = {
    "same": "its schema is this release's ({})",
    "older": "its schema is older ({}): the migrations of this release bring it up",
    "newer": "its schema ({}) is unknown to this release: a newer one made it, or another service",
    "none": "it was never migrated",
}


def relation(revision: str | None) -> str:
    """Return how a `revision` stands to this release: `same`, `older`, `newer` (unknown here) or `none`."""
    from backend.migrations.plan import plan  # with Alembic, which most verbs need not load

    known = [step.revision for step in plan(None, None)]
    if revision is None:
        return "none"
    if revision not in known:
        return "newer"
    return "same" if revision == known[-1] else "older"


async def _check_files(path: Path, there: set[str], manifest: Manifest, say: Callable[[str], None]) -> None:
    """Raise `BackupFailed` where a file is missing, too short or long, changed, or not of this backup."""
    listed = {file.path for file in manifest.files}
    if more := sorted(there - listed):
        raise BackupFailed(f"{manifest.name}: {more[0]} is not in its {MANIFEST}: it was tampered with")
    if TOC not in {plain_name(name) for name in listed}:
        raise BackupFailed(f"{manifest.name}: its {MANIFEST} lists no {TOC}: it was tampered with")
    done, began, last = 0, time.monotonic(), time.monotonic()
    for file in manifest.files:
        if file.path not in there:
            raise BackupFailed(f"{manifest.name}: {file.path} is missing: use another backup, or `fetch` it again")
        size = (path / file.path).stat().st_size
        if size != file.bytes:
            how = "truncated" if size < file.bytes else "too long"
            raise BackupFailed(
                f"{manifest.name}: {file.path} is {how} ({size} bytes of {file.bytes}): use another backup, or `fetch`"
                " it again"
            )
        if (await asyncio.to_thread(hashed, path / file.path)).sha256 != file.sha256:
            raise BackupFailed(f"{manifest.name}: {file.path} was changed: its checksum is another; use another backup")
        done += size
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            say(f"checked {in_bytes(done)} of {in_bytes(manifest.bytes)}, {in_bytes(done / (last - began))}/s")


async def _check_contents(own: BackupSettings, path: Path, identity: x25519.Identity | None) -> None:
    with store.part(own.backup_folder, f"check-{secrets.token_hex(6)}") as (part, _):
        await asyncio.to_thread(write_toc, path, part, identity)
        await contents(part)


def write_toc(path: Path, folder: Path, identity: x25519.Identity | None) -> None:
    """Write the table of contents of the backup at `path` to `folder`, as it was before it was encrypted."""
    source = path / (TOC + (ENCRYPTED if identity else ""))
    with source.open("rb") as reader, (folder / TOC).open("xb") as writer:
        if identity is None:
            writer.write(reader.read())
        else:
            try:
                decrypt(reader, writer, identity)
            except BackupFailed as error:
                raise BackupFailed(f"{path.name}: {source.name} {error}") from error


async def contents(folder: Path) -> str:
    """Return the list of what the dump in `folder` has. Raise `BackupFailed` where these programs cannot read it."""
    return await run("pg_restore", "--list", str(folder), variables=variables_without_server())


def plain_name(stored: str) -> str:
    """Return the name that a stored file has in the dump."""
    return stored.removesuffix(ENCRYPTED)
