"""`nox -s dev`: the service with reload and its page, on a PostgreSQL and a Valkey that live as long as it does."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.commands import Verbs
from pipeline.config.project import Project
from pipeline.config.settings import fill_env, read_values
from pipeline.engines.caddy import adapt
from pipeline.engines.embedded import PostgresServer, ValkeyServer, find_engines, throwaway_postgres, throwaway_valkey
from pipeline.engines.occupant import occupant_of
from pipeline.errors import Interrupted, SlipwayError
from pipeline.system.leash import held
from pipeline.system.place import env_file
from pipeline.system.ports import port_free
from pipeline.system.run import run
from pipeline.system.waiting import attempts

__all__ = ["add_parsers", "environment_of", "page"]

log = logging.getLogger(__name__)

EDGE_SECONDS = 10  # for Caddy to listen
# Each of these, or its file, would win over the throwaway stores' own values.
OWN = frozenset(
    {
        *("DATABASE_URL", "MIGRATION_DATABASE_URL", "POSTGRES_PASSWORD", "POSTGRES_OWNER", "POSTGRES_OWNER_PASSWORD"),
        *("REDIS_URL", "REDIS_PASSWORD"),
    }
)


def add_parsers(verbs: Verbs) -> None:
    verbs.add("dev", dev, "run the service with reload, and its page")


def dev(project: Project, *_: object) -> None:
    """Serve the working tree until Ctrl-C, restarting it whenever a file of a release changes."""
    import watchfiles  # only the session `dev` installs it

    if not env_file(project.root).exists():
        fill_env(project.root)
    values = read_values(project.root)
    ports = values.get("FRONTEND_PORT", "3000"), values.get("BACKEND_PORT", "8000")
    for name, port in zip(("FRONTEND_PORT", "BACKEND_PORT"), ports, strict=True):
        if not port_free(int(port)):
            found = occupant_of(int(port), project.root)
            raise SlipwayError(f"port {port}: {found.who} listens there: {found.frees}, or set {name} to another port")
    with throwaway_postgres() as postgres, throwaway_valkey() as valkey, page(project.root, *ports):
        environment = environment_of({**os.environ, **values}, postgres, valkey)
        os.environ.clear()
        os.environ.update(environment)  # watchfiles starts the service with our own environment
        run([sys.executable, "-m", "backend.migrations", "upgrade"], env=environment, cwd=project.root)
        log.info(
            f"http://localhost:{ports[0]} is the page, http://localhost:{ports[1]} the service, which restarts when a"
            " file changes; Ctrl-C ends them, and their data is gone then"
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


@contextlib.contextmanager
def page(root: Path, port: str, service: str) -> Iterator[None]:
    """Serve the page of the project at `root` on `port`, from the files as they are, by the edge of a deploy.

    Whatever is no file of it is asked of the service on the port `service`. Raise `SlipwayError` where Caddy
    does not accept the file of the edge, or does not listen.
    """
    caddy = find_engines().caddy
    with tempfile.TemporaryDirectory(prefix="slipway-dev-") as home, Path(home, "edge.log").open("wb") as log:
        environment = {
            "HOME": home,
            "EDGE_BIND": "127.0.0.1",
            "EDGE_PAGE": "docker/frontend",  # relative: Caddy would split a path with a space
            "EDGE_UPSTREAMS": f"127.0.0.1:{service}",
            "FRONTEND_PORT": port,
        }
        config = Path(home, "edge.json")
        config.write_text(adapt(caddy, root / "docker/edge/Caddyfile", environment))
        with held([str(caddy), "run", "--config", str(config)], log=log, env=environment, cwd=str(root)):
            for _ in attempts(EDGE_SECONDS, every=0.05):
                if not port_free(int(port)):
                    break
            else:
                raise SlipwayError(f"the edge does not listen on port {port} within {EDGE_SECONDS} s")
            yield


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
