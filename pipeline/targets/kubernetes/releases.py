"""The releases of a Kubernetes environment: images in a registry, and the manifests that go with their digests."""

from __future__ import annotations

import logging

from pipeline.engines.kubectl import Refused, name_of
from pipeline.images.build import PushedImages
from pipeline.proof.report import Report
from pipeline.releases.model import Artifact
from pipeline.system.text import shorten
from pipeline.targets.common import roles
from pipeline.targets.common.difference import describe_difference
from pipeline.targets.kubernetes.changes import changes, conflicts, key_of, strangers
from pipeline.targets.kubernetes.objects import leftovers, mounted
from pipeline.targets.kubernetes.permissions import pruned
from pipeline.targets.kubernetes.platforms import foreign_problem
from pipeline.targets.kubernetes.rollout.watch import current_pods, replica
from pipeline.targets.kubernetes.site import MANAGERS, OURS, Site

__all__ = ["KubernetesReleases"]

log = logging.getLogger(__name__)


class KubernetesReleases(roles.Releases):
    """See `pipeline.targets.common.roles.Releases`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def build(self) -> Artifact:
        """Build and push the images, and render the manifests that go with their digests."""
        return self.site.artifacts.build(self.site.values.get("PROJECT_NAME", self.site.project.name)).artifact

    def recorded(self, name: str) -> Artifact:
        """Return a release from the cluster's records."""
        return self.site.kept.find(name).artifact

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe the files and settings that differ."""
        here, there = self.site.kept.find(new.name), self.site.kept.find(old.name)
        return describe_difference(here.files, there.files, here.config, there.config)

    def prune(self, retained: list[str]) -> None:
        """Delete the objects of recorded releases that the serving release does not have."""
        site = self.site
        serving = {replica(pod, current=True).release for pod in current_pods(site.rollout.glance())}
        known = [site.kept.find(name) for name in {*retained, *serving} if site.kept.knows(name)]
        needed = {key_of(each) for release in known if release.name in serving for each in site.whole(release)}
        if needed:  # PostgreSQL may be of another release by now, which it was moved with
            needed |= mounted(site.kubectl.get("statefulsets", f"--selector={OURS}"))
        kinds = {each["kind"] for release in known for each in release.manifests} & pruned(site.resources)
        if not needed:
            return
        live = site.kubectl.get(site.resource_list(kinds), f"--selector={OURS}", MANAGERS)
        gone = leftovers(live, needed, kinds)
        if gone:
            names = [f"{site.resources[each['kind']][1]}/{name_of(each)}" for each in gone]
            site.kubectl.do("delete", "--ignore-not-found", "--wait=false", *names)

    def adopt(self, reference: str | None) -> str | None:
        """Return the name of the release of an image digest in the registry.

        If the environment promotes from another one, the default is the newest digest that was proved there.
        """
        release = self.site.artifacts.adopt(reference)
        return release.name if release else None

    def pushed(self, new: Artifact) -> PushedImages:
        """Return the images of the release; on Kubernetes, all of them are in a registry."""
        return self.site.kept.find(new.name).images

    def objections(self, new: Artifact) -> list[str]:
        """Return the API server's objections to a dry run of everything.

        Also log what would change, and who else changed the objects that a deploy applies.
        """
        site = self.site
        wanted = site.wanted(site.whole(site.fitting(site.kept.find(new.name))))
        by_hand: list[str] = []
        try:
            site.kubectl.apply(wanted, dry_run=True, force=False)
        except Refused as error:
            by_hand = conflicts(error.said)
        try:
            after = site.kubectl.apply(wanted, dry_run=True)
        except Refused as error:
            lines = [line for line in error.said.splitlines() if line.strip() and not line.startswith("Warning")]
            return [
                f"the API server refuses it: {shorten(line.removeprefix('Error from server ').strip())}"
                for line in lines
            ]
        live = site.live(wanted)
        problem = foreign_problem(site.kubectl, wanted, live)
        if problem:
            return [problem]
        for line in strangers(live):
            log.warning(line)
        site.drift = [*by_hand, *changes(live, after)]
        site.changed = {key_of(one) for one in after if changes(live, [one])}
        site.absent = {key_of(one) for one in after} - {key_of(one) for one in live}
        for line in site.drift:
            log.info(f"changes {line}")
        return []

    def attest(self, report: Report) -> None:
        """Attach the report to the digest, in its registry."""
        self.site.artifacts.attest(report)
