"""What stands in the way of a deploy on this host, or will soon: one line each, with its fix."""

from __future__ import annotations

import re
from typing import Any

from pipeline.config.settings import split_secrets
from pipeline.targets.common.container import refused_login
from pipeline.targets.compose.stack import Stack
from pipeline.targets.compose.variables import Variables

__all__ = ["image_problems", "login_problems", "taken_problems", "volume_findings"]

FULL_PERCENT = 90
SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY)$")


def taken_problems(stack: Stack, env: str) -> list[str]:
    """Whether the project's name is another folder's."""
    folders = {one.folder for one in stack.containers()} - {str(stack.root)}
    if not folders:
        return []
    what = f"a compose project `{stack.name}` runs from {folders.pop()} already"
    return [f"{what}: `nox -s down -- {env}` there, or another PROJECT_NAME in .env"]


def login_problems(variables: Variables) -> list[str]:
    """Whether the volume was made with another POSTGRES_PASSWORD or POSTGRES_DB, in one line with its fix."""
    stack = variables.stack
    running = [one for one in stack.containers("postgres") if one.ready]
    if not running:
        return []
    plain, secrets = split_secrets(variables.values)
    database = plain.get("POSTGRES_DB", variables.project.name)
    password = secrets.get("POSTGRES_PASSWORD", "")
    said = refused_login(stack.docker, running[0].ident, variables.role, database, password)
    if said is None:
        return []
    volume = f"the data in volume {stack.name}_postgres"
    empty = f"or start empty with `nox -s down -- {variables.env.name} --volumes`"
    if said.startswith("database"):
        return [f"POSTGRES_DB: {volume} has another one ({said}): put its name back in .env, {empty}"]
    rotate = "rotate it (docs/4-runbook.md, New secrets)"
    what = f"POSTGRES_PASSWORD: {volume} was made with another one ({said})"
    return [f"{what}: put that back in .env, {rotate}, {empty}"]


def image_problems(image: dict[str, Any] | None) -> list[str]:
    """What an image must not be or carry."""
    config = (image or {}).get("Config", {})
    user = str(config.get("User", "")).partition(":")[0]
    if not user.isdigit() or user == "0":
        return [f"docker/Dockerfile.backend: it runs as `{user or 'root'}`: USER must be a number"]
    named = [one.partition("=")[0] for one in config.get("Env", []) if SECRET_NAME.search(one.partition("=")[0])]
    return [f"docker/Dockerfile.backend: the image carries {one}: secrets come as files" for one in named]


def volume_findings(container: str, df: str) -> list[str]:
    """What `df -Pk` of the data folder of CONTAINER says, where it is nearly full."""
    _, blocks, _, free, used, _ = df.strip().splitlines()[-1].split(maxsplit=5)
    if int(used.rstrip("%")) < FULL_PERCENT:
        return []
    sizes = f"{int(free) // 1024} of {int(blocks) // 1024} MB are free"
    return [f"{container}: the disk of its volume is {used} full ({sizes}): make room (`docker system df`)"]
