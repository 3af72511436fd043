"""What changes between two releases, in words."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.project import Project
from pipeline.system.git import LOCKS, content_hash, shipped_files

__all__ = ["difference", "setting_lines", "shipped_hashes"]


def shipped_hashes(project: Project) -> dict[str, str]:
    """Name → hash of each file of the working tree that makes an image."""
    root = project.root
    return {name: content_hash(root, [name])[:16] for name in shipped_files(root, project.source, LOCKS.values())}


def difference(
    files: Mapping[str, str], before: Mapping[str, str], config: Mapping[str, str], config_before: Mapping[str, str]
) -> list[str]:
    """The files (name → hash) and settings that differ from BEFORE, in words."""
    changed = sorted(name for name in {*files, *before} if files.get(name) != before.get(name))
    return [
        *(f"{'packages' if name.startswith('requirements/') else 'file'} {name}" for name in changed),
        *setting_lines(config, config_before),
    ]


def setting_lines(config: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """One line for each setting of CONFIG that is another one than BEFORE."""
    return [
        f"setting {name}: {before.get(name, '(unset)')} → {config.get(name, '(unset)')}"
        for name in sorted({*config, *before})
        if config.get(name) != before.get(name)
    ]
