"""What of the repository is the example's, and what takes its place: the folder `bare/`.

`parts.toml` lists what is kept and what is the example's, `tree/` holds the files that take its place, `digests.txt`
says what the template has there, so that nobody's own work is removed. In a file that is kept, marks enclose what is
the example's: `# example-only` and `# /example-only`, in the comments of the file.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import Field

from pipeline.config.project import Project
from pipeline.config.tables import Table, read_table
from pipeline.errors import UsageError

__all__ = [
    "DIGESTS",
    "PARTS",
    "TREE",
    "Parts",
    "changed_files",
    "digest_text",
    "part_problems",
    "read_parts",
    "without",
]

FOLDER = "bare/"
PARTS, DIGESTS, TREE = f"{FOLDER}parts.toml", f"{FOLDER}digests.txt", f"{FOLDER}tree/"
UNNUMBERED = "NNNN"  # the number, and the predecessor, of the migration in `tree/`
NOT_MARKED = ("pipeline/", "tests/", FOLDER)  # what looks like a mark there is only a text

MARK = "example-only"  # without it nothing is marked: looking for the pattern takes longer
COMMENT = r"(?:<!--|#|//|/\*)"
MARKED = re.compile(
    rf"""
    (?P<blank>(?<=\n)\n)?
    ^[ \t]*{COMMENT}[ ]example-only(?::[ ](?P<instead>[\w./-]+)[ ]takes[ ]its[ ]place)?(?:[ ]-->|[ ]\*/)?\n
    (?P<text>.*?)
    ^[ \t]*{COMMENT}[ ]/example-only(?:[ ]-->|[ ]\*/)?$\n?
    """.replace("#", r"\#"),
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
SECTION = re.compile(r'<section aria-labelledby="([\w-]+)"')
NEW_TABLE = re.compile(r'CREATE TABLE (?:IF NOT EXISTS )?"?(\w+)', re.IGNORECASE)
MIGRATION = re.compile(r"(?P<folder>\w+/migrations/versions/)(?P<number>[0-9]+|NNNN)_\w+\.py")
DOWN = re.compile(r"""^(down_revision\b[^=\n]*= )(None|"[^"\n]*"|'[^'\n]*')""", re.MULTILINE)

Texts = Mapping[str, str]
Plain = Callable[[str, str], str]  # of a file's name and text: the text as it was before any rename


class Lists(Table):
    """What there is of one kind: what a bare service keeps, and what is the example's. `FOLDER/` is all below it."""

    kept: tuple[str, ...] = Field(default=(), strict=False)
    example: tuple[str, ...] = Field(default=(), strict=False)

    def of(self, part: str) -> list[str]:
        """Return the lists that have `part`: one, unless it is in none or in both; the innermost folder decides."""
        entries = {"kept": _nearest(part, self.kept), "example": _nearest(part, self.example)}
        return [name for name, entry in entries.items() if entry and len(entry) == max(map(len, entries.values()))]


class Parts(Table):
    """The lists of parts.toml: for each kind its own, and other files of the example."""

    tables: Lists
    page: Lists
    requests: Lists
    dashboards: Lists
    tests: Lists
    files: tuple[str, ...] = Field(strict=False)

    def has(self, name: str) -> bool:
        """Return whether the file `name` is the example's as a whole."""
        return bool(_nearest(name, self.files)) or self.tests.of(name) == ["example"]


def _nearest(part: str, entries: Iterable[str]) -> str:
    """Return the entry that `part` is, or the innermost folder that it is in; "" where it is in none."""
    return max((one for one in entries if _is_in(part, one)), key=len, default="")


def _is_in(part: str, entry: str) -> bool:
    return part == entry or (entry.endswith("/") and part.startswith(entry))


def read_parts(root: Path) -> Parts | None:
    """Return the lists of the repository at `root`, None where the example has left. Raise `UsageError` if wrong."""
    path = root / PARTS
    if not path.exists():
        return None
    problems: list[str] = []
    try:
        parts = read_table(Parts, tomllib.loads(path.read_text(encoding="utf-8")), PARTS, problems)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{PARTS}: not valid TOML: {error}") from None
    if parts is None:
        raise UsageError(*problems)
    return parts


def part_problems(project: Project, parts: Parts, names: Iterable[str]) -> list[str]:
    """Return what is wrong with the lists, given all files: a line for each part that is in neither, or not there."""
    names, root = list(names), project.root
    migrations = [(root / name).read_text(encoding="utf-8") for name in names if MIGRATION.fullmatch(name)]
    page = root / "docker/frontend/index.html"
    there = {
        "tables": {table for text in migrations for table in NEW_TABLE.findall(text)},
        "page": set(SECTION.findall(page.read_text(encoding="utf-8"))) if page.exists() else set(),
        "requests": {request.name for request in project.requests},
        "dashboards": {name for name in names if re.fullmatch(r"monitoring/.*dashboards/.+\.json", name)},
        "tests": {name for name in names if re.fullmatch(r"tests/(?:.*/)?test_\w+\.py", name)},
    }
    return [line for kind, found in there.items() for line in _unlisted(kind, getattr(parts, kind), found)]


def _unlisted(kind: str, lists: Lists, found: set[str]) -> list[str]:
    which = "say whether a bare service keeps it, or it is the example's"
    places = {one: lists.of(one) for one in sorted(found)}
    gone = [one for one in (*lists.kept, *lists.example) if not any(_is_in(part, one) for part in found)]
    return [
        *(f"{PARTS} [{kind}]: `{one}` is in neither list: {which}" for one in places if not places[one]),
        *(f"{PARTS} [{kind}]: `{one}` is in both lists: {which}" for one in places if places[one][1:]),
        *(f"{PARTS} [{kind}]: there is no `{one}`: take it out" for one in gone),
    ]


# --- the template's own ---


def digest_text(root: Path, parts: Parts, names: Iterable[str], plain: Plain) -> str:
    """Return the text of digests.txt: a line for each file that `--bare` removes, replaces or cuts."""
    names = set(names)
    lines = []
    for name in sorted(names):
        whole = parts.has(name) or f"{TREE}{name}" in names
        content = _plain_content(root / name, name, plain)
        if not whole and isinstance(content, str) and MARK in content and not name.startswith(NOT_MARKED):
            content = "".join(match["text"] for match in MARKED.finditer(content))
            whole = content != ""
        if whole:
            data = content.encode() if isinstance(content, str) else content
            lines.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    return "".join(lines)


def _plain_content(path: Path, name: str, plain: Plain) -> str | bytes:
    content = path.read_bytes() if path.is_file() else b""
    try:
        return plain(name, content.decode())
    except UnicodeDecodeError:  # an image
        return content


def changed_files(root: Path, parts: Parts, names: Iterable[str], plain: Plain) -> list[str]:
    """Return the files that `--bare` would remove, replace or cut, and that are not the template's any more."""
    there = set((root / DIGESTS).read_text(encoding="utf-8").splitlines())
    now = set(digest_text(root, parts, names, plain).splitlines())
    return sorted({line.split("  ", 1)[1] for line in there ^ now})


# --- what takes its place ---


def without(root: Path, parts: Parts, names: Iterable[str], texts: Texts) -> dict[str, bytes | None]:
    """Return the content that each file has without the example, None for a file that goes.

    `names` are all files, `texts` those whose text the caller has changed already.
    """
    names = list(names)
    changed: dict[str, bytes | None] = {name: None for name in names if name.startswith(FOLDER) or parts.has(name)}
    for name, text in texts.items():
        if name not in changed and not name.startswith(NOT_MARKED) and (cut := _cut(text, texts)) != text:
            changed[name] = cut.encode()
    for name in names:
        if name.startswith(TREE):
            content = texts[name].encode() if name in texts else (root / name).read_bytes()
            changed[name.removeprefix(TREE)] = content
    _number_migrations(root, names, changed)
    return changed


def _cut(text: str, texts: Texts) -> str:
    """Return `text` without what is between marks; where a mark names a file, that file's text takes its place."""

    def instead(match: re.Match[str]) -> str:
        fragment = texts[match["instead"]] if match["instead"] else ""
        return f"{match['blank'] or ''}{fragment}" if fragment else ""

    return MARKED.sub(instead, text) if MARK in text else text


def _number_migrations(root: Path, names: Iterable[str], changed: dict[str, bytes | None]) -> None:
    """Give the new migration the next number; each migration follows the one before it, all others as they are."""
    there = {name: changed.get(name, b"") for name in {*names, *changed} if MIGRATION.fullmatch(name)}
    kept = sorted(name for name, content in there.items() if content is not None)
    before: str | None = None
    for name in kept:  # `NNNN` comes after every number
        match = MIGRATION.fullmatch(name)
        assert match
        given = changed.pop(name, None)
        content = (root / name).read_bytes() if given is None else given
        number = match["number"]
        if number == UNNUMBERED:
            number = f"{int(before or 0) + 1:04d}"
        text = content.decode().replace(f'revision = "{UNNUMBERED}"', f'revision = "{number}"', 1)
        text = _follows(text, before)
        if given is not None or text.encode() != content:
            changed[name.replace(UNNUMBERED, number)] = text.encode()
        before = number


def _follows(text: str, before: str | None) -> str:
    """Return the text of a migration that follows the revision `before`."""
    value = "None" if before is None else f'"{before}"'
    return DOWN.sub(lambda match: match[0] if match[2].replace("'", '"') == value else match[1] + value, text, count=1)
