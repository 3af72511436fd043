"""The database of the environment without an engine: a schema of applied migrations."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import ProgramFailed, SlipwayError
from pipeline.releases.model import Artifact, Migration
from pipeline.targets import Database, Upgrade
from tests.pipeline.deploy.fake_upgrade import FakeUpgrade
from tests.pipeline.deploy.script import Script

__all__ = ["FakeDatabase"]


@dataclass
class FakeDatabase(Database):
    """A schema: the SQL of each applied migration, oldest first. `recorded`: it has their history.

    `migrations_of`: what each release brings, oldest first; `gone`: the data is not there; `accounts`: those of people
    by name, None where the releases have no such command; `backup`: since when one runs, None where none does;
    `excludes`: the releases know of backups.
    """

    script: Script
    up: bool = False
    applied: dict[str, str] = field(default_factory=dict)
    recorded: bool = True
    gone: bool = False
    migrations_of: dict[str, list[Migration]] = field(default_factory=dict)
    accounts: dict[str, dict[str, Any]] | None = field(default_factory=dict)
    backup: str | None = None
    excludes: bool = True

    def __post_init__(self) -> None:
        self.next = FakeUpgrade(self.script)

    def problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Miss the data only where there must be some."""
        self.script.do("data problems")
        return ["the data is gone: restore it, or deploy with --empty-database"] if expected and self.gone else []

    def runs(self, new: Artifact) -> bool:
        """Look at the switch."""
        return self.up

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Answer as the release's own command does."""
        given = _command(excludes=self.excludes).parse_args(arguments)
        mine = self.migrations_of.get(release.name, [])
        if given.verb == "plan":
            return json.dumps([asdict(each) for each in mine], indent=2)
        assert database
        assert self.up, "nobody can ask a database that does not run"
        self.script.do(given.verb, release.name)
        if given.verb == "status":
            return json.dumps(self._status(mine, given.forget))
        if self.excludes and given.cancel_backup:
            self.script.do("cancel", str(self.backup))
            self.backup = None
        self._upgrade(mine, given.expect, given.forget)
        return "done\n"

    def run(self, *command: str) -> str:
        """Note the program."""
        self.script.do("run", command[0])
        return ""

    def command(self, release: Artifact, module: str, *arguments: str, stdin: str = "") -> str:
        """Note the words, and how many lines are given; print what the program would."""
        lines = len(stdin.splitlines())
        program = module.removeprefix("backend.")
        self.script.do(program, f"{release.name}: {' '.join(arguments[:2])} {lines}")
        return f'{{"removed": {lines}}}\n' if program == "synthetic" else self._account(arguments[0], json.loads(stdin))

    def _account(self, verb: str, given: dict[str, Any]) -> str:
        """Answer as `python -m backend.accounts` does."""
        module, name = "backend.accounts", given.get("name", "")
        if self.accounts is None:
            raise ProgramFailed(module, "/venv/bin/python: No module named backend.accounts")
        if verb == "list":
            hidden = {"created_at": "2027-01-15T08:30:00+02:00", "last_login_at": None}
            shown = [{"name": each, "disabled": False, **hidden, **one} for each, one in self.accounts.items()]
            return f'a line of a log\n{json.dumps({"accounts": shown})}\n{{"event": "closed"}}\n'
        if (name in self.accounts) == (verb == "add"):
            raise ProgramFailed(module, f"{name}: {'the name is taken' if verb == 'add' else 'no such account'}")
        self.accounts[name] = {**self.accounts.get(name, {}), **given, "disabled": verb == "disable"}
        if verb == "remove":
            del self.accounts[name]
        return json.dumps({"name": name, "done": verb}) + "\n"

    def upgrade(self) -> Upgrade:
        """Return the fake one."""
        return self.next

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Note it."""
        self.script.do("rehearse", f"{new.name} beside {old.name}" if old else new.name)

    @property
    def revision(self) -> str | None:
        """Return the newest; None where it was never migrated."""
        return max(self.applied, default=None)

    def _status(self, mine: list[Migration], forgotten: str | None) -> dict[str, Any]:
        """Return what `python -m backend.migrations status` prints."""
        applied = {revision: sql for revision, sql in self.applied.items() if revision != forgotten}
        edited = [each.revision for each in mine if applied.get(each.revision, each.sql) != each.sql]
        pending = [asdict(each) for each in mine if each.revision not in applied]
        return {
            "revision": self.revision,
            "recorded": self.recorded or self.revision is None,
            "pending": pending,
            "problems": [f"migration {revision} was applied, and edited since" for revision in edited],
            "unknown": [],
            **({"backup": self.backup if pending else None} if self.excludes else {}),
        }

    def _upgrade(self, mine: list[Migration], expected: str | None, forgotten: str | None) -> None:
        """Apply what it lacks, if it is where it was when that was checked."""
        if expected not in (None, self.revision or "none"):
            raise SlipwayError(f"the database is at {self.revision} and was at {expected}: nothing was changed")
        if self.backup and any(each.revision not in self.applied for each in mine):
            raise SlipwayError(
                f"a backup runs {self.backup}: wait, or deploy with --cancel-backup; nothing was changed"
            )
        self.applied.pop(forgotten or "", None)
        self.applied |= {each.revision: each.sql for each in mine if each.revision not in self.applied}
        self.recorded = True


def _command(*, excludes: bool) -> argparse.ArgumentParser:
    """Read what `python -m backend.migrations` is told, and refuse what it would refuse."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb", choices=("status", "upgrade", "plan"))
    for name in ("--expect", "--forget", "--from"):
        parser.add_argument(name)
    for name in ("--kept", "--trust"):
        parser.add_argument(name, nargs="+", default=[])
    if excludes:
        parser.add_argument("--cancel-backup", action="store_true")
    return parser
