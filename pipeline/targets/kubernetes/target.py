"""The kubernetes target: an overlay of k8s/ in one namespace of any cluster. Kubernetes rolls, this watches."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.docker import Docker, docker_problems
from pipeline.errors import DeployFailed, UsageError
from pipeline.images import Images, PushedImages, repository_problem
from pipeline.lock import Holder
from pipeline.migrations import migration_hashes, must_not_rewrite_history, required_revision
from pipeline.model import Artifact, Migration, Replica, Running
from pipeline.progress import Progress
from pipeline.project import Environment, Project
from pipeline.proof.verdict import short
from pipeline.settings import check_values, ensure_env, read_values, split_secrets
from pipeline.source import read_source
from pipeline.targets.compose.artifacts import describe_difference, is_digest, shipped_hashes
from pipeline.targets.compose.rehearsal import ComposeStand, sweep
from pipeline.targets.compose.secret_files import SERVICE_SECRETS, write_secret_files
from pipeline.targets.kubernetes.access import RESOURCES, access_problems
from pipeline.targets.kubernetes.changes import changes, conflicts, key_of
from pipeline.targets.kubernetes.job import MigrateJob
from pipeline.targets.kubernetes.kubectl import Kubectl, Object, Refused, Unreachable, describe, name_of
from pipeline.targets.kubernetes.lease import Lease
from pipeline.targets.kubernetes.observation import named
from pipeline.targets.kubernetes.records import ClusterRecords
from pipeline.targets.kubernetes.release import NOTHING_YET, Release, Releases, render
from pipeline.targets.kubernetes.rollout import Rollout, current_pods, replica, secrets_mark, service_pods
from pipeline.targets.kubernetes.secret import (
    SECRET,
    SECRETS_ANNOTATION,
    fingerprint,
    missing_keys,
    needed_keys,
    read_secret,
    secret_object,
    secret_values,
)
from pipeline.targets.rehearsal import rehearse

__all__ = ["KubernetesTarget"]

OURS = "app.kubernetes.io/part-of=slipway"
SERVICE = "backend"
STORES = ("postgres", "redis")
COMPONENT = "app.kubernetes.io/component"
# What a release may leave behind and is removed; data and what holds it never is.
PRUNED = ("Deployment", "Service", "ServiceAccount", "ConfigMap", "HorizontalPodAutoscaler", "NetworkPolicy",
          "PodDisruptionBudget", "HTTPRoute", "Gateway", "Ingress", "ServiceMonitor", "ExternalSecret")  # fmt: skip
# These exist before the migrations run; all others change with the rollout, under traffic.
FIRST = ("ConfigMap", "ServiceAccount", "Service", "PersistentVolumeClaim", "StatefulSet", "ExternalSecret")
STORE_SECONDS = 180
GONE_SECONDS = 90
TROUBLE_SECONDS = 1.0  # how often the API server is asked in a proof


class KubernetesTarget:
    """`nox -s deploy -- kind` and others: see `pipeline.targets.Target` for what each method promises."""

    def __init__(self, project: Project, env: Environment, progress: Progress) -> None:
        self.project, self.env, self.progress = project, env, progress
        assert env.overlay, env
        assert env.context, env
        assert env.namespace, env
        self.url, self.namespace = env.url, env.namespace
        self.overlay = project.root / env.overlay
        self.home = project.state(env.name)
        self.kubectl = Kubectl(env.context, env.namespace, progress.say)
        self.rollout = Rollout(self.kubectl)
        self.releases = Releases(self.home / "artifacts", project.retain)
        self.docker = Docker(project.root, progress.say)
        self.lease = Lease(self.kubectl)
        self.values = read_values(project.root)
        self._secrets: dict[str, str] = {}
        self._token_before: str | None = None
        self._drift: list[str] = []
        self._rolled_out: str | None = None  # the release that got ready
        self._looked = 0.0

    # --- plan ---

    @property
    def on_this_machine(self) -> bool:
        """Whether the cluster is one of kind: its secrets are those of `.env`."""
        return str(self.env.context).startswith("kind-")

    def records(self) -> ClusterRecords:
        """Those of the cluster."""
        problem = self.kubectl.server_problem()
        if problem:
            raise UsageError(problem)
        found = ClusterRecords(self.home / "releases", self.releases, self.kubectl)
        found.fetch()
        return found

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """A Lease."""
        return self.lease.hold(say)

    def holder(self) -> Holder | None:
        """Whose Lease it is."""
        return self.lease.holder()

    def problems(self) -> list[str]:
        """The overlay, the permissions, the secrets."""
        if not (self.overlay / "kustomization.yaml").exists():
            return [f"pyproject.toml [tool.slipway.environments.{self.env.name}]: overlay: there is no {self.overlay}"]
        _, objects = self._render(NOTHING_YET)
        unknown = sorted({one["kind"] for one in objects} - RESOURCES.keys())
        problems = [
            f"{self.env.overlay}: {kind} is nothing that a deploy may apply: bootstrap is for it" for kind in unknown
        ]
        problems += access_problems(self.kubectl, (one["kind"] for one in objects))
        return problems or self._secret_problems(objects)

    def _secret_problems(self, objects: list[Object]) -> list[str]:
        keys, there = needed_keys(objects), read_secret(self.kubectl)
        self._token_before = there.get("SERVICE_TOKEN")
        if not self.on_this_machine:
            self._secrets = there
            return missing_keys(keys, there, self.kubectl)
        if ensure_env(self.project.root):
            self.progress.say("wrote .env with fresh secrets (mode 0600)")
            self.values = read_values(self.project.root)
        self._secrets = secret_values(keys, split_secrets(self.values)[1], there)
        return check_values(self.project.root, self.values)

    def heal(self) -> bool:
        """Throwaway containers of a killed deploy go; everything else Kubernetes keeps by itself."""
        if shutil.which("docker") and not docker_problems(compose=False):
            swept = sweep(self.docker, self._stand_name)
            if swept:
                self.progress.warn(
                    f"removed {len(swept)} throwaway containers and networks that a killed deploy had left"
                )
        return False

    # --- build and check ---

    def build(self) -> Artifact:
        """The images, pushed; and the manifests that go with their digests."""
        repository = os.environ.get("IMAGE_REPOSITORY") or self.env.repository or ""
        problems = [one for one in (repository_problem(repository), *docker_problems(compose=False)) if one]
        if problems:
            raise UsageError(*problems)
        project = self.values.get("PROJECT_NAME", "slipway")
        pushed = Images(self.project.root, project, self.progress.say).push(repository)
        name, objects = self._render(pushed)
        release = Release(
            name=name,
            images=pushed,
            source=read_source(self.project.root),
            revision=required_revision(self.project.root),
            requests=[spec.table() for spec in self.project.requests],
            files=shipped_hashes(self.project),
            migrations=migration_hashes(self.project.root),
            manifests=objects,
        )
        self.releases.keep(release)
        return release.artifact

    def _render(self, images: PushedImages) -> tuple[str, list[Object]]:
        return render(self.home / "render", self.overlay, self.namespace, images, self.releases)

    def recorded(self, name: str) -> Artifact:
        """A release of the cluster's records."""
        return self.releases.find(name).artifact

    def adopt(self, reference: str) -> str | None:
        """An image digest that the registry has."""
        if not is_digest(reference):
            return None
        raise UsageError(
            f"`{reference}`: shipping a digest that this cluster never had is not part of this version yet"
        )

    def objections(self, new: Artifact) -> list[str]:
        """What the API server says to a dry run of everything; and who else changed what a deploy applies."""
        release = self.releases.find(new.name)
        wanted = [*self._secret_objects(), *self._marked(release)]
        self._drift = []
        try:
            self.kubectl.apply(wanted, dry_run=True, force=False)
        except Refused as error:
            self._drift = conflicts(error.said)
        try:
            after = self.kubectl.apply(wanted, dry_run=True)
        except Refused as error:
            return [_admission(line) for line in error.said.splitlines() if line.strip() and "Warning" not in line]
        live = self._live(wanted)
        lines = changes(live, after)
        for line in [*self._drift, *lines]:
            self.progress.say(f"changes {line}")
        self._drift = self._drift or lines
        return []

    def running(self) -> Running:
        """The pods of the service, and what of their surroundings is not as it should be."""
        seen = self.rollout.observe()
        mark = fingerprint(self._secrets) if self._secrets else None
        fresh = [named(one) for one in current_pods(seen) if mark in (None, secrets_mark(one))]
        replicas = tuple(replica(one, current=named(one) in fresh) for one in service_pods(seen))
        deployment = seen.deployment(SERVICE)
        wanted = deployment["spec"].get("replicas", 1) if deployment else 0
        return Running(replicas=replicas, wanted=wanted, problems=(*self._surroundings(), *self._drift))

    def _surroundings(self) -> list[str]:
        found = self.kubectl.get("deployments,statefulsets", f"--selector={OURS}")
        lines = []
        for one in found:
            wanted, ready = one["spec"].get("replicas", 1), one.get("status", {}).get("readyReplicas", 0)
            if name_of(one) != SERVICE and ready < wanted:
                lines.append(f"{describe(one)}: {ready} of {wanted} pods ready")
        return lines

    def findings(self) -> list[str]:
        """What stands in the way of any pod of ours, or of its storage."""
        return self.rollout.findings()

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Files and settings that differ."""
        here, there = self.releases.find(new.name), self.releases.find(old.name)
        return describe_difference(here.files, there.files, here.config, there.config)

    def pending(self, new: Artifact) -> list[Migration]:
        """What the database lacks of NEW; all of it where there is no database yet."""
        if new.revision is None:
            return []
        release = self.releases.find(new.name)
        current = self._revision(release)
        if current == "none":
            self.progress.say("no database runs yet: each migration counts as new")
        else:
            for name in {one.release for one in self._replicas() if self.releases.knows(one.release)}:
                must_not_rewrite_history(release.migrations, self.releases.find(name).migrations, current)
        if current != "none" and current >= new.revision:
            return []
        image = release.images.references.migrate
        found = json.loads(self.docker.ask("run", "--rm", "--network", "none", image, "plan", "--from", current))
        return [
            Migration(**{key: one[key] for key in ("revision", "message", "contract_after", "sql")}) for one in found
        ]

    def _revision(self, release: Release) -> str:
        """The database's revision, or `none`. A release that serves needs no less than its own, and a database is never
        taken back: so only where none serves, or a newer one is wanted, a pod has to ask.
        """
        serving = [one.release for one in self._replicas() if one.ready and self.releases.knows(one.release)]
        known = max((self.releases.find(name).revision or "" for name in serving), default="")
        if known and known >= (release.revision or ""):
            return known
        there = self._live(release.objects(["StatefulSet"]))
        if release.objects(["StatefulSet"]) and not any(name_of(one) == "postgres" for one in there):
            return "none"
        return self._job(release).run("current", prepare=[*self._secret_objects(), *release.objects(FIRST)])

    def _replicas(self) -> tuple[Replica, ...]:
        return tuple(replica(one, current=True) for one in service_pods(self.rollout.observe()))

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """On throwaway containers of this machine: nothing of it is the cluster's business."""
        problems = docker_problems(compose=False)
        if problems:
            raise DeployFailed(f"new migrations are tried in containers first: {problems[0]}")
        with self._stand() as stand:
            rehearse(stand, new, old, (stand.secrets / "SERVICE_TOKEN").read_text())

    @contextlib.contextmanager
    def _stand(self) -> Iterator[ComposeStand]:
        """With secrets of its own, which end with it."""
        folder = Path(tempfile.mkdtemp(prefix="slipway-"))
        try:
            write_secret_files(folder, {name: os.urandom(24).hex() for name in SERVICE_SECRETS})
            images = (self._image("postgres", "postgres:18-trixie"), self._image("redis", "redis:8-trixie"))
            yield ComposeStand(self._stand_name, self.docker, self.releases.pullable, images, folder)
        finally:
            shutil.rmtree(folder)

    @property
    def _stand_name(self) -> str:
        return f"{self.values.get('PROJECT_NAME', 'slipway')}-{self.env.name}"

    def _image(self, store: str, otherwise: str) -> str:
        """The image of a STORE of the overlay; OTHERWISE where it is outside."""
        _, objects = self._render(NOTHING_YET)
        sets = [one for one in objects if (one["kind"], name_of(one)) == ("StatefulSet", store)]
        return str(sets[0]["spec"]["template"]["spec"]["containers"][0]["image"]) if sets else otherwise

    # --- migrate and roll out ---

    def prepare(self, new: Artifact) -> None:
        """The Secret, settings, data stores: what the migrations need. What serves is not touched."""
        release = self.releases.find(new.name)
        policies = [one for one in release.objects(["NetworkPolicy"]) if _component(one) in (*STORES, "migrate")]
        first = [*self._secret_objects(), *release.objects(FIRST), *policies]
        if not self._live(release.objects(["Deployment"])):  # nothing serves: there is nothing to disturb
            first += release.objects(["NetworkPolicy"])
        self.kubectl.apply({key_of(one): one for one in first}.values())
        for one in release.objects(["StatefulSet"]):
            self._wait_for_store(one)

    def _wait_for_store(self, one: Object) -> None:
        deadline = time.monotonic() + STORE_SECONDS
        while True:
            [now] = self.kubectl.get(one["kind"].lower(), name_of(one)) or [one]
            status, wanted = now.get("status", {}), now["spec"].get("replicas", 1)
            fresh = status.get("observedGeneration", 0) >= now["metadata"].get("generation", 1)
            if fresh and status.get("readyReplicas", 0) >= wanted and status.get("updatedReplicas", 0) >= wanted:
                return
            if time.monotonic() > deadline:
                raise DeployFailed(
                    f"{describe(one)} did not get ready within {STORE_SECONDS} s: `nox -s doctor -- {self.env.name}`"
                )
            self.progress.live("migrate", f"waiting for {describe(one)}")
            time.sleep(1)

    def migrate(self, new: Artifact) -> None:
        """A Job from the new release's own image."""
        if new.revision is not None:
            self._job(self.releases.find(new.name)).run("upgrade")

    def _job(self, release: Release) -> MigrateJob:
        return MigrateJob(self.kubectl, release.objects(["Job"])[0], lambda line: self.progress.live("migrate", line))

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Apply the whole release; Kubernetes replaces pod by pod, never below what the Deployment allows."""
        del back  # the Deployment's own strategy drains and never goes below N
        deadline = time.monotonic() + self.env.timeout
        self._rolled_out = None
        release = self.releases.find(new.name)
        self.kubectl.apply([*self._secret_objects(), *self._marked(release)])
        self.rollout.wait(new.name, lambda line: self._watched(watch, line), deadline)
        self._rolled_out, self._looked = new.name, 0.0

    def _watched(self, watch: Callable[[str], None], line: str) -> None:
        if self.lease.lost:
            raise DeployFailed(self.lease.lost)
        watch(line)

    def trouble(self) -> str | None:
        """A pod that was ready and crashed since; or a lock that was lost."""
        if self._rolled_out is None or time.monotonic() - self._looked < TROUBLE_SECONDS:
            return None
        self._looked = time.monotonic()
        with contextlib.suppress(Unreachable):  # an API server that is away says nothing against a release
            crashed = self.rollout.crashed(self._rolled_out)
            if crashed:
                return f"release {short(self._rolled_out)} ended after it was ready: {crashed}"
        return self.lease.lost

    def withdraw(self) -> None:
        """The service's Deployment goes, and what would scale it."""
        self._rolled_out = None
        self.kubectl.do("delete", "deployment,horizontalpodautoscaler", SERVICE, "--ignore-not-found")

    # --- the rest ---

    def token(self) -> str | None:
        """SERVICE_TOKEN."""
        return self._secrets.get("SERVICE_TOKEN")

    def token_changes(self) -> bool:
        """Whether the cluster's Secret had another one."""
        return self._token_before is not None and self._token_before != self.token()

    def prune(self, retained: list[str]) -> None:
        """Objects of recorded releases that the one that serves does not have, and manifests that nothing refers to."""
        seen = self.rollout.observe()
        serving = {replica(one, current=True).release for one in current_pods(seen)}
        known = [self.releases.find(name) for name in {*retained, *serving} if self.releases.knows(name)]
        needed = {key_of(one) for release in known if release.name in serving for one in release.manifests}
        if not needed:
            return
        gone = [
            one
            for one in self.kubectl.get(
                ",".join(RESOURCES[kind][1] for kind in self._kinds(known)), f"--selector={OURS}"
            )
            if key_of(one) not in needed and one["kind"] in PRUNED and _applied_by_us(one)
        ]
        if gone:
            names = [f"{RESOURCES[one['kind']][1]}/{name_of(one)}" for one in gone]
            self.kubectl.do("delete", "--ignore-not-found", "--wait=false", *names)

    @staticmethod
    def _kinds(releases: list[Release]) -> list[str]:
        return sorted({one["kind"] for release in releases for one in release.manifests} & set(PRUNED))

    def down(self, *, volumes: bool) -> None:
        """Everything that a deploy applied goes; claims of storage, the records and the Secret only with VOLUMES."""
        kinds = [RESOURCES[kind][1] for kind in (*PRUNED, "StatefulSet", "Job") if kind != "ConfigMap"]
        there = {line.split("/")[0] for line in self.kubectl.ask("api-resources", "--output=name").split()}
        known = {name.partition(".")[0] for name in there}
        self.kubectl.do(
            "delete",
            ",".join(kind for kind in kinds if kind in known),
            f"--selector={OURS}",
            "--ignore-not-found",
            timeout=120,
        )
        if volumes:
            self.kubectl.do("delete", "persistentvolumeclaims,configmaps", f"--selector={OURS}", "--ignore-not-found")
            self.kubectl.do("delete", "secret", SECRET, "--ignore-not-found") if self.on_this_machine else None
            shutil.rmtree(self.home, ignore_errors=True)

    def _marked(self, release: Release) -> list[Object]:
        """What is applied of RELEASE: the service's pods marked with the secrets that they start with, so that another
        secret is a rollout.
        """
        objects: list[Object] = json.loads(json.dumps([one for one in release.manifests if one["kind"] != "Job"]))
        for one in objects:
            if (one["kind"], name_of(one)) == ("Deployment", SERVICE):
                template = one["spec"]["template"]["metadata"]
                template.setdefault("annotations", {})[SECRETS_ANNOTATION] = fingerprint(self._secrets)
        return objects

    def _secret_objects(self) -> list[Object]:
        return [secret_object(self._secrets)] if self.on_this_machine and self._secrets else []

    def _live(self, objects: list[Object]) -> list[Object]:
        """OBJECTS as they are in the cluster, those that are there."""
        if not objects:
            return []
        places = [(*RESOURCES[one["kind"]], name_of(one)) for one in objects]
        return self.kubectl.get(*(f"{kind}{f'.{group}' if group else ''}/{name}" for group, kind, name in places))


def _component(one: Object) -> str:
    return str(one["metadata"].get("labels", {}).get(COMPONENT, ""))


def _applied_by_us(one: Object) -> bool:
    return any(field["manager"] == "slipway" for field in one["metadata"].get("managedFields", []))


def _admission(line: str) -> str:
    return f"the API server refuses it: {line.removeprefix('Error from server ').strip()[:400]}"
