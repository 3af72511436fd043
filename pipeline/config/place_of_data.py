"""Where the data is: a database that is named in vain, and a shell that says another one than `.env`.

Both would be quiet: what was written yesterday is not lost, but nobody who asks the service sees it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.settings import COMPOSE_IMAGES, DECISIVE, check_values, read_env, variables

__all__ = ["settings_problems", "shell_problems", "unused_stores"]

STORES = {"DATABASE_URL": "PostgreSQL", "POSTGRES_HOST": "PostgreSQL", "REDIS_URL": "Redis", "REDIS_HOST": "Redis"}
COMPOSE_FILE = "docker-compose.yml"


def settings_problems(
    root: Path, values: Mapping[str, str], runs: str, placed: Mapping[str, str] | None = None
) -> list[str]:
    """Give all that a target with an `.env` has against `values`; see `check_values`, and the two below."""
    unused = unused_stores(values, runs, placed=placed)
    names = {line.partition(":")[0].removesuffix("_FILE") for line in unused}
    # What has to go need not be mended first: one line for each name.
    wrong = [line for line in check_values(root, values) if not names & set(line.split(": ")[1:2])]
    return [*wrong, *shell_problems(root), *unused]


def unused_stores(
    values: Mapping[str, str],
    runs: str,
    *,
    placed: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Give a line for each name in `values` of a database or a Redis that the service would not be told.

    `runs` says what it uses instead, with `{store}` for which of the two; `placed` are the values that it is told.
    """
    environ = os.environ if environ is None else environ
    told = [{one.name: one.default for one in variables()}, placed or {}]
    problems = []
    for name, store in STORES.items():
        for key in (name, f"{name}_FILE"):
            value = values.get(key, "").strip()
            # `nox -s init` writes each name with its default, which names nothing.
            if not value or value in [one.get(key) for one in told]:
                continue
            fix = f"unset {key} in the environment" if environ.get(key) else f"take {key} out of .env"
            problems.append(f"{key}: {runs.format(store=store)} and would not use it: {fix}")
    return problems


def shell_problems(root: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    """Give a line for each name that decides where the data is, and has another value in `environ` than in `.env`."""
    environ = os.environ if environ is None else environ
    if not (root / ".env").exists():
        return []  # the first deploy writes it, and takes these names from the environment
    written, _ = read_env(root)
    defaults = {one.name: one.default for one in variables()} | _images(root)
    problems = []
    for name in DECISIVE:
        given, own = environ.get(name, "").strip(), (written.get(name) or "").strip()
        if not given or given == (own or defaults[name]):
            continue
        says = f".env says `{own}`" if own else f".env says nothing, which is `{defaults[name]}`"
        problems.append(f"{name}: the environment says `{given}`, {says}: put it in .env, or unset it")
    return problems


def _images(root: Path) -> dict[str, str]:
    """Give the images that docker-compose.yml has where nobody names another."""
    path = root / COMPOSE_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = {one.name: re.search(rf"\$\{{{one.name}:-([^}}]+)\}}", text) for one in COMPOSE_IMAGES}
    return {name: match[1] if match else "" for name, match in found.items()}
