"""The pods of a Kubernetes environment and the stores around them: Kubernetes rolls the pods, this module watches."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.engines.docker import docker_problems
from pipeline.engines.kubectl import Object, describe, name_of
from pipeline.errors import DeployFailed
from pipeline.proof.smoke import Smoked
from pipeline.registry.reference import PARTS
from pipeline.releases.model import Artifact, Running
from pipeline.system.streams import Stream
from pipeline.system.waiting import Deadline
from pipeline.targets.common import roles
from pipeline.targets.common.containers import sweep
from pipeline.targets.common.delivery import missing_secrets, unmounted
from pipeline.targets.common.diagnosis import LOG_LINES
from pipeline.targets.common.tokens import CURRENT, PREVIOUS, Tokens
from pipeline.targets.kubernetes.backups import KubernetesBackups
from pipeline.targets.kubernetes.changes import key_of
from pipeline.targets.kubernetes.data import copy_problems
from pipeline.targets.kubernetes.logs import log_streams
from pipeline.targets.kubernetes.moves import Stores
from pipeline.targets.kubernetes.objects import SERVICE, before_migrations
from pipeline.targets.kubernetes.permissions import pruned
from pipeline.targets.kubernetes.release import Release, must_run
from pipeline.targets.kubernetes.rights import see_to_roles
from pipeline.targets.kubernetes.rollout.bake import Bake
from pipeline.targets.kubernetes.rollout.observation import named
from pipeline.targets.kubernetes.rollout.watch import current_pods, replica, secrets_mark, service_pods, workers
from pipeline.targets.kubernetes.secret import missing_keys, needed_beside, pod_mark, unread_keys
from pipeline.targets.kubernetes.site import DATA, OURS, Site
from pipeline.targets.kubernetes.store import find_store
from pipeline.targets.kubernetes.stores import ask_stores, store_problems, wait_for_store
from pipeline.targets.kubernetes.trial import end_trials, try_pod
from pipeline.targets.kubernetes.upgrade import KubernetesUpgrade
from pipeline.targets.kubernetes.vantage.inquiry import Inquiry

__all__ = ["KubernetesFleet"]

log = logging.getLogger(__name__)

CACHE = "redis"
BACKUPS = "backups"  # the claim of components/backup


class KubernetesFleet(roles.Fleet):
    """See `pipeline.targets.common.roles.Fleet`. `bake` is told when a rollout begins and which pods it made."""

    def __init__(self, site: Site, bake: Bake) -> None:
        self.site, self.bake = site, bake

    def running(self) -> Running:
        """Return the pods of the service, and what is wrong around them."""
        site, now = self.site, self.site.rollout.glance()
        mark = pod_mark(site.secrets) if site.secrets else None
        fresh = [named(pod) for pod in current_pods(now) if mark in (None, secrets_mark(pod))]
        replicas = tuple(replica(pod, current=named(pod) in fresh) for pod in service_pods(now))
        deployment = now.deployment(SERVICE)
        wanted = deployment["spec"].get("replicas", 1) if deployment else 0
        pods = [pod for name in workers(now) for pod in service_pods(now, name)]
        at_work = tuple(replica(pod, current=mark in (None, secrets_mark(pod))) for pod in pods)
        problems = (*self._surroundings(), *site.drift)
        return Running(replicas=replicas, wanted=wanted, problems=problems, workers=at_work)

    def _surroundings(self) -> list[str]:
        lines = []
        for each in self.site.kubectl.get("deployments,statefulsets", f"--selector={OURS}"):
            wanted, ready = each["spec"].get("replicas", 1), each.get("status", {}).get("readyReplicas", 0)
            if name_of(each) != SERVICE and ready < wanted:
                lines.append(f"{describe(each)}: {ready} of {wanted} pods ready")
        return lines

    def findings(self) -> list[str]:
        """Return what holds up any of our pods, or its storage, and whether our own access ends soon."""
        kubectl = self.site.kubectl
        token = kubectl.token()
        problem = kubectl.judge(token)
        if token and not problem:
            log.info(f"the token of context `{kubectl.context}` ends {token}")
        return [*filter(None, [problem]), *self.site.rollout.findings()]

    def stores(self, release: str) -> Mapping[str, Any]:
        """Return what the stores report to a short Job beside the service."""
        # They cannot be reached from outside the cluster.
        site = self.site
        return ask_stores(site.kubectl, site.kept.find(release)) if site.kept.knows(release) else {}

    def asking(
        self, address: str, questions: Sequence[str], release: str
    ) -> AbstractContextManager[Callable[[str], tuple[int, bytes]]]:
        """Let a Job of the image of `release` ask: it runs on the nodes already."""
        site = self.site
        return Inquiry(site.kubectl, site.kept.find(release).images.place("backend"), address, questions)

    def log(self, release: str) -> str:
        """Return the end of each pod's log, which is removed with it."""
        names = [each.name for each in self.site.replicas() if each.release == release]
        tail = (f"--container={SERVICE}", f"--tail={LOG_LINES}")
        return "".join(self.site.kubectl.ask("logs", name, *tail) for name in names)

    def logs(self, *, follow: bool) -> list[Stream]:
        """Ask the cluster, which keeps the log of a container until the one after it ends."""
        now = self.site.rollout.glance()
        pods = [pod for name in (SERVICE, *workers(now)) for pod in service_pods(now, name)]
        return log_streams(self.site.kubectl, pods, follow=follow)

    def token(self) -> str | None:
        """Return a token that the pods accept, if there is one; None if no token is known."""
        return self._shared_token()[0]

    def token_changes(self) -> bool:
        """Return whether there is none."""
        return not self._shared_token()[1]

    def _shared_token(self) -> tuple[str | None, bool]:
        """Compare the tokens with those of the pods, each of which has hashes of its own in its annotation."""
        pods = service_pods(self.site.rollout.glance())
        # A pod of an earlier Slipway has none: it counts as one with another token.
        return Tokens.of(self.site.known).shared(secrets_mark(pod).partition(" ")[2] for pod in pods)

    def undelivered(self, secrets: Sequence[str], release: str | None) -> list[str]:
        """List what the Secret lacks, and what the manifests of the release do not mount from it."""
        site = self.site
        secrets = needed_beside(secrets, site.managed.names)
        if site.delivers:
            missing = missing_secrets(secrets, site.secrets, release, site.env.secrets)
        else:
            missing = missing_keys(secrets, site.secrets, site.kubectl, site.secret, site.objects)
        manifests = site.kept.find(release).manifests if release else site.objects
        service = [each for each in manifests if (each["kind"], name_of(each)) == ("Deployment", SERVICE)]
        return missing or unmounted(site.env.overlay, unread_keys(secrets, service, site.secret))

    def heal(self) -> bool:
        """End what a killed deploy only tried, and bring a killed move of PostgreSQL's data to its end."""
        # Kubernetes keeps everything else running by itself.
        end_trials(self.site.kubectl)
        healed = KubernetesUpgrade(self.site, KubernetesBackups(self.site)).heal()
        if not docker_problems(compose=False):
            swept = sweep(self.site.docker, self.site.stand)
            if swept:
                log.warning(f"removed {len(swept)} throwaway containers that a killed deploy had left")
        return healed

    def prepare(self, new: Artifact) -> None:
        """Apply what the migrations need: Secret, settings, data stores. Leave what serves untouched."""
        site = self.site
        kept = site.kept.find(new.name)
        release = site.fitting(kept)
        serving = bool(site.live(release.objects(["Deployment"])))
        self._apply_stores(before_migrations(release, serving=serving), release, "migrate")
        site.prepared = True
        see_to_roles(site, kept)
        old = site.serving()
        # The image of what serves runs here already, and is known to start.
        beside = site.kept.find(old[0]).images.place("backend") if old else None
        seconds = site.env.timeout + site.env.bake_seconds + site.env.bake_limit
        token = CURRENT if self.token() == Tokens.of(site.secrets).current else PREVIOUS
        self.bake.begin(beside, new.requests, seconds, token=token)

    def objections(self, new: Artifact) -> list[str]:
        """Try the StatefulSets that the release would change, each as a pod beside."""
        site = self.site
        release = site.fitting(site.kept.find(new.name))
        store = find_store(release.manifests)
        copied = copy_problems(site.env.name, store, Stores.read(site.kubectl)) if store else []
        return copied or store_problems(site.kubectl, release, partial(site.progress.live, "check"))

    def settled(self, new: Artifact, running: Running) -> bool:
        """Return whether the stores run, and `prepare` would change nothing that a pod of `new` needs.

        Settings that are new are no reason to wait: nobody reads them yet.
        """
        site = self.site
        around = [line for line in running.problems if line not in site.drift]
        first = {key_of(one) for one in before_migrations(site.kept.find(new.name), serving=True)}
        fresh = {key for key in site.absent if key[0] == "ConfigMap"}
        needed = first & site.changed - fresh
        return not (around or needed) and all(each.ready and each.current for each in running.replicas)

    def trial(
        self,
        new: Artifact,
        watch: Callable[[str], None],
        *,
        journal: Path,
        log: Path,
        tries: int,
        database: str | None = None,
    ) -> Smoked:
        """Run a pod that no Service selects."""
        return try_pod(self.site, new, watch, journal=journal, log=log, tries=tries, database=database)

    def put_back(self, old: Artifact) -> None:
        """Apply the StatefulSets of the release that comes back, and replace their broken pods."""
        release = self.site.fitting(self.site.kept.find(old.name))
        stores = release.objects(["StatefulSet"])
        if stores:
            self._apply_stores(stores, release, "roll back")

    def _apply_stores(self, objects: Sequence[Object], release: Release, stage: str) -> None:
        """Apply `objects`, and wait until the stores of `release` are ready.

        A Redis that fails although its definition is the same as before is only a warning: it is a cache.
        """
        site = self.site
        before = {name_of(one): one["metadata"].get("generation") for one in site.kubectl.get("statefulset")}
        site.apply(objects)
        for each in release.objects(["StatefulSet"]):
            try:
                wait_for_store(site.kubectl, each, site.rollout.findings, partial(site.progress.live, stage))
            except DeployFailed as error:
                name = name_of(each)
                [now] = site.kubectl.get("statefulset", name) or [each]
                if name != CACHE or now["metadata"].get("generation") != before.get(name):
                    raise
                log.warning(
                    f"{error.problems[0]}. Nothing is cached until it runs. If its data is broken, start it empty:"
                    f" `kubectl --namespace {site.kubectl.namespace} delete pvc,pod -l app.kubernetes.io/name={name}`"
                )

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Apply the whole release; Kubernetes replaces pod by pod, never below what the Deployment allows."""
        # For Kubernetes, the way `back` is the same: the Deployment's own strategy drains, and never goes below N.
        site, release = self.site, self.site.kept.find(new.name)
        deadline = Deadline(site.env.timeout)

        def watched(line: str) -> None:
            if site.lease.lost:
                raise DeployFailed(site.lease.lost)
            watch(line)

        self.bake.stop()
        site.apply(site.whole(site.fitting(release)))
        pods = site.rollout.wait(new.name, watched, deadline)
        must_run(release, pods)
        self.bake.watch(new.name, pods, back=back)

    def withdraw(self) -> None:
        """Delete the Deployments of the service and its workers, and the autoscaler that would scale it."""
        self.bake.stop()
        names = (SERVICE, *workers(self.site.rollout.glance()))
        self.site.kubectl.do("delete", "deployment,horizontalpodautoscaler", *names, "--ignore-not-found")

    def down(self, *, volumes: bool) -> None:
        """Delete all that a deploy applied; with `volumes` storage claims and records, on this machine more.

        That is the Secret, and the names of the images that were built for the cluster; its registry keeps them.
        """
        site, kubectl = self.site, self.site.kubectl
        served = kubectl.ask("api-resources", "--output=name").split()
        there = {name.partition(".")[0] for name in served}
        kinds = {*pruned(site.resources), "StatefulSet", "Job"} - {"ConfigMap"}
        known = [kind for kind in kinds if site.resources[kind][1] in there]
        # In the foreground: when the command ends, everything is gone, and the pods have drained.
        options = ["--ignore-not-found", "--cascade=foreground"]
        kubectl.do("delete", site.resource_list(known), f"--selector={OURS}", *options, timeout=180)
        if volumes:
            kubectl.do("delete", "configmaps", f"--selector={OURS}", "--ignore-not-found")
            kubectl.do("delete", "persistentvolumeclaims", f"--selector={DATA}", "--ignore-not-found", timeout=120)
            if kubectl.get("persistentvolumeclaim", BACKUPS):
                words = shlex.join(kubectl.command("delete", "persistentvolumeclaim", BACKUPS))
                log.warning(f"the backups stay, in PersistentVolumeClaim {BACKUPS}: remove them by hand: `{words}`")
            if site.on_this_machine:
                kubectl.do("delete", f"secret/{site.secret}", "--ignore-not-found")
                self._forget_images()
            shutil.rmtree(site.home, ignore_errors=True)

    def _forget_images(self) -> None:
        site, docker = self.site, self.site.docker
        if docker_problems(compose=False):
            return
        envs = site.project.environments.items()
        composed = any(
            env.target == "compose" and (site.project.state(name) / "artifacts").exists() for name, env in envs
        )
        project = site.values.get("PROJECT_NAME", site.project.name)
        built = [] if composed else [f"{project}-{part}" for part in PARTS]  # else compose has releases of those names
        docker.forget(*docker.names(*built, *filter(None, [site.env.repository])))
