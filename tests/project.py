"""What pyproject.toml says of the service: tests read its name and never write it, for `nox -s rename` changes none."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.project import load_project

__all__ = ["NAME", "PROJECT"]

PROJECT = load_project(Path(__file__).parents[1])
NAME = PROJECT.name
