"""The backups of a project, here and off the host: which there are, and which of them stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backend.backups import store
from backend.backups.away import Away
from backend.backups.errors import BackupFailed
from backend.backups.keep import kept
from backend.backups.manifest import Manifest, time_of
from backend.backups.settings import BackupSettings

__all__ = ["NEWEST", "Shelf"]

NEWEST = "newest"
UNFINISHED = timedelta(days=1)  # after which a copy without a manifest is none that is still on its way


class Shelf:
    """The backups of one `project`. Those of others in the same places are neither listed nor removed, but named."""

    def __init__(self, own: BackupSettings, project: str, say: Callable[[str], None]) -> None:
        self._own, self._project, self._say = own, project, say
        self._folder, self._away = own.backup_folder, Away.of(own)
        self._others: set[str] = set()

    def here(self) -> dict[str, Manifest]:
        """Return what is here, by name, the newest first."""
        return self._ours(store.backups(self._folder))

    async def away(self) -> dict[str, Manifest]:
        """Return what is off the host, by name, the newest first. Raise `BackupFailed` where that does not answer."""
        return self._ours(await self._away.backups() if self._away else [])

    def _ours(self, found: Iterable[Manifest]) -> dict[str, Manifest]:
        """Return those of the project, by name; note whose the others are."""
        ours: dict[str, Manifest] = {}
        for one in found:
            if one.project == self._project:
                ours[one.name] = one
            else:
                self._others.add(one.project)
        return ours

    async def newest(self) -> Manifest | None:
        """Return the newest backup, wherever it is; off the host only where nothing is here, and it answers."""
        for one in self.here().values():
            return one
        try:
            return next(iter((await self.away()).values()), None)
        except BackupFailed as error:
            self._say(str(error))
            return None

    async def everything(self) -> dict[str, Any]:
        """Return all of them, the other projects that have some in the same places, and what is wrong off the host."""
        here, problem = self.here(), None
        try:
            away = await self.away()
        except BackupFailed as error:
            away, problem = {}, str(error)
        everything = sorted({**away, **here}.items(), reverse=True)
        summaries = [one.summary(here=name in here, away=name in away) for name, one in everything]
        answer = {"backups": summaries, "others": sorted(self._others)}
        return {**answer, "problem": problem} if problem else answer

    async def put(self, manifest: Manifest) -> dict[str, Any]:
        """Copy a new backup off the host, with those that are not there yet, and remove what need not stay.

        Nothing is removed where the copy fails.
        """
        if self._away is None:
            removed = self._remove_here()
            return {"backup": manifest.summary(here=True, away=False), "removed": removed}
        try:
            there = await self.away()
            stay = self._staying(self.here().keys() | there.keys())
            for name in sorted(stay & self.here().keys() - there.keys()):
                await self._away.take(self._folder / name, self._say)
            removed = self._remove_here() + await self._remove_away()
        except BackupFailed as error:
            problem = f"{manifest.name} is whole, and here alone: {error}"
            return {"backup": manifest.summary(here=True, away=False), "removed": [], "problem": problem}
        return {"backup": manifest.summary(here=True, away=True), "removed": sorted({*removed})}

    async def prune(self) -> dict[str, Any]:
        """Remove what need not stay, here and off the host; return what was removed and what is left."""
        removed = self._remove_here() + await self._remove_away()
        return {"removed": sorted({*removed}), "kept": sorted(self.here().keys() | (await self.away()).keys())}

    async def find(self, name: str) -> Path:
        """Return where the backup `name` is; what is off the host alone is brought here."""
        if name == NEWEST:
            newest = await self.newest()
            if newest is None:
                raise BackupFailed("there is no backup yet: make one first")
            name = newest.name
        time_of(name)
        if not (self._folder / name).is_dir() and self._away:
            await self.fetch(name)
        return store.find(self._folder, name)

    async def fetch(self, name: str) -> dict[str, Any]:
        """Bring the backup `name` here, and return its summary."""
        if self._away is None:
            raise BackupFailed("BACKUP_ADDRESS: is not set, so that no backup is off the host")
        there = await self._away.backups()  # of other projects, too: which is meant, the check asks
        manifest = next((one for one in there if name in (one.name, NEWEST)), None)
        if manifest is None:
            raise BackupFailed(f"no backup {name} at {self._own.backup_address}: `list` shows what there is")
        if not (self._folder / manifest.name).is_dir():
            await self._away.fetch(manifest, self._own, self._say)
        return manifest.summary(here=True, away=True)

    def _staying(self, names: Iterable[str]) -> set[str]:
        times = {name: time_of(name) for name in names}
        stay = kept(times.values(), self._own.backup_keep)
        return {name for name, time in times.items() if time in stay}

    def _remove_here(self) -> list[str]:
        names = self.here().keys()
        leaving = sorted(names - self._staying(names))
        for name in leaving:
            store.remove(self._folder / name)
            self._say(f"removed {name}: {self._own.backup_keep} is kept")
        return leaving

    async def _remove_away(self) -> list[str]:
        if self._away is None:
            return []
        there = await self._away.backups()
        names = {one.name for one in there if one.project == self._project}
        leaving = sorted(names - self._staying(names))
        for name in leaving:
            await self._away.remove(name)
            self._say(f"removed {name} from {self._own.backup_address}: {self._own.backup_keep} is kept")
        for name in await self._away.left([one.name for one in there]):
            if datetime.now(UTC) - time_of(name) > UNFINISHED:
                await self._away.purge(name)
                self._say(f"removed {name} from {self._own.backup_address}: it was no whole backup")
        return leaving
