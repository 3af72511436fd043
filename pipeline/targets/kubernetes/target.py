"""The kubernetes target: an overlay of k8s/ in one namespace of any cluster."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from pipeline.config.managed import managed_stores
from pipeline.config.place_of_data import settings_problems
from pipeline.config.project import KubernetesEnvironment, Project
from pipeline.config.settings import ensure_env
from pipeline.config.sources import place_of, secrets_place
from pipeline.engines.kubectl import Object
from pipeline.engines.kustomize import unfilled
from pipeline.errors import UsageError
from pipeline.releases.lock import Holder
from pipeline.system.progress import Progress
from pipeline.targets.kubernetes.backups import KubernetesBackups
from pipeline.targets.kubernetes.database import KubernetesDatabase
from pipeline.targets.kubernetes.fleet import KubernetesFleet
from pipeline.targets.kubernetes.objects import grace_problems
from pipeline.targets.kubernetes.permissions import access_problems
from pipeline.targets.kubernetes.records import NAMESPACE_MARK, ClusterRecords
from pipeline.targets.kubernetes.release import NOTHING_YET, settings_of
from pipeline.targets.kubernetes.releases import KubernetesReleases
from pipeline.targets.kubernetes.rollout.bake import Bake
from pipeline.targets.kubernetes.secret import (
    ROLE,
    doubled_secret,
    doubled_stores,
    missing_keys,
    needed_keys,
    read_secret,
    unread_urls,
)
from pipeline.targets.kubernetes.secrets import KubernetesSecrets
from pipeline.targets.kubernetes.site import DATA, Site
from pipeline.targets.kubernetes.vantage.follower import Witness

__all__ = ["KubernetesTarget"]

log = logging.getLogger(__name__)


class KubernetesTarget:
    """The target of `nox -s deploy -- kind` and others; `pipeline.targets.Target` says what each method promises."""

    def __init__(self, project: Project, env: KubernetesEnvironment, progress: Progress) -> None:
        self.project, self.env, self.url = project, env, env.url
        site = self.site = Site(project, env, progress)
        self.releases, self.database = KubernetesReleases(site), KubernetesDatabase(site)
        self.secrets = KubernetesSecrets(site)
        witness = Witness(site.kubectl, site.secret)
        self.watch = Bake(site.kubectl, site.rollout, witness, site.lease, env.max_failures)
        self.fleet = KubernetesFleet(site, self.watch)
        self.backups = KubernetesBackups(site)

    def records(self) -> ClusterRecords:
        """Return the records of the cluster. Raise `UsageError` where its API server cannot be asked."""
        problem = self.site.kubectl.server_problem()
        if problem:
            raise UsageError(problem)
        self.site.records.refresh()
        return self.site.records

    def lock(self) -> AbstractContextManager[None]:
        """Hold the Lease of the environment."""
        return self.site.lease.hold()

    def holder(self) -> Holder | None:
        """Return who holds the Lease."""
        return self.site.lease.holder()

    def problems(self) -> list[str]:
        """Return what is wrong with the overlay, the permissions or the secrets."""
        if line := self.site.kubectl.token_problem():  # it is good for this deploy still
            log.warning(line)
        overlay = self.site.artifacts.overlay
        if not (overlay / "kustomization.yaml").exists():
            return [f"pyproject.toml [tool.slipway.environments.{self.env.name}]: overlay: there is no {overlay}"]
        if self.site.on_this_machine and not self.site.kubectl.get("configmap", NAMESPACE_MARK):
            # The cluster is shared: another service may have made it.
            return [f"the cluster has no namespace {self.env.namespace}: `nox -s cluster` makes it"]
        _, objects = self.site.artifacts.render(NOTHING_YET)
        self.site.objects = objects
        unknown = sorted({each["kind"] for each in objects} - self.site.resources.keys())
        what = "is not something that a deploy applies: move it to k8s/bootstrap"
        problems = [f"{self.env.overlay}: {kind} {what}" for kind in unknown]
        problems += unfilled(objects)
        problems += grace_problems(objects, self.env.overlay)
        problems += access_problems(self.site.kubectl, (each["kind"] for each in objects), self.site.resources)
        return problems or self._secret_problems(objects)

    def _secret_problems(self, objects: list[Object]) -> list[str]:
        site, root = self.site, self.project.root
        there = read_secret(site.kubectl, site.secret)
        site.delivered = there
        unread = unread_urls(there, objects, site.kubectl, site.secret)
        if not site.delivers:
            site.secrets = there
            urls = site.managed.names
            missing = missing_keys(needed_keys(objects, urls), there, site.kubectl, site.secret, objects)
            return [*missing, *unread, *doubled_stores(urls, objects, self.env.overlay)]
        if site.on_this_machine and ensure_env(root):
            log.info("wrote .env with fresh secrets (mode 0600)")
        source = self.env.secrets
        site.read_values()
        role, managed = settings_of(objects).get(ROLE, ""), managed_stores(site.values)
        site.secrets = site.secrets_of_env(objects)
        names = f"{self.env.overlay} names the {{store}} of {self.env.name}"
        problems = doubled_secret(objects, self.env.overlay, site.secret) if source else []
        if site.on_this_machine:  # elsewhere the settings are the overlay's alone
            place = secrets_place(source)
            problems += settings_problems(root, site.values, names, settings_of(objects), managed.names, source=place)
        problems += [*unread, *managed.container_problems()]
        problems += doubled_stores(managed.names, objects, self.env.overlay)
        known, now = [(each.get(ROLE, role), each.get("POSTGRES_PASSWORD")) for each in (there, site.secrets)]
        changed = there and known[0] == now[0] and known != now  # another role has another password
        if changed and site.kubectl.get("persistentvolumeclaims", f"--selector={DATA}"):
            what = f"POSTGRES_PASSWORD: the data in namespace {self.env.namespace} was made with another one"
            rotate = "rotate it (docs/4-runbook.md, New secrets)"
            empty = f"start empty with `nox -s down -- {self.env.name} --volumes`"
            back = f"put the old one back in {place_of('POSTGRES_PASSWORD', source)}"
            problems.append(f"{what}: take .env from whoever deployed there, {back}, {rotate}, or {empty}")
        return problems
