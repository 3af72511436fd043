"""The kubernetes target: an overlay of k8s/ in one namespace of any cluster. Kubernetes rolls pods, this watches."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.config.place_of_data import settings_problems
from pipeline.config.project import KubernetesEnvironment, Project
from pipeline.config.settings import ensure_env, read_values, split_secrets
from pipeline.engines.docker import Docker, docker_problems
from pipeline.engines.kubectl import Kubectl, Object, Refused, describe, name_of
from pipeline.engines.kustomize import unfilled
from pipeline.errors import DeployFailed, UsageError
from pipeline.images.build import PushedImages
from pipeline.releases.lock import Holder
from pipeline.releases.model import Artifact, Replica, Running
from pipeline.system.progress import Progress
from pipeline.targets.common.containers import sweep
from pipeline.targets.common.difference import difference
from pipeline.targets.common.rehearsal import rehearse
from pipeline.targets.kubernetes.artifacts import Artifacts
from pipeline.targets.kubernetes.changes import changes, conflicts, key_of, strangers
from pipeline.targets.kubernetes.data import ask_major, find_data_problems
from pipeline.targets.kubernetes.job import MigrateJob, with_image
from pipeline.targets.kubernetes.lease import Lease
from pipeline.targets.kubernetes.objects import SERVICE, before_migrations, leftovers, marked
from pipeline.targets.kubernetes.permissions import PRUNED, RESOURCES, access_problems
from pipeline.targets.kubernetes.platforms import foreign_problem
from pipeline.targets.kubernetes.records import ClusterRecords
from pipeline.targets.kubernetes.rehearsal import throwaway_stand
from pipeline.targets.kubernetes.release import NOTHING_YET, Releases, must_run, settings_of
from pipeline.targets.kubernetes.rollout.bake import Bake
from pipeline.targets.kubernetes.rollout.observation import named
from pipeline.targets.kubernetes.rollout.watch import Rollout, current_pods, replica, secrets_mark, service_pods
from pipeline.targets.kubernetes.secret import (
    ROLE,
    fingerprint,
    missing_keys,
    needed_keys,
    read_secret,
    secret_name,
    secret_object,
    secret_values,
    unread_urls,
)
from pipeline.targets.kubernetes.stores import ask_stores, wait_for_store
from pipeline.targets.kubernetes.vantage.follower import Witness
from pipeline.targets.kubernetes.vantage.job import judge

__all__ = ["KubernetesTarget"]

# Not by our name (`part-of`): the account that deploys and its limits carry it, too, and are an administrator's.
OURS = "app.kubernetes.io/managed-by=slipway"
# A StatefulSet gives its claims the labels of its selector, and no others.
DATA = "app.kubernetes.io/component in (postgres,redis)"
MANAGERS = "--show-managed-fields"


class KubernetesTarget:
    """The target of `nox -s deploy -- kind` and others; `pipeline.targets.Target` says what each method promises."""

    def __init__(self, project: Project, env: KubernetesEnvironment, progress: Progress) -> None:
        self.project, self.env, self.progress, self.url = project, env, progress, env.url
        self.home = project.state(env.name)
        self.kubectl = Kubectl(env.context, env.namespace, progress.say)
        self.rollout = Rollout(self.kubectl)
        self.releases = Releases(self.home / "artifacts", project.retain)
        self.artifacts = Artifacts(project, env, self.home / "render", self.releases, progress.say)
        self.docker = Docker(project.root, progress.say)
        self.lease = Lease(self.kubectl)
        self._witness = Witness(self.kubectl, secret_name(project.name))
        self.values = read_values(project.root)
        self._secrets: dict[str, str] = {}
        self._drift: list[str] = []
        self._prepared = False  # the stores and settings of what this deploy ships are up
        self._bake = Bake(self.kubectl, self.rollout, self._witness, self.lease, env.max_failures)

    # --- plan ---

    @property
    def on_this_machine(self) -> bool:
        """Whether the cluster is one of kind, whose secrets are those of `.env`."""
        return self.kubectl.context.startswith("kind-")

    def records(self) -> ClusterRecords:
        """Return the records of the cluster. Raise `UsageError` where its API server cannot be asked."""
        problem = self.kubectl.server_problem()
        if problem:
            raise UsageError(problem)
        records = ClusterRecords(self.home / "releases", self.releases, self.kubectl)
        records.refresh()
        return records

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the Lease of the environment."""
        return self.lease.hold(say)

    def holder(self) -> Holder | None:
        """Return who holds the Lease."""
        return self.lease.holder()

    def problems(self) -> list[str]:
        """Return what is wrong with the overlay, the permissions or the secrets."""
        overlay = self.artifacts.overlay
        if not (overlay / "kustomization.yaml").exists():
            return [f"pyproject.toml [tool.slipway.environments.{self.env.name}]: overlay: there is no {overlay}"]
        _, objects = self.artifacts.render(NOTHING_YET)
        unknown = sorted({one["kind"] for one in objects} - RESOURCES.keys())
        what = "is not something that a deploy applies: move it to k8s/bootstrap"
        problems = [f"{self.env.overlay}: {kind} {what}" for kind in unknown]
        problems += unfilled(objects)
        problems += access_problems(self.kubectl, (one["kind"] for one in objects))
        return problems or self._secret_problems(objects)

    def _secret_problems(self, objects: list[Object]) -> list[str]:
        keys, there = needed_keys(objects), read_secret(self.kubectl, secret_name(self.project.name))
        unread = unread_urls(there, objects, self.kubectl, secret_name(self.project.name))
        if not self.on_this_machine:
            self._secrets = there
            return [*missing_keys(keys, there, self.kubectl, secret_name(self.project.name)), *unread]
        if ensure_env(self.project.root):
            self.progress.say("wrote .env with fresh secrets (mode 0600)")
            self.values = read_values(self.project.root)
        plain, own = split_secrets(self.values)
        role = settings_of(objects).get(ROLE, "")
        self._secrets = secret_values(keys, own, there, roles=(role, plain.get(ROLE, role)))
        names = f"{self.env.overlay} names the {{store}} of {self.env.name}"
        problems = [*settings_problems(self.project.root, self.values, names, settings_of(objects)), *unread]
        known, now = [(one.get(ROLE, role), one.get("POSTGRES_PASSWORD")) for one in (there, self._secrets)]
        changed = there and known[0] == now[0] and known != now  # another role has another password
        if changed and self.kubectl.get("persistentvolumeclaims", f"--selector={DATA}"):
            what = f"POSTGRES_PASSWORD: the data in namespace {self.env.namespace} was made with another one"
            rotate = "rotate it (docs/4-runbook.md, New secrets)"
            empty = f"start empty with `nox -s down -- {self.env.name} --volumes`"
            problems.append(
                f"{what}: take .env from whoever deployed there, put the old one back, {rotate}, or {empty}"
            )
        return problems

    def data_problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Return what is wrong with PostgreSQL's claim, or with the image of the overlay or of `release`.

        There is nothing to check where the database is outside the overlay.
        """
        objects = self.releases.find(release).manifests if release else self.artifacts.render(NOTHING_YET)[1]

        def proved() -> list[Object]:
            serving = self.records().serving()
            name = (serving.release or "") if serving else ""
            return self.releases.find(name).manifests if self.releases.knows(name) else []

        ask = partial(ask_major, self.docker, self._stand_name)
        return find_data_problems(self.env.name, objects, self.kubectl, proved, ask, expected=expected)

    def heal(self) -> bool:
        """Remove the throwaway containers of a killed deploy; return False, as nothing has to be started."""
        # Kubernetes keeps everything else running by itself.
        if not docker_problems(compose=False):
            swept = sweep(self.docker, self._stand_name)
            if swept:
                self.progress.warn(f"removed {len(swept)} throwaway containers that a killed deploy had left")
        return False

    # --- build and check ---

    def build(self) -> Artifact:
        """Build and push the images, and render the manifests that go with their digests."""
        return self.artifacts.build(self.values.get("PROJECT_NAME", self.project.name)).artifact

    def recorded(self, name: str) -> Artifact:
        """Return a release from the cluster's records."""
        return self.releases.find(name).artifact

    def adopt(self, reference: str | None) -> str | None:
        """Return the name of the release that an image digest of the registry is.

        Where the environment promotes from another one, that is by default the newest digest that was proved there.
        """
        release = self.artifacts.adopt(reference)
        return release.name if release else None

    def attest(self, report: Mapping[str, Any]) -> None:
        """Attach the report to the digest, in its registry."""
        self.artifacts.attest(report)

    def pushed(self, new: Artifact) -> PushedImages:
        """Return the images of the release: on Kubernetes, each of them is in a registry."""
        return self.releases.find(new.name).images

    def objections(self, new: Artifact) -> list[str]:
        """Return what the API server has against a dry run of everything.

        Also print what would change, and who else changed what a deploy applies.
        """
        wanted = [*self._secret_objects(), *self._marked(self.releases.find(new.name).manifests)]
        by_hand: list[str] = []
        try:
            self.kubectl.apply(wanted, dry_run=True, force=False)
        except Refused as error:
            by_hand = conflicts(error.said)
        try:
            after = self.kubectl.apply(wanted, dry_run=True)
        except Refused as error:
            lines = [line for line in error.said.splitlines() if line.strip() and not line.startswith("Warning")]
            return [
                f"the API server refuses it: {line.removeprefix('Error from server ').strip()[:400]}" for line in lines
            ]
        live = self._live(wanted)
        problem = foreign_problem(self.kubectl, wanted, live, self.progress.say)
        if problem:
            return [problem]
        for line in strangers(live):
            self.progress.warn(line)
        self._drift = [*by_hand, *changes(live, after)]
        for line in self._drift:
            self.progress.say(f"changes {line}")
        return []

    def running(self) -> Running:
        """Return the pods of the service, and what around them is not as it should be."""
        now = self.rollout.glance()
        mark = fingerprint(self._secrets) if self._secrets else None
        fresh = [named(one) for one in current_pods(now) if mark in (None, secrets_mark(one))]
        replicas = tuple(replica(one, current=named(one) in fresh) for one in service_pods(now))
        deployment = now.deployment(SERVICE)
        wanted = deployment["spec"].get("replicas", 1) if deployment else 0
        return Running(replicas=replicas, wanted=wanted, problems=(*self._surroundings(), *self._drift))

    def _surroundings(self) -> list[str]:
        lines = []
        for one in self.kubectl.get("deployments,statefulsets", f"--selector={OURS}"):
            wanted, ready = one["spec"].get("replicas", 1), one.get("status", {}).get("readyReplicas", 0)
            if name_of(one) != SERVICE and ready < wanted:
                lines.append(f"{describe(one)}: {ready} of {wanted} pods ready")
        return lines

    def findings(self) -> list[str]:
        """Return what stands in the way of any pod of ours, or of its storage."""
        return self.rollout.findings()

    def stores(self, release: str) -> Mapping[str, Any]:
        """Return what the stores report of themselves, asked by a short Job beside the service."""
        # They cannot be reached from outside the cluster.
        if not self.releases.knows(release):
            return {}
        return ask_stores(self.kubectl, self.releases.find(release))

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Return the files and settings that differ."""
        here, there = self.releases.find(new.name), self.releases.find(old.name)
        return difference(here.files, there.files, here.config, there.config)

    def database_runs(self, new: Artifact) -> bool:
        """Return whether pods that serve use the database of `new`, or this deploy has brought it up."""
        if self._prepared:
            return True
        serving = self._serving()
        return bool(serving) and self.releases.find(serving[0]).database == self.releases.find(new.name).database

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of the release's image: as a Job, or without `database` in a container here."""
        kept = self.releases.find(release.name)
        if not database:
            return self.docker.ask("run", "--rm", "--network", "none", kept.images.place("migrate"), *arguments)
        # Until this deploy has brought anything up, only the settings and network policies of what serves exist, and a
        # check applies nothing.
        place = kept if self._prepared else self.releases.find(self._serving()[0])
        manifest = with_image(place.objects(["Job"])[0], kept.images.place("migrate"))
        job = MigrateJob(self.kubectl, manifest, lambda line: self.progress.live("migrate", line))
        return job.run(*arguments)

    def _serving(self) -> list[str]:
        """Return the releases of the ready pods."""
        return [one.release for one in self._replicas() if one.ready and self.releases.knows(one.release)]

    def _replicas(self) -> tuple[Replica, ...]:
        return tuple(replica(one, current=True) for one in service_pods(self.rollout.glance()))

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Rehearse in throwaway containers on this machine, without the cluster."""
        problems = docker_problems(compose=False)
        if problems:
            raise DeployFailed(f"new migrations are tried in containers first: {problems[0]}")
        _, objects = self.artifacts.render(NOTHING_YET)
        with throwaway_stand(self._stand_name, self.docker, self.releases, objects) as (stand, token):
            rehearse(stand, new, old, token)

    @property
    def _stand_name(self) -> str:
        return f"{self.values.get('PROJECT_NAME', self.project.name)}-{self.env.name}"

    # --- migrate and roll out ---

    def prepare(self, new: Artifact) -> None:
        """Apply what the migrations need: Secret, settings, data stores. Leave what serves untouched."""
        release = self.releases.find(new.name)
        serving = bool(self._live(release.objects(["Deployment"])))
        self.kubectl.apply([*self._secret_objects(), *self._marked(before_migrations(release, serving=serving))])
        for one in release.objects(["StatefulSet"]):
            wait_for_store(self.kubectl, one, self.rollout.findings, partial(self.progress.live, "migrate"))
        self._prepared = True
        old = self._serving()
        self._bake.begin()
        if old:
            image = self.releases.find(old[0]).images.place("backend")  # it runs here already, and is known to start
            self._witness.begin(image, new.requests, self.env.timeout + 3 * self.env.bake_seconds)

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Apply the whole release; Kubernetes replaces pod by pod, never below what the Deployment allows."""
        # To Kubernetes the way `back` is the same: the Deployment's own strategy drains, and never goes below N.
        deadline = time.monotonic() + self.env.timeout
        self._bake.stop()
        self.kubectl.apply([*self._secret_objects(), *self._marked(self.releases.find(new.name).manifests)])
        pods = self.rollout.wait(new.name, lambda line: self._watched(watch, line), deadline)
        must_run(self.releases.find(new.name), pods)
        self._bake.watch(new.name, pods, back=back)

    def _watched(self, watch: Callable[[str], None], line: str) -> None:
        if self.lease.lost:
            raise DeployFailed(self.lease.lost)
        watch(line)

    def trouble(self) -> str | None:
        """Return what speaks against the release; see `Bake.trouble`."""
        return self._bake.trouble()

    def remarks(self) -> list[str]:
        """Return what is worth knowing of the rollout; see `Bake.remarks`."""
        return self._bake.remarks()

    def dismiss(self) -> None:
        """Dismiss the Job beside the service."""
        self._witness.dismiss()

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """Return what the Job beside the service saw; None where none was started."""
        view = self._witness.end()
        return (judge(failed, sent, view), asdict(view)) if view else None

    def withdraw(self) -> None:
        """Delete the Deployment of the service, and the autoscaler that would scale it."""
        self._bake.stop()
        self.kubectl.do("delete", "deployment,horizontalpodautoscaler", SERVICE, "--ignore-not-found")

    # --- the rest ---

    def token(self) -> str | None:
        """Return SERVICE_TOKEN; None where it is not known."""
        return self._secrets.get("SERVICE_TOKEN")

    def token_changes(self) -> bool:
        """Return whether any pod runs that started with other secrets."""
        # Any secret counts, not the token alone: that says yes more often than needed, and never less.
        mark = fingerprint(self._secrets)
        return any(secrets_mark(one) != mark for one in service_pods(self.rollout.glance()))

    def prune(self, retained: list[str]) -> None:
        """Delete the objects of recorded releases that the serving one does not have."""
        serving = {replica(one, current=True).release for one in current_pods(self.rollout.glance())}
        known = [self.releases.find(name) for name in {*retained, *serving} if self.releases.knows(name)]
        needed = {key_of(one) for release in known if release.name in serving for one in release.manifests}
        kinds = {one["kind"] for release in known for one in release.manifests} & PRUNED
        if not needed:
            return
        gone = leftovers(self.kubectl.get(_list(kinds), f"--selector={OURS}", MANAGERS), needed)
        if gone:
            names = [f"{RESOURCES[one['kind']][1]}/{name_of(one)}" for one in gone]
            self.kubectl.do("delete", "--ignore-not-found", "--wait=false", *names)

    def down(self, *, volumes: bool) -> None:
        """Delete all that a deploy applied; claims of storage, the records and the Secret only with `volumes`."""
        served = self.kubectl.ask("api-resources", "--output=name").split()
        there = {name.partition(".")[0] for name in served}
        kinds = [
            kind for kind in (*PRUNED, "StatefulSet", "Job") if kind != "ConfigMap" and RESOURCES[kind][1] in there
        ]
        # In the foreground: when the command ends, everything is gone, and the pods have drained.
        options = ["--ignore-not-found", "--cascade=foreground"]
        self.kubectl.do("delete", _list(kinds), f"--selector={OURS}", *options, timeout=180)
        if volumes:
            secret = [f"secret/{secret_name(self.project.name)}"] if self.on_this_machine else []
            self.kubectl.do("delete", "configmaps", f"--selector={OURS}", "--ignore-not-found")
            self.kubectl.do("delete", "persistentvolumeclaims", f"--selector={DATA}", "--ignore-not-found", timeout=120)
            self.kubectl.do("delete", *secret, "--ignore-not-found") if secret else None
            shutil.rmtree(self.home, ignore_errors=True)

    def _marked(self, objects: Iterable[Object]) -> list[Object]:
        """Return `objects` without Jobs, with a fingerprint of their secrets on the pod templates."""
        # Redis reads its users once, and so does the service all of its secrets: other secrets have to make new pods.
        marks = {SERVICE: fingerprint(self._secrets), "redis": fingerprint(self._secrets, ["REDIS_PASSWORD"])}
        return marked((one for one in objects if one["kind"] != "Job"), marks)

    def _secret_objects(self) -> list[Object]:
        return [secret_object(self.project.name, self._secrets)] if self.on_this_machine and self._secrets else []

    def _live(self, objects: list[Object]) -> list[Object]:
        """Return those of `objects` that exist in the cluster, as they are there."""
        places = [(*RESOURCES[one["kind"]], name_of(one)) for one in objects]
        names = [f"{kind}{f'.{group}' if group else ''}/{name}" for group, kind, name in places]
        return self.kubectl.get(*names, MANAGERS) if names else []


def _list(kinds: Iterable[str]) -> str:
    return ",".join(RESOURCES[kind][1] for kind in sorted(kinds))
