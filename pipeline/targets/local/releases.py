"""The releases of a local environment: folders named by their content."""

from __future__ import annotations

import shutil

from pipeline.config.settings import release_settings
from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact
from pipeline.targets.common import roles
from pipeline.targets.local.difference import describe_difference
from pipeline.targets.local.site import Site

__all__ = ["LocalReleases"]


class LocalReleases(roles.Releases):
    """See `pipeline.targets.common.roles.Releases`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def build(self) -> Artifact:
        """Build the release as a folder named by its content."""
        self.site.layout.make()
        return self.site.artifacts.build(release_settings(self.site.values))

    def recorded(self, name: str) -> Artifact:
        """Return the release of a kept folder, with its virtual environments prepared."""
        artifacts = self.site.artifacts
        artifact = artifacts.recorded(name)
        artifacts.prepare(name)
        return artifact

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe the files, packages and settings that differ."""
        return describe_difference(self.site.artifacts, new.name, old.name)

    def objections(self, new: Artifact) -> list[str]:
        """Return Caddy's objections to docker/edge/Caddyfile."""
        site = self.site
        try:
            site.edge.config(site.engines(keep=False).caddy, site.caddyfile)
        except SlipwayError as error:
            return list(error.problems)
        return []

    def prune(self, retained: list[str]) -> None:
        """Remove release folders, virtual environments and configurations that nothing refers to."""
        slots = self.site.replicas.slots()
        self.site.artifacts.prune({*retained, *(slot.release for slot in slots)}, self.site.engines_venv())
        for folder in self.site.layout.configs.iterdir():
            if folder.name not in {slot.config for slot in slots}:
                shutil.rmtree(folder)
