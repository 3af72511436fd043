"""Settings and secrets taken back from the containers that were started with them."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.derived import SET_BY
from pipeline.config.logins import logins_of
from pipeline.config.secrets import ADDRESS_SECRET, SUPERUSER_PASSWORD, delivered_secrets
from pipeline.config.settings import DECISIVE, documented
from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError
from pipeline.targets.common.container import Container
from pipeline.targets.common.rights import password_sql
from pipeline.targets.compose.https import HTTPS_PORTS
from pipeline.targets.compose.problems import psql_in
from pipeline.targets.compose.stack import PROJECT_LABEL, containers_of

__all__ = ["recovered_from_containers", "renew_owner_password"]

log = logging.getLogger(__name__)


def recovered_from_containers(root: Path) -> dict[str, str]:
    """Return what the containers of the Compose projects that were started from `root` have."""
    docker = Docker(root)
    running = _running(docker, root)
    projects = sorted({one.labels[PROJECT_LABEL] for one in running})
    if len(projects) > 1:
        raise SlipwayError(f"more than one compose project runs from this folder: {', '.join(projects)}: stop one")
    found: dict[str, str] = {}
    for one in running:
        # A file that was removed on the host is still there for the container that mounted it.
        for name in [*delivered_secrets(), SUPERUSER_PASSWORD, ADDRESS_SECRET]:
            with contextlib.suppress(SlipwayError):
                text = docker.ask("exec", one.ident, "cat", f"/run/secrets/{name}").strip()
                found |= {name: text} if text else {}
    backends = [one for one in running if one.service == "backend"]
    if backends:
        log.info(f"reading what container {backends[-1].name} was started with")
        found |= _plain(docker, backends[-1])
    for edge in (one for one in running if one.service == "frontend"):
        for port in edge.published.keys() - set(HTTPS_PORTS):
            found["EDGE_PORT"] = str(port)
    return {**found, "PROJECT_NAME": projects[0]} if projects else found


def renew_owner_password(root: Path, values: Mapping[str, str]) -> None:
    """Give the owner of the tables the password that `values` have for it, where PostgreSQL runs from `root`.

    Only migrations log in with it, so that of before is in no container.
    """
    docker = Docker(root)
    logins = logins_of(values, values["PROJECT_NAME"])
    databases = [one for one in _running(docker, root) if one.service == "postgres"]
    if databases and logins.apart:
        database = values.get("POSTGRES_DB", values["PROJECT_NAME"])
        sql = password_sql(root, database, logins, logins.login, logins.owner_password)
        psql_in(docker, databases[0].ident, database, sql)
        log.info(f"gave the role {logins.login} a new password, as nothing that runs has the old one")


def _running(docker: Docker, root: Path) -> list[Container]:
    return [one for one in containers_of(docker, root) if one.running] if shutil.which("docker") else []


def _plain(docker: Docker, replica: Container) -> dict[str, str]:
    """Return the settings in the environment of a replica that are not those of `.env` by default."""
    [facts] = docker.inspect(replica.ident)
    environment = dict(pair.partition("=")[::2] for pair in facts["Config"].get("Env") or ())
    own = {one.name: one.default for one in documented() if not one.secret and one.name not in SET_BY["compose"]}
    return {
        name: environment[name]
        for name, default in own.items()
        if name in environment and (name in DECISIVE or environment[name] != default)
    }
