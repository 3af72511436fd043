"""Where the data is: a database that is named but not used, and a shell that names another one than `.env`.

Neither would be noticed: what was written yesterday is not lost, but the service no longer shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.config.settings import COMPOSE_IMAGES, DECISIVE, check_values, read_env, variables
from pipeline.system.place import env_file

__all__ = ["STORE_KEYS", "settings_problems", "shell_problems", "unused_stores"]

STORES = {
    **dict.fromkeys(("DATABASE_URL", "MIGRATION_DATABASE_URL", "POSTGRES_HOST"), "PostgreSQL"),
    **dict.fromkeys(("REDIS_URL", "REDIS_HOST"), "Redis"),
}
STORE_KEYS = {key: store for name, store in STORES.items() for key in (name, f"{name}_FILE")}
COMPOSE_FILE = "docker-compose.yml"


def settings_problems(
    root: Path,
    values: Mapping[str, str],
    runs: str,
    placed: Mapping[str, str] | None = None,
    managed: Collection[str] = (),
    *,
    source: str = "",
) -> list[str]:
    """Return all that is wrong with `values` for a target with an `.env`, one line each.

    That is what `check_values`, `shell_problems` and `unused_stores` find; for the others see the last. `source`: where
    the secrets come from instead.
    """
    unused = unused_stores(values, runs, placed=placed, managed=managed)
    names = {line.partition(":")[0].removesuffix("_FILE") for line in unused}
    # One line for each name: what has to be taken out need not be fixed first.
    wrong = [line for line in check_values(root, values, source=source) if not names & set(line.split(": ")[1:2])]
    return [*wrong, *shell_problems(root), *unused]


def unused_stores(
    values: Mapping[str, str],
    runs: str,
    *,
    placed: Mapping[str, str] | None = None,
    managed: Collection[str] = (),
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Return a line for each name in `values` of a database or a Redis that would not reach the service.

    `runs` says what it uses instead, with `{store}` for which of the two; `placed` has the values that reach it, and
    `managed` the names of those that do, whatever they are.
    """
    environ = os.environ if environ is None else environ
    effective = [{variable.name: variable.default for variable in variables()}, placed or {}]
    problems = []
    for key, store in STORE_KEYS.items():
        value = values.get(key, "").strip()
        # `nox -s init` writes each name with its default, which names no store of the user's.
        if not value or key.removesuffix("_FILE") in managed or value in [known.get(key) for known in effective]:
            continue
        fix = f"unset {key} in the environment" if environ.get(key) else f"take {key} out of .env"
        problems.append(f"{key}: {runs.format(store=store)} and would not use it: {fix}")
    return problems


def shell_problems(root: Path, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a line for each name that decides where the data is and differs between `environ` and `.env`."""
    environ = os.environ if environ is None else environ
    if not env_file(root).exists():
        return []  # the first deploy writes it, with these values from the environment
    written, _ = read_env(root)
    defaults = {variable.name: variable.default for variable in variables()} | _images(root)
    problems = []
    for name in DECISIVE:
        given, own = environ.get(name, "").strip(), (written.get(name) or "").strip()
        if not given or given == (own or defaults[name]):
            continue
        says = f".env says `{own}`" if own else f".env says nothing, which is `{defaults[name]}`"
        problems.append(f"{name}: the environment says `{given}`, {says}: put it in .env, or unset it")
    return problems


def _images(root: Path) -> dict[str, str]:
    """Return the images that docker-compose.yml uses by default, by the name of their variable."""
    path = root / COMPOSE_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    matches = {image.name: re.search(rf"\$\{{{image.name}:-([^}}]+)\}}", text) for image in COMPOSE_IMAGES}
    return {name: match[1] if match else "" for name, match in matches.items()}
