"""`nox -s dev`: the service with reload, on a PostgreSQL and a Valkey that live as long as it does."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from pipeline.commands import Verbs
from pipeline.config.project import Project
from pipeline.config.settings import fill_env, read_values
from pipeline.engines.embedded import PostgresServer, ValkeyServer, throwaway_postgres, throwaway_valkey
from pipeline.errors import Interrupted
from pipeline.system.place import env_file
from pipeline.system.run import run

__all__ = ["add_parsers", "environment_of"]

log = logging.getLogger(__name__)

# Each of these, or its file, would win over the throwaway stores' own values.
OWN = frozenset({"DATABASE_URL", "POSTGRES_PASSWORD", "REDIS_URL", "REDIS_PASSWORD"})


def add_parsers(verbs: Verbs) -> None:
    verbs.add("dev", dev, "run the service with reload")


def dev(project: Project, *_: object) -> None:
    """Serve the working tree until Ctrl-C, restarting it whenever a file of a release changes."""
    import watchfiles  # only the session `dev` installs it

    if not env_file(project.root).exists():
        fill_env(project.root)
    values = read_values(project.root)
    with throwaway_postgres() as postgres, throwaway_valkey() as valkey:
        environment = environment_of({**os.environ, **values}, postgres, valkey)
        os.environ.clear()
        os.environ.update(environment)  # watchfiles starts the service with our own environment
        run([sys.executable, "-m", "backend.migrations", "upgrade"], env=environment, cwd=project.root)
        log.info(
            f"http://localhost:{values.get('BACKEND_PORT', '8000')} restarts when a file changes; Ctrl-C ends it;"
            " its data is gone then"
        )
        try:
            watchfiles.run_process(
                *(project.root / folder for folder in project.source),
                target=f"{sys.executable} -m backend",
                target_type="command",
                callback=lambda changes: log.info(f"{len(changes)} file(s) changed"),
            )
        except Interrupted:
            log.info("ended")


def environment_of(given: Mapping[str, str], postgres: PostgresServer, valkey: ValkeyServer) -> dict[str, str]:
    """Return `given` for a service on these two stores and no others."""
    # The migrations run with it, too: it must not name any other database.
    return {
        **{name: value for name, value in given.items() if name.removesuffix("_FILE") not in OWN},
        **postgres.environment,
        "REDIS_HOST": valkey.socket,
        "ENVIRONMENT": "development",
        "LOG_FORMAT": "console",
        "DRAIN_SECONDS": "0",
        "RELEASE": "dev",
    }
