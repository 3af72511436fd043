"""A description of what changes between two releases."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.project import Project
from pipeline.system.git import LOCKS, content_hash, shipped_files

__all__ = ["describe_difference", "setting_lines", "shipped_hashes"]


def shipped_hashes(project: Project) -> dict[str, str]:
    """Return the content hash of each file of the working tree that goes into an image, by name."""
    root = project.root
    return {name: content_hash(root, [name])[:16] for name in shipped_files(root, project.source, LOCKS.values())}


def describe_difference(
    files: Mapping[str, str], before: Mapping[str, str], config: Mapping[str, str], config_before: Mapping[str, str]
) -> list[str]:
    """Describe the files (name → hash) and settings that differ, one line each.

    `before` and `config_before` are those of the other release.
    """
    changed = sorted(name for name in {*files, *before} if files.get(name) != before.get(name))
    return [
        *(f"{'packages' if name.startswith('requirements/') else 'file'} {name}" for name in changed),
        *setting_lines(config, config_before),
    ]


def setting_lines(config: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Return one line for each setting of `config` that differs from `before`."""
    return [
        f"setting {name}: {before.get(name, '(unset)')} → {config.get(name, '(unset)')}"
        for name in sorted({*config, *before})
        if config.get(name) != before.get(name)
    ]
