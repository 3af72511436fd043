"""Whether git has a secret, or would take one: in the files of the working tree, and in each commit before."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from pipeline.supply.kingfisher import Leak, rules_version, scan_commits, scan_folder
from pipeline.system.files import write_whole
from pipeline.system.git import has_commit, is_older, read_source, would_be_committed

__all__ = ["leak_problems"]

HISTORY = "history.json"
ALLOW = "[tool.slipway.public]"


def leak_problems(root: Path, cache: Path, public: Mapping[str, str]) -> list[str]:
    """Return what looks like a secret in the repository at `root`, a line each with its fix, and never its value.

    `cache` keeps what the commits were found to have. `public` has the fingerprints of values that everybody may know.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tree, past = _in_tree(root, cache), _in_history(root, cache)
    committed = {leak.fingerprint: leak for leak in past}
    problems = [_in_file(leak, committed.get(leak.fingerprint)) for leak in tree if leak.fingerprint not in public]
    there = {leak.fingerprint for leak in tree}
    return problems + [
        _in_commit(leak) for value, leak in committed.items() if value not in there and value not in public
    ]


def _in_tree(root: Path, cache: Path) -> list[Leak]:
    """Return the leaks in the files that git has or would take, as they are on the disk."""
    # In a folder of their own: what git ignores is nobody's business, and `.env` is full of secrets.
    with tempfile.TemporaryDirectory(prefix="tree-", dir=cache) as folder:
        for name in would_be_committed(root):
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(root / name, path)
        return scan_folder(Path(folder), _compiled(cache))


def _put(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, path)


def _in_history(root: Path, cache: Path) -> list[Leak]:
    """Return the leaks in all commits, of which only those are read that were not read before."""
    head = read_source(root).commit
    if head is None:
        return []
    path, rules = cache / HISTORY, rules_version()
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    since = known.get("head") if known.get("rules") == rules and has_commit(root, known.get("head", "")) else None
    # Whoever wrote the history anew took commits away.
    old = [Leak(**one) for one in known["leaks"]] if since else []
    found = [leak for leak in old if leak.commit == head or is_older(root, leak.commit or "", head)]
    if since != head:
        found += scan_commits(root, head, since, _compiled(cache))
        write_whole(path, json.dumps({"head": head, "rules": rules, "leaks": [asdict(leak) for leak in found]}))
    return found


def _compiled(cache: Path) -> Path:
    return cache / "rules"


def _in_file(leak: Leak, committed: Leak | None) -> str:
    revoke = f", and revoke it: commit {(committed.commit or '')[:12]} has it" if committed else ""
    return (
        f"{leak.path}:{leak.line}: looks like a secret ({leak.rule}: {leak.what}): take it out (docs/8-github.md, No"
        f" secret in git){revoke}. {_or_public(leak)}"
    )


def _in_commit(leak: Leak) -> str:
    return (
        f"{leak.path}:{leak.line} of commit {(leak.commit or '')[:12]}: looks like a secret ({leak.rule}: {leak.what})."
        " Whoever has the repository has it: revoke it. Then, or where it was none, name it"
        f' in pyproject.toml {ALLOW}: {leak.fingerprint} = "why everybody may know it"'
    )


def _or_public(leak: Leak) -> str:
    return f'Where everybody may know it, say why in pyproject.toml {ALLOW}: {leak.fingerprint} = "why"'
