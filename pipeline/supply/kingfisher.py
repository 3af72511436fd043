"""kingfisher, which finds secrets in files and in the commits of a repository; it asks nobody about what it finds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError

__all__ = ["RULES", "Leak", "is_there", "rules_version", "scan_command", "scan_commits", "scan_folder"]

RULES = Path(__file__).with_name("leaks.yaml")
SECONDS = 1800
CLEAN, FOUND = 0, 200
FINGERPRINT = 16
# No request to whoever a secret belongs to, none for a newer version, and no comment in a file that silences it.
OFFLINE = ("--no-validate", "--no-update-check", "--no-ignore")


@dataclass(frozen=True)
class Leak:
    """What looks like a secret: in a file, or in a file of a `commit`. `fingerprint` stands for its value."""

    path: str
    line: int
    rule: str
    what: str
    fingerprint: str
    commit: str | None = None


def is_there() -> bool:
    """Return whether kingfisher is beside this Python: not every platform has its wheel."""
    return _program().exists()


def rules_version() -> str:
    """Return what changes with each rule: what was found by others says nothing of these."""
    return f"{version('kingfisher-bin')} {hashlib.sha256(RULES.read_bytes()).hexdigest()[:FINGERPRINT]}"


def scan_folder(folder: Path, cache: Path) -> list[Leak]:
    """Return the leaks in the files below `folder`, whose paths begin there. `cache` keeps the compiled rules."""
    # Each place of a value is to be mended, so all are told.
    found = _scan(scan_command(".", "--git-history", "none", "--no-dedup"), folder, cache)
    return _one_a_line(_leak(one) for one in found)


def scan_commits(root: Path, head: str, since: str | None, cache: Path) -> list[Leak]:
    """Return the leaks in the commits of the repository at `root` from which `head` came, but `since` and its own."""
    place = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--path-format=absolute", "--git-common-dir"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    later = ["--since-commit", since] if since else []
    found = _scan(scan_command(place, "--branch", head, *later), root, cache)
    # It reads the files of git itself, too: its configuration may have a password, and is in no commit.
    return _one_a_line(_leak(one) for one in found if "git_metadata" in one["finding"])


def scan_command(place: str, *options: str) -> list[str]:
    """Return the command line that scans `place`."""
    output = ("--format", "jsonl", "--quiet", "--rules-path", str(RULES))
    return [str(_program()), "scan", place, *OFFLINE, *output, *options]


def _program() -> Path:
    return Path(sys.executable).parent / "kingfisher"


def _scan(command: list[str], folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Return what it found. Raise `SlipwayError` where it has not read everything."""
    # Not by `run`, which keeps what a command says: this says secrets.
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "KF_RULE_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SlipwayError(
            f"kingfisher did not end within {SECONDS} s: nothing says that no secret is in git"
        ) from None
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    # With what it could not read, it ends as if nothing were there.
    scanned = [place["scan"]["status"] for line in lines if "audit" in line for place in line["audit"]["repositories"]]
    if done.returncode not in (CLEAN, FOUND) or scanned != ["completed"]:
        said = next((line for line in done.stderr.splitlines() if line.strip()), "it said nothing")
        raise SlipwayError(f"kingfisher failed ({done.returncode}, {', '.join(scanned) or 'no scan'}): {said}")
    return [line for line in lines if "finding" in line]


def _leak(one: dict[str, Any]) -> Leak:
    finding, rule = one["finding"], one["rule"]
    commit = finding.get("git_metadata", {}).get("commit", {}).get("id")
    value = hashlib.sha256(finding["snippet"].encode()).hexdigest()[:FINGERPRINT]
    what = rule["description"].rstrip(".")
    return Leak(finding["path"].removeprefix("./"), finding["line"], rule["id"], what, value, commit)


def _one_a_line(leaks: Iterator[Leak]) -> list[Leak]:
    """Return one of the `leaks` of each line: that of a provider's rule, where two find the same."""
    ordered = sorted(leaks, key=lambda leak: leak.rule.startswith("own."))
    first = {(leak.commit, leak.path, leak.line): leak for leak in reversed(ordered)}
    return sorted(first.values(), key=lambda leak: (leak.path, leak.line, leak.commit or ""))
