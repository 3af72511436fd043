"""A deploy in an environment that listens, told by the fake target."""

from __future__ import annotations

from typing import Any

from tests.pipeline.deploy.world import World

__all__ = ["MINUTES", "deploy", "listens"]

MINUTES = 3.0


def listens(world: World) -> World:
    """Let the environment of `world` watch."""
    env = world.target.env.model_copy(update={"watch_minutes": MINUTES, "prometheus": "http://127.0.0.1:9"})
    world.target.env = world.target.project.environments[env.name] = env
    return world


def deploy(world: World, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the verb as a person would; return the exit code and the report."""
    code, report = world.run("deploy", "--json", *arguments) or (0, None)
    return code, report
