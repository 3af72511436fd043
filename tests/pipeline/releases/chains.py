"""Chains of migration files, for tests: as a person writes them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FIRST", "FOLDER", "Files", "chain", "read", "text", "write"]

FOLDER = "backend/migrations/versions"
# As a person writes one: other quotes, comments, a backslash, CRLF, no end of the last line.
TEXT = (
    '"""{name}: {revision} follows {down} — été."""\r\n'
    "revision  =  '{revision}'  # revision {revision}\r\n"
    'down_revision: str | None = {down}; branch_labels = "{revision}"\r\n'
    'contract_after: str | None = {contract}\r\n\r\nSQL = """{revision}\\:\r\n"""  # {down}'
)

Files = dict[str, str]


def text(name: str, revision: str, down: str | None, contract: str | None = None) -> str:
    """The text of a migration."""
    quoted = [f'"{one}"' if one else "None" for one in (down, contract)]
    return TEXT.format(name=name, revision=revision, down=quoted[0], contract=quoted[1])


def chain(**downs: str | None) -> Files:
    """Migrations by name, without the underscore that Python wants in front of a number: `_0002_b="0001"`."""
    return {
        f"{name[1:]}.py": text(name[1:].split("_", 1)[1], name[1:].split("_")[0], down) for name, down in downs.items()
    }


def write(root: Path, files: Files, *, package: str = "backend") -> Path:
    """Write FILES, and the package's own; gives their folder."""
    folder = root / package / "migrations/versions"
    folder.mkdir(parents=True)
    for name, content in {"__init__.py": '"""The migrations."""\n', **files}.items():
        (folder / name).write_bytes(content.encode())
    return folder


def read(folder: Path) -> Files:
    """What is in FOLDER."""
    return {path.name: path.read_bytes().decode() for path in folder.iterdir() if path.name != "__init__.py"}


FIRST = chain(_0001_a=None)
