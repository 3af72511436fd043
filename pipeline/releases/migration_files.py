"""The migration files: whether they make one chain in the order of their numbers, and how to move one to its end.

Nothing is imported: the host has no Alembic, and a file that cannot be loaded is one of the problems to report.
"""

from __future__ import annotations

import ast
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pipeline.errors import SlipwayError, UsageError

__all__ = ["migration_file_problems", "renumber_migration"]

NAME = re.compile(r"([0-9]+)_.+\.py")
RENUMBER = "nox -s migration -- --renumber"


@dataclass(frozen=True, eq=False)
class MigrationFile:
    """One migration, as its text has it. `place`: its path from the repository's root; `values`: see `_constants`."""

    path: Path
    place: str
    text: bytes
    values: Mapping[str, ast.Constant]

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self.path.name

    @property
    def revision(self) -> str:
        """Return its revision, which is the number in its name."""
        return str(self.values["revision"].value)

    @property
    def down_revision(self) -> str | None:
        """Return the revision that it follows; None for the first migration."""
        value = self.values["down_revision"].value
        return None if value is None else str(value)


def migration_file_problems(root: Path) -> list[str]:
    """List what is wrong with the migration files of the repository at `root`, one line each with its fix."""
    problems = []
    for folder in _folders(root):
        files, faults = _read_folder(folder, root)
        place = str(folder.relative_to(root))
        problems += [*faults, *_twins(files, place), *_chain_problems(files, place, _numbers(folder))]
    return problems


def _folders(root: Path) -> list[Path]:
    return sorted(root.glob("*/migrations/versions"))


def _paths(folder: Path) -> list[Path]:
    """List what Alembic would load from `folder`: each Python file, whatever it is called."""
    paths = sorted(folder.glob("*.py"))
    return [path for path in paths if path.name != "__init__.py" and not path.name.startswith(".#")]


def _numbers(folder: Path) -> set[str]:
    """List the numbers that file names begin with."""
    return {found[1] for path in _paths(folder) if (found := NAME.fullmatch(path.name))}


# --- reading ---


def _read_folder(folder: Path, root: Path) -> tuple[list[MigrationFile], list[str]]:
    """Read the migrations of `folder`; return those that can be understood, and a line for each that cannot."""
    files: list[MigrationFile] = []
    faults: list[str] = []
    for path in _paths(folder):
        try:
            files.append(_read(path, str(path.relative_to(root))))
        except SlipwayError as error:
            faults += error.problems
    return files, faults


def _read(path: Path, place: str) -> MigrationFile:
    """Read one migration. Raise `SlipwayError` where it cannot have a place in the chain."""
    named = NAME.fullmatch(path.name)
    if not named:
        raise SlipwayError(
            f"{place} is not named like a migration: rename it to NNNN_name.py, or move it out of the folder"
        )
    number = named[1]
    try:
        text = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of `\:`, which is how SQL in `op.execute` writes a colon
            tree = ast.parse(text)
    except OSError as error:
        raise SlipwayError(f"{place} cannot be read: {error.strerror}: correct or remove it") from None
    except (SyntaxError, ValueError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise SlipwayError(f"{place} is not valid Python: {reason}{line}: correct it") from None
    values = _constants(tree)
    wanted = {
        "revision": f'`revision = "{number}"`',
        "down_revision": '`down_revision = "NNNN"` (the one before it; None for the first)',
    }
    absent = [name for name in wanted if name not in values or (name == "revision" and values[name].value is None)]
    if absent:
        raise SlipwayError(
            f"{place} does not set {_and(f'`{name}`' for name in absent)} to a plain string:"
            f" write {_and(wanted[name] for name in absent)}, once, at the top level"
        )
    file = MigrationFile(path, place, text, values)
    if file.revision != number:
        raise SlipwayError(
            f'{place} says `revision = "{file.revision}"`, but its name begins with {number}:'
            f' write `revision = "{number}"`, or rename the file'
        )
    return file


def _constants(tree: ast.Module) -> dict[str, ast.Constant]:
    """Map each name that the module sets exactly once, to a plain string or None, to that value's node."""
    values: dict[str, list[ast.expr]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
    return {
        name: value
        for name, [value, *more] in values.items()
        if not more and isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, str))
    }


# --- judging ---


def _twins(files: list[MigrationFile], place: str) -> list[str]:
    """Find files of the same revision."""
    # Alembic would run one of them and never the other.
    return [
        f"{place}: {_and(one.name for one in twins)} have the same revision {revision}, so only one would run:"
        f" renumber the one that was not deployed, for example `{RENUMBER} {twins[-1].name}`"
        for revision, twins in _grouped(files, "revision")
        if len(twins) > 1
    ]


def _chain_problems(files: list[MigrationFile], place: str, numbers: set[str]) -> list[str]:
    """Find what keeps `files` from being one chain. `numbers` are those of all files.

    A file with a fault of its own, which is reported already, does not leave a gap.
    """
    single = [twins[0] for _, twins in _grouped(files, "revision") if len(twins) == 1]
    problems = []
    for before, after in _grouped(single, "down_revision"):
        ordered = [one for one in after if before is None or before < one.revision]
        if before is not None and before not in numbers:
            problems.append(_gap(place, before, after, numbers))
            continue
        problems += [_disorder(place, one, numbers) for one in after if one not in ordered]
        if len(ordered) > 1:
            problems.append(_fork(place, before, ordered))
    return problems


def _gap(place: str, before: str, after: list[MigrationFile], numbers: set[str]) -> str:
    names = _and(one.name for one in after)
    way = "" if len(after) > 1 else f", or write `down_revision = {_literal(_previous(after[0].revision, numbers))}`"
    verb = "follow" if len(after) > 1 else "follows"
    return f"{place}: {names} {verb} {before}, which no file has: bring that file back{way}"


def _disorder(place: str, one: MigrationFile, numbers: set[str]) -> str:
    if one.down_revision == one.revision:
        return (
            f"{place}: {one.name} follows itself: write `down_revision = {_literal(_previous(one.revision, numbers))}`"
        )
    return (
        f"{place}: {one.name} follows {one.down_revision}, but migrations run in the order of their numbers:"
        f" `{RENUMBER} {one.revision}` if it was not deployed"
    )


def _fork(place: str, before: str | None, after: list[MigrationFile]) -> str:
    names, number = _and(one.name for one in after), after[-1].revision
    fix = f"renumber the one that was not deployed, for example `{RENUMBER} {number}`"
    if before is None:
        return f"{place}: {names} have `down_revision = None`, but only one migration can be the first: {fix}"
    return f"{place}: {names} follow {before}, but only one migration can: {fix}"


def _previous(revision: str, numbers: Iterable[str]) -> str | None:
    """Return the highest of `numbers` before `revision`; None where it is the first."""
    return max((number for number in numbers if number < revision), default=None)


def _grouped(files: list[MigrationFile], name: str) -> list[tuple[str | None, list[MigrationFile]]]:
    """Group `files` by the value of their attribute `name`."""

    def key(one: MigrationFile) -> str:
        return getattr(one, name) or ""

    groups = groupby(sorted(files, key=lambda one: (key(one), one.name)), key)
    return [(value or None, list(group)) for value, group in groups]


# --- renumbering ---


def renumber_migration(root: Path, which: str) -> list[str]:
    """Move the migration `which` (its number, file name or path) to the end of the chain; return a line for each file.

    Raise `UsageError`, with nothing changed, where it cannot be found, is the last already, or cannot be rewritten.
    """
    files = _sound_files(root)
    moved = _choose(files, which)
    others = [one for one in files if one.path.parent == moved.path.parent and one is not moved]
    last = max((one.revision for one in others), default=None)
    number = moved.revision if last is None or moved.revision > last else f"{int(last) + 1:0{len(last)}d}"
    if (number, last) == (moved.revision, moved.down_revision):
        raise UsageError(f"{moved.place} is the last migration already: nothing was changed")
    target = moved.path.with_name(f"{number}_{moved.name.partition('_')[2]}")
    twin = next((one for one in others if one.revision == moved.revision), None)
    followers = [one for one in others if one.down_revision == moved.revision]
    # In a sound chain that is the one that `moved` followed; in a fork, following that one would make the next fork.
    links = {} if twin else {one: _previous(one.revision, (other.revision for other in others)) for one in followers}
    written = {target: _rewritten(moved, {"revision": number, "down_revision": last})}
    written |= {one.path: _rewritten(one, {"down_revision": link}) for one, link in links.items()}
    _write(moved.path, target, written)
    named = f"{moved.name} is {target.name} now" if target != moved.path else moved.name
    lines = [f"{named}: `revision = {_literal(number)}`, `down_revision = {_literal(last)}`"]
    lines += _tell_followers(followers, links, target.name, twin)
    return lines + (_tell_contracts([*others, moved], moved, target.name, number) if number != moved.revision else [])


def _sound_files(root: Path) -> list[MigrationFile]:
    """Read all migrations. Raise `UsageError` where one cannot be understood, as its place is not known."""
    read = [_read_folder(folder, root) for folder in _folders(root)]
    faults = [fault for _, faults in read for fault in faults]
    if faults:
        raise UsageError(*faults)
    return [one for files, _ in read for one in files]


def _choose(files: list[MigrationFile], which: str) -> MigrationFile:
    """Find the migration that the user means. Raise `UsageError` where there is none, or more than one."""
    parts = Path(which).parts
    chosen = [one for one in files if which == one.revision or (parts and one.path.parts[-len(parts) :] == parts)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        places = _and(one.place for one in chosen)
        raise UsageError(f"`{which}` is the number of {places}: say which, `{RENUMBER} {chosen[-1].name}`")
    there = f"the last is {files[-1].place}" if files else "there is none at all"
    raise UsageError(f"there is no migration `{which}`: give a number or a file name; {there}")


def _tell_followers(
    followers: list[MigrationFile], links: Mapping[MigrationFile, str | None], name: str, twin: MigrationFile | None
) -> list[str]:
    """Return a line for each of the `followers` of the migration that is called `name` now: what became of it."""
    lines = []
    for file in followers:
        done = f" was left, and follows {twin.name}" if twin else f": `down_revision = {_literal(links[file])}`"
        lines.append(f"{file.name}{done}; if it needs what {name} does, `{RENUMBER} {file.name}` as well")
    return lines


def _tell_contracts(files: list[MigrationFile], moved: MigrationFile, name: str, number: str) -> list[str]:
    """Return a line for each `contract_after` that names the number which `moved` had."""
    # It is not rewritten: a migration that drops something after `number` and comes before it could never ship.
    naming = [
        one for one in files if "contract_after" in one.values and one.values["contract_after"].value == moved.revision
    ]
    return [
        f'{one.name} still says `contract_after = "{moved.revision}"`: if it means {name}, renumber it as well, then'
        f' write `contract_after = "{number}"`'
        for one in naming
    ]


def _rewritten(file: MigrationFile, wanted: Mapping[str, str | None]) -> bytes:
    """Return the text of `file` with other values for the names in `wanted`; every other byte stays."""
    lines, text = file.text.splitlines(keepends=True), file.text
    # From the end backwards, because a new value may be longer than the old one.
    for name in sorted(wanted, key=lambda name: _position(file.values[name]), reverse=True):
        node, value = file.values[name], wanted[name]
        start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
        old = _literal(None if node.value is None else str(node.value))
        span = text[start : start + len(old)].decode(errors="replace")
        if span.replace("'", '"') != old:
            raise UsageError(
                f"{file.place}: nothing was changed, as `{name}` cannot be rewritten safely: write it as"
                f" `{name} = {old}` on a line of its own"
            )
        new = _literal(value).replace('"', '"' if node.value is None else span[0])
        text = text[:start] + new.encode() + text[start + len(span) :]
    return text


def _write(old: Path, new: Path, written: Mapping[Path, bytes]) -> None:
    """Write the files, and remove `old` where it is called `new` now. On a full disk, everything stays as it was."""
    parts = {path: path.with_name(f".{path.name}.part") for path in written}
    try:
        for path, text in written.items():
            parts[path].write_bytes(text)
            shutil.copymode(old if path == new else path, parts[path])
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    if old != new:
        old.unlink()


def _position(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _literal(value: str | None) -> str:
    return "None" if value is None else f'"{value}"'


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
