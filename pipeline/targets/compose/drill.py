"""A drill on Compose: a backup in a throwaway PostgreSQL, and a replica of the release that serves on it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import DeployFailed, ProgramFailed, SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.run import CommandFailed
from pipeline.targets.common.backups import answer_of, ask_on
from pipeline.targets.common.containers import ContainerStand, ThrowawayDatabase, sweep
from pipeline.targets.common.rights import Throwaway
from pipeline.targets.common.roles import LONGEST
from pipeline.targets.compose.site import Site

__all__ = ["answer_of_failed", "drill", "throwaway_of", "without_noise"]

# Of Compose, among what the program in its container says.
NOISE = re.compile(r" *(Container|Network|Volume) \S+ +\w+ *|\s*")
SERVER = ("POSTGRES_HOST", "POSTGRES_PORT")
STOP_SECONDS = 60  # for a program that is given up to remove what it began


def throwaway_of(project: str) -> str:
    """Return the label of the throwaway containers of the drills of a Compose project."""
    return f"{project}-drill"


def drill(
    site: Site, name: str, serving: Artifact, told: Callable[[str], None], *, image: str, options: Sequence[str]
) -> dict[str, Any]:
    """See `pipeline.targets.common.roles.Backups.drill`. `image` has the program, `options` mount its keys."""
    services = site.stack.services(site.variables.environment(None))
    stores = (str(services["postgres"]["image"]), str(services["redis"]["image"]))
    # By a label of its own, because a deploy, which does not wait for a drill, sweeps what another one has left.
    project = throwaway_of(site.stack.name)
    sweep(site.docker, project)
    throwaway = Throwaway(site.project.root, site.variables.logins.owner, site.variables.database)
    stand = ContainerStand(project, site.docker, site.artifacts.find, stores, site.secrets, throwaway)
    # Its data is on the disk, in a volume that goes with it: a backup may be larger than the memory.
    with stand.server() as server:
        begun = time.monotonic()
        logins = stand.logins(server)
        place = {**{name: server.environment[name] for name in SERVER}, "POSTGRES_DB": site.variables.database}
        owner = {"POSTGRES_USER": logins.login, "POSTGRES_PASSWORD": logins.owner_password}
        # Who restores is named once: as the user, and not as the owner of the settings beside a service's login.
        given = {**site.backups.settings(), "POSTGRES_OWNER": "", **place, **owner, **_superuser(server)}
        try:
            said = stand.run(
                *(image, "drill", name),
                network=server.network,
                environment=given,
                options=(*site.backups.mounts(), *options),
                timeout=LONGEST,
                grace=STOP_SECONDS,
                progress=told,
                output_level=logging.DEBUG,
            )
            drilled = answer_of(0, said, "")["drilled"]
        except SlipwayError as error:
            try:
                answer_of_failed(error)
            except ProgramFailed as failed:
                raise DeployFailed(f"{name} is no good: {failed.said}") from error
            raise
        seconds = {"restore": time.monotonic() - begun}
        begun = time.monotonic()
        told("a replica of the release that serves is asked on it")
        service = {"POSTGRES_USER": logins.user, "POSTGRES_PASSWORD": logins.password}
        with stand.replica(serving, replace(server, environment={**place, **service})) as base:
            sent = ask_on(name, serving, base, site.variables.tokens.current)
        seconds["try"] = time.monotonic() - begun
    return {"drilled": drilled, "sent": sent, "seconds": seconds}


def _superuser(server: ThrowawayDatabase) -> dict[str, str]:
    names = {"POSTGRES_USER": "POSTGRES_SUPERUSER", "POSTGRES_PASSWORD": "POSTGRES_SUPERUSER_PASSWORD"}
    return {there: server.environment[here] for here, there in names.items()}


def without_noise(told: Callable[[str], None]) -> Callable[[str], None]:
    """Return what hands on to `told` each line that is not Compose's own."""

    def hear(line: str) -> None:
        if not NOISE.fullmatch(line):
            told(line)

    return hear


def answer_of_failed(error: SlipwayError) -> dict[str, Any]:
    """Return what the program that ended with `error` printed in spite of it; raise what it means otherwise."""
    failed = error.__cause__
    if not isinstance(failed, CommandFailed):
        raise error
    complaint = [line for line in failed.output.splitlines() if not NOISE.fullmatch(line)]
    return answer_of(failed.code, failed.said, "\n".join(complaint))
