"""docs/12-recipes.md as a reader follows it: its blocks of code, applied to a copy; and the monitor of its service."""

from __future__ import annotations

import ast
import re
import textwrap
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.pages import ROOT, Block, blocks

__all__ = ["RECIPES", "Monitor", "follow", "monitor"]

PAGE = ROOT / "docs/12-recipes.md"
RECIPES = ("A setting", "A secret", "A dependency", "A background worker")
# A service may have followed the page already: a copy of it gets the same code under another name.
RENAMED = {"heartbeat": "pulse", "HEARTBEAT": "PULSE"}
HEADER = re.compile(r"# (?P<file>\S+), (?P<where>.+)")


def follow(root: Path, *recipes: str) -> None:
    """Write what the blocks of `recipes` say into the files of `root`."""
    for recipe in recipes:
        found = [block for block in _section(recipe) if block.language in ("python", "toml")]
        assert found, recipe
        for block in found:
            text = block.text
            for old, new in RENAMED.items():
                text = text.replace(old, new)
            (_write if block.language == "python" else _add_packages)(root, text)


def _section(heading: str) -> list[Block]:
    """Return the blocks below `heading`."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = lines.index(f"## {heading}") + 1
    last = next((number for number, line in enumerate(lines[first:], first) if line.startswith("## ")), len(lines))
    return [block for block in blocks(PAGE) if first < block.line <= last]


def _write(root: Path, text: str) -> None:
    """Write a block of Python to the file, and the place in it, that its first line names."""
    header, _, code = text.partition("\n")
    match = HEADER.fullmatch(header)
    assert match, header
    path, where = root / match["file"], match["where"]
    if where == "a new file":
        assert not path.exists(), path
        path.write_text(code, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    first, last, indent = _place(lines, where)
    lines[first:last] = [textwrap.indent(code, indent)]
    path.write_text("".join(lines), encoding="utf-8")


def _place(lines: list[str], where: str) -> tuple[int, int, str]:
    """Return the lines of a file, from and to, that a block replaces, and how far it is indented there."""
    tree = ast.parse("".join(lines))
    if where == "with the imports":
        last = max(node.end_lineno or 0 for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        return last, last, ""
    if where == "in `Settings`":
        [schema] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
        last = max(node.end_lineno or 0 for node in schema.body if isinstance(node, ast.AnnAssign))
        return last, last, " " * 4
    assert where == "in place of `yield`", where
    [number] = [number for number, line in enumerate(lines) if line.strip() == "yield"]
    return number, number + 1, lines[number].partition("yield")[0]


def _add_packages(root: Path, text: str) -> None:
    """Add the packages of a block of TOML to the groups that it names."""
    path = root / "pyproject.toml"
    project = path.read_text(encoding="utf-8")
    for group, packages in tomllib.loads(text)["dependency-groups"].items():
        head = f"\n{group} = ["
        assert project.count(head) == 1, head
        project = project.replace(head, head + "".join(f'\n    "{package}",' for package in packages))
    path.write_text(project, encoding="utf-8")


@dataclass
class Monitor:
    """Who gets the reports. `tokens`: what each came with; `most`: how many came at once; `seconds`: how long it takes.

    Without `open` it refuses them.
    """

    port: int = 0
    tokens: list[str] = field(default_factory=list)
    most: int = 0
    seconds: float = 0.0
    open: bool = True
    _now: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/"

    def take(self, token: str) -> int:
        """Note a report that came with `token`; return the status to answer with."""
        with self._turn:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self.seconds)
        with self._turn:
            self._now -= 1
            self.tokens += [token] if self.open else []
        return 204 if self.open else 500


@contextmanager
def monitor() -> Iterator[Monitor]:
    """Yield a monitor that listens."""
    one = Monitor()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take a report."""
            self.send_response(one.take(self.headers.get("Authorization", "")))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        one.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield one
        finally:
            server.shutdown()
