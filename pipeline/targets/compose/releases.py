"""The releases of a compose environment: images that the engine keeps, built here or pulled by digest."""

from __future__ import annotations

from pipeline.errors import DeployFailed, UsageError
from pipeline.images.build import PushedImages, find_pushed, image_repository
from pipeline.registry.image import image_ids
from pipeline.registry.reference import is_digest, split_digest
from pipeline.releases.model import Artifact
from pipeline.system.git import read_source
from pipeline.targets.common import roles
from pipeline.targets.common.difference import describe_difference
from pipeline.targets.compose.problems import image_problems
from pipeline.targets.compose.site import Site

__all__ = ["ComposeReleases"]


class ComposeReleases(roles.Releases):
    """See `pipeline.targets.common.roles.Releases`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._repository: str | None = None  # of the release that was asked for by digest

    def build(self) -> Artifact:
        """Build the images of the release, and the edge's."""
        site = self.site
        built = site.images.build()
        site.variables.frontend = site.images.build_frontend()
        return site.artifacts.keep(built, site.variables.config(), read_source(site.project.root)).artifact

    def recorded(self, name: str) -> Artifact:
        """Return a release whose images are kept. Raise `UsageError` where the edge of today could not reach it."""
        kept = self.site.artifacts.find(name)
        if not kept.socket:
            raise UsageError(
                f"release {name} does not listen on BACKEND_SOCKET, where the edge asks (it was built by an earlier"
                f" version): check out {kept.source.commit or 'its source'} with today's backend/server.py, and deploy"
            )
        return kept.artifact

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe the files and settings that differ."""
        here, there = self.site.artifacts.find(new.name), self.site.artifacts.find(old.name)
        return describe_difference(here.files, there.files, here.config, there.config)

    def prune(self, retained: list[str]) -> None:
        """Remove the releases and the image tags that nothing refers to."""
        running = {replica.labels.get("slipway.release", "") for replica in self.site.replicas.all()}
        self.site.artifacts.prune({*retained, *running})

    def adopt(self, reference: str | None) -> str | None:
        """Return the release of an image digest; pull it if it is not kept here."""
        if reference is None or not is_digest(reference):
            return None
        self._repository = split_digest(reference)[0] or image_repository() or None
        return self.site.artifacts.adopt(reference, self._repository, self.site.variables.config()).name

    def pushed(self, new: Artifact) -> PushedImages | None:
        """Return the images that were pulled by digest. The edge's image is built here, from the working tree."""
        place = self._repository
        if place is None or not is_digest(new.name.partition("+")[0]):
            return None
        pushed = find_pushed(f"{place}@{new.name.partition('+')[0]}")
        here = self.site.artifacts.find(new.name).images
        for part, ident in here.parts.items():
            # An image's ID is the digest of its config or, with the containerd store, of its manifest or index.
            if ident not in image_ids(pushed.place(part)):
                raise DeployFailed(f"{ident} is not the image {pushed.place(part)} that it should be: pull it again")
        return pushed

    def objections(self, new: Artifact) -> list[str]:
        """List what is obviously wrong with the image."""
        return image_problems(self.site.docker.image(self.site.artifacts.find(new.name).images.backend))
