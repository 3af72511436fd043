"""`nox -s init` writes `.env`; `settings` and `migrations`, parts of `nox -s lint`, check files that have to agree."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from pathlib import Path

from pipeline.commands import Verbs
from pipeline.config.derived import derived_files
from pipeline.config.logins import owners_of
from pipeline.config.managed import managed_stores
from pipeline.config.place_of_data import shell_problems
from pipeline.config.project import Project
from pipeline.config.secrets import PROVED, SUPERUSER_PASSWORD, allow_by_hand, secret_files, write_secret_files
from pipeline.config.settings import (
    DEFAULT_EDGE_PORT,
    backup_settings,
    fill_env,
    read_values,
    set_in_env,
    split_secrets,
)
from pipeline.config.sources import environment_values
from pipeline.engines.occupant import occupant_of
from pipeline.errors import SlipwayError
from pipeline.monitoring.made import made_files
from pipeline.releases.migration_files import migration_file_problems, renumber_migration
from pipeline.releases.migrations import repository_problems
from pipeline.system.place import env_file, state_folder
from pipeline.system.ports import next_free_port, port_free
from pipeline.system.progress import Progress
from pipeline.targets.recovery import finish_recovery, recovered

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("init", init, "write .env with fresh secrets")
    parser.add_argument("--recover", action="store_true", help="take .env's secrets and names back from what runs")
    parser = verbs.add("migrations", migrations, "judge the migrations as a deploy does")
    parser.prog = "nox -s migration --"  # the session that has --renumber
    parser.add_argument("--renumber", metavar="NNNN", help="move this one (number or file name) to the end")
    parser = verbs.add("settings", settings, "check the files that are made from the settings schema")
    parser.add_argument("--write", action="store_true", help="write them")


def init(project: Project, options: Namespace, _: Progress) -> None:
    """Add what is missing in `.env`, and write the secret files of docker-compose.yml."""
    root = project.root
    found = recovered(project) if options.recover else {}
    added = fill_env(root, port=_first_port(root))
    for line in shell_problems(root):
        log.warning(line)
    log.info(f"wrote .env: {', '.join(added)}" if added else ".env is complete: nothing was changed")
    superuser = found.pop(SUPERUSER_PASSWORD, None)
    if user := found.get("POSTGRES_USER"):
        found |= owners_of(user)
    if changed := set_in_env(root, found):
        log.info(f"took back from what runs: {', '.join(changed)}")
    folder = secret_files(root)
    composed = [env for env in project.environments.values() if env.target == "compose"]
    sourced = next((env for env in composed if env.secrets), None)  # what runs has its secrets, and not those of `.env`
    values = environment_values(root, sourced.name, sourced.secrets) if sourced else read_values(root)
    secrets = {**split_secrets(values)[1], **backup_settings(values), **managed_stores(values).files()}
    write_secret_files(folder, secrets, superuser=superuser)
    if options.recover:
        finish_recovery(project, found, values)
    elif not list(state_folder(root).glob(f"*/{PROVED}")):
        allow_by_hand(folder, allowed=True)
    log.info(f"wrote the secrets of docker-compose.yml to {os.path.relpath(folder)}, a folder that only you can open")


def _first_port(root: Path) -> int:
    """Return the EDGE_PORT of a first `.env`: the default, or the next free port where that is somebody else's."""
    port = DEFAULT_EDGE_PORT
    if env_file(root).exists() or port_free(port):
        return port
    occupant = occupant_of(port, root)
    if occupant.ours:  # it was deployed with an `.env` that is lost
        return port
    free = next_free_port(port + 1)
    log.info(f"port {port} is taken by {occupant.who}: EDGE_PORT is {free}, the next free one")
    return free


def migrations(project: Project, options: Namespace, _: Progress) -> None:
    """Judge the migrations as a deploy does, without a database, or move one to the end of the chain."""
    if options.renumber is None:
        if problems := repository_problems(project.root):
            raise SlipwayError(*problems)
        return
    for line in renumber_migration(project.root, options.renumber):
        log.info(line)
    for line in migration_file_problems(project.root):  # other problems remain
        log.warning(line)


def settings(project: Project, options: Namespace, _: Progress) -> None:
    """Check the files that are made from the settings schema or the objectives, or write them with `--write`."""
    stale = []
    made, rules = derived_files(project.root), made_files(project.root, project.slo)
    source = dict.fromkeys(made, "backend/settings.py")
    source |= dict.fromkeys(rules, "monitoring/rules and [tool.slipway.slo] of pyproject.toml")
    for name, text in (made | rules).items():
        path = project.root / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if not options.write:
            stale.append(f"{name} does not agree with {source[name]}: `nox -s settings -- --write`")
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        log.info(f"wrote {name}")
    if stale:
        raise SlipwayError(*stale)
