"""The service's entries in pyproject.toml.

Tests read its name here and never write it out, because `nox -s rename` changes no test.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config.project import load_project

__all__ = ["NAME", "PROJECT"]

PROJECT = load_project(Path(__file__).parents[1])
NAME = PROJECT.name
