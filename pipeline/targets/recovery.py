"""What `.env` was made with, taken back from what runs: after `git clean -ffdx`, or on another person's machine."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.project import Project
from pipeline.config.settings import OWNER_PASSWORD
from pipeline.errors import SlipwayError
from pipeline.targets.compose.recovery import recovered_from_containers, renew_owner_password
from pipeline.targets.local.recovery import recovered_from_processes

__all__ = ["finish_recovery", "recovered"]


def recovered(project: Project) -> dict[str, str]:
    """Return the settings and secrets by which what was deployed from this folder runs.

    The password of PostgreSQL's superuser is among them, which `.env` has not. Raise `SlipwayError` where nothing runs.
    """
    homes = [project.state(name) for name, env in project.environments.items() if env.target == "local"]
    found = recovered_from_containers(project.root)
    for home in homes:
        found = found or recovered_from_processes(home)
    if not found:
        raise SlipwayError(
            "nothing that was deployed from this folder runs here with its secrets, so that none can be taken back:"
            " put .env back from wherever it was kept"
        )
    return found


def finish_recovery(project: Project, found: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Let what runs have those secrets of `values`, the new `.env`, that were not `found` in it."""
    if OWNER_PASSWORD not in found:
        renew_owner_password(project.root, values)
