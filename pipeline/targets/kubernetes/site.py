"""The site of a Kubernetes environment: its namespace, its overlay, and what this deploy knows of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipeline.config.managed import Managed, managed_stores
from pipeline.config.project import KubernetesEnvironment, Project
from pipeline.config.settings import URLS, backup_settings, read_values, split_secrets
from pipeline.config.sources import environment_values
from pipeline.engines.docker import Docker
from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.releases.model import Replica
from pipeline.system.progress import Progress
from pipeline.targets.kubernetes.artifacts import Artifacts
from pipeline.targets.kubernetes.changes import Key
from pipeline.targets.kubernetes.drill import smoke_config
from pipeline.targets.kubernetes.lease import Lease
from pipeline.targets.kubernetes.moves import Stores, without_moved
from pipeline.targets.kubernetes.objects import marked
from pipeline.targets.kubernetes.permissions import resources_of
from pipeline.targets.kubernetes.records import ClusterRecords
from pipeline.targets.kubernetes.release import KeptReleases, Release, release_of, settings_of
from pipeline.targets.kubernetes.rollout.watch import RolloutWatch, replica, service_pods
from pipeline.targets.kubernetes.secret import (
    OWNER,
    ROLE,
    needed_keys,
    pod_mark,
    read_secret,
    secret_name,
    secret_object,
    secret_values,
    secrets_fingerprint,
)
from pipeline.targets.kubernetes.store import find_store

__all__ = ["DATA", "MANAGERS", "OURS", "Site"]

# Not by our name (`part-of`): the account that deploys and its limits carry it, too, but belong to an administrator.
OURS = "app.kubernetes.io/managed-by=slipway"
# A StatefulSet gives its claims the labels of its selector, and no others.
DATA = "app.kubernetes.io/component in (postgres,redis)"
MANAGERS = "--show-managed-fields"


class Site:
    """What the roles of the kubernetes target share."""

    def __init__(self, project: Project, env: KubernetesEnvironment, progress: Progress) -> None:
        self.project, self.env, self.progress = project, env, progress
        self.home = project.state(env.name)
        self.resources = resources_of(project.root)  # what its overlay may hold
        self.kubectl = Kubectl(env.context, env.namespace)
        self.docker = Docker(project.root)
        self.kept = KeptReleases(self.home / "artifacts", project.retain)
        self.artifacts = Artifacts(project, env, self.kept)
        self.records = ClusterRecords(self.home / "releases", self.kept, self.kubectl, env)
        self.rollout, self.lease = RolloutWatch(self.kubectl), Lease(self.kubectl)
        self.values: dict[str, str] = read_values(project.root)
        self.secrets: dict[str, str] = {}  # once `problems` has read them,
        self.delivered: dict[str, str] = {}  # and what the cluster has of them
        self.objects: list[Object] = []  # of the overlay, once `problems` has rendered it
        self.drift: list[str] = []  # what an apply of this deploy would change, in words,
        self.changed: set[Key] = set()  # and the objects; of these,
        self.absent: set[Key] = set()  # those that are not there yet
        self.prepared = False  # the stores and settings of what this deploy ships are up

    @property
    def on_this_machine(self) -> bool:
        """Whether the cluster is one of kind, whose secrets come from `.env`."""
        return self.kubectl.context.startswith("kind-")

    @property
    def delivers(self) -> bool:
        """Whether a deploy writes the Secret, because the secrets come from here."""
        return self.on_this_machine or self.env.secrets is not None

    def read_values(self) -> None:
        """Read what the Secret is made of; for another machine's cluster, `.env` has nothing but the project's name."""
        root, source = self.project.root, self.env.secrets
        if source is None or self.on_this_machine:
            self.values = environment_values(root, self.env.name, source)
        else:
            name = read_values(root).get("PROJECT_NAME", self.project.name)
            self.values = {"PROJECT_NAME": name, **source.read(root, self.env.name)}

    @property
    def managed(self) -> Managed:
        """The stores that others manage, by the secrets that pods get."""
        there = self.known
        return Managed({name: there[name] for name in sorted(URLS) if there.get(name)})

    @property
    def known(self) -> dict[str, str]:
        """The secrets of this deploy; those of the cluster where nothing is deployed, as with a restore."""
        return self.secrets or read_secret(self.kubectl, self.secret)

    def secrets_of_env(self, objects: Iterable[Object]) -> dict[str, str]:
        """Return what the Secret of `objects` is to hold, from `.env`; what only the cluster knows stays."""
        objects, (plain, own), managed = list(objects), split_secrets(self.values), managed_stores(self.values)
        role = settings_of(objects).get(ROLE, "")
        return secret_values(
            needed_keys(objects, managed.names),
            {**own, **managed.files(), **backup_settings(self.values)},
            self.delivered,
            roles=(role, plain.get(ROLE, role)),
            owner="" if managed.database else plain.get(OWNER, ""),
        )

    @property
    def stand(self) -> str:
        """The name of this environment's throwaway containers on this machine."""
        return f"{self.values.get('PROJECT_NAME', self.project.name)}-{self.env.name}"

    def replicas(self) -> tuple[Replica, ...]:
        """Return the pods of the service."""
        return tuple(replica(pod, current=True) for pod in service_pods(self.rollout.glance()))

    def serving(self) -> list[str]:
        """Return the releases of the ready pods that are kept."""
        return [each.release for each in self.replicas() if each.ready and self.kept.knows(each.release)]

    def whole(self, release: Release) -> list[Object]:
        """Return the objects of `release`, and what goes with its requests and not with its manifests."""
        return [*release.manifests, *smoke_config(release.manifests, release.artifact.requests)]

    def fitting(self, release: Release) -> Release:
        """Return `release` without a PostgreSQL whose data has moved since: the one that serves stays as it is."""
        if find_store(release.manifests) is None:
            return release
        return replace(release, manifests=without_moved(release.manifests, Stores.read(self.kubectl)))

    def apply(self, objects: Iterable[Object]) -> None:
        """Apply `objects` and the secrets that go with them."""
        self.kubectl.apply(self.wanted(objects))

    def wanted(self, objects: Iterable[Object]) -> list[Object]:
        """Return what an apply of `objects` sends: without Jobs, with the Secret and its marks on the pod templates."""
        own = self.delivers and self.secrets
        secret = [secret_object(self.project.name, self.secrets)] if own else []
        objects = [each for each in objects if each["kind"] != "Job"]
        # Redis reads its users only once, and the service its secrets: so changed secrets must lead to new pods.
        mark = pod_mark(self.secrets)
        marks = {name_of(each): mark for each in objects if each["kind"] == "Deployment" and release_of(each)}
        marks["redis"] = secrets_fingerprint(self.secrets, ["REDIS_PASSWORD"])
        return [*secret, *marked(objects, marks)]

    def live(self, objects: list[Object]) -> list[Object]:
        """Return those of `objects` that exist in the cluster, as they are there."""
        places = [(*self._resource(each), name_of(each)) for each in objects]
        names = [f"{kind}{f'.{group}' if group else ''}/{name}" for group, kind, name in places]
        return self.kubectl.get(*names, MANAGERS) if names else []

    def _resource(self, one: Object) -> tuple[str, str]:
        """Return group and resource of `one`; of a recorded release, whose component may be gone, the singular."""
        return self.resources.get(one["kind"]) or (one["apiVersion"].rpartition("/")[0], one["kind"].lower())

    def resource_list(self, kinds: Iterable[str]) -> str:
        """Return the plural names of `kinds`, separated by commas, as kubectl takes them."""
        return ",".join(self.resources[kind][1] for kind in sorted(kinds))

    @property
    def secret(self) -> str:
        """The name of the service's Secret."""
        return secret_name(self.project.name)
