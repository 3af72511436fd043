"""A new major of PostgreSQL in the cluster: a second StatefulSet, to which the Service leads from the switch on.

The deployer may remove neither a StatefulSet nor a claim, because data is behind them. So what no longer serves is
scaled to none, and the annotations of the claims say where the data is (`moves`).
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.engines.kubectl import FIELD_MANAGER, Object, Refused, describe, name_of
from pipeline.errors import DeployFailed, SlipwayError, UsageError
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import Artifact
from pipeline.system.text import now, size
from pipeline.system.waiting import attempts
from pipeline.targets.common import roles
from pipeline.targets.common.backups import IDENTITY
from pipeline.targets.common.data import OUTSIDE, major_of, upgrade_command
from pipeline.targets.common.upgrade import (
    COMMIT_SECONDS,
    FACTS,
    PLAIN,
    READ_ONLY,
    ROOM,
    WRITABLE,
    close_sql,
    log_ended,
)
from pipeline.targets.kubernetes.backups import BACKUP, KubernetesBackups
from pipeline.targets.kubernetes.beside import claim_of, emptying, image_of, roles_copy, template_of
from pipeline.targets.kubernetes.data import new_store, service_problems
from pipeline.targets.kubernetes.job import NAME_LABEL, MigrateJob, pointed_at, superuser_psql
from pipeline.targets.kubernetes.moves import COPY_OF, LEFT, MOVED_TO, POD_NAME, SWITCHING, Step, Stores, pod_of
from pipeline.targets.kubernetes.objects import before_migrations
from pipeline.targets.kubernetes.release import NOTHING_YET, settings_of
from pipeline.targets.kubernetes.rollout.observation import quantity
from pipeline.targets.kubernetes.site import Site
from pipeline.targets.kubernetes.store import NAME, Store, ask_major, find_store
from pipeline.targets.kubernetes.stores import config_of, wait_for_store
from pipeline.targets.kubernetes.trial import try_pod

__all__ = ["KubernetesUpgrade"]

log = logging.getLogger(__name__)

END_SECONDS = 90  # for a pod: its grace period of 60, and the kubelet's own time
LEAD_SECONDS = 60  # until the Service leads to another pod
MAINTENANCE = "postgres"  # the database that each server has
RECIPIENTS = "BACKUP_RECIPIENTS"
JOBS = "upgrade-database"  # the label of the Jobs that it makes


@dataclass
class KubernetesUpgrade(roles.Upgrade):
    """See `pipeline.targets.common.roles.Upgrade`; a `place` is the name of a claim."""

    site: Site
    backups: KubernetesBackups
    place: str = field(default="", init=False)  # of the new data, from `begin` on

    def plan(self) -> roles.NextMajor | None:
        """Compare what runs with the overlay, and look which claims there are."""
        site = self.site
        if site.managed.database:
            raise UsageError(OUTSIDE)
        objects = self._objects()
        wanted = find_store(objects)
        if wanted is None:
            raise UsageError(f"{site.env.overlay} has no components/postgres: whoever runs the database upgrades it")
        there = Stores.read(site.kubectl)
        old = there.serving
        if old is None:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {site.env.name}`")
        self._refuse_unready(objects)
        facts = json.loads(self._psql(FACTS, old).splitlines()[-1])
        server, after = str(facts["server"]).split()[0], ask_major(site.docker, site.stand, image_of(wanted))
        before = major_of(server)
        if after is None:
            raise UsageError(
                f"{describe(wanted)}: the PostgreSQL major of {image_of(wanted)} cannot be determined: use a tag that"
                f" names it ({NAME}:18…), or upgrade where Docker can run the image"
            )
        if after == before:
            return None
        if int(after) < int(str(before)):
            raise UsageError(
                f"{describe(wanted)}: {image_of(wanted)} is PostgreSQL {after}, and {before} serves: no data goes back"
            )
        origin = Store.of(old).claim
        place, room = self._place(wanted, old, after, there, facts["bytes"])
        self._try_objects([wanted] if place in there.claims else [claim_of(wanted, str(origin)), wanted])
        kubectl = site.kubectl
        return roles.NextMajor(
            old=server,
            new=after,
            bytes=facts["bytes"],
            free=room,
            place=place,
            before=f"PersistentVolumeClaim {origin}",
            removal=shlex.join(kubectl.command("delete", f"statefulset/{name_of(old)}", f"pvc/{origin}")),
            others=tuple(facts["others"]),
        )

    def _refuse_unready(self, objects: list[Object]) -> None:
        """Raise `UsageError` where the Service or the Secret lacks what the move needs."""
        site, secrets = self.site, self.site.known
        missing = service_problems(objects)
        if not secrets.get(SUPERUSER_PASSWORD):
            missing.append(
                f"Secret {site.secret} has no {SUPERUSER_PASSWORD}: put the one in that PostgreSQL was made with"
            )
        configs = [
            one for one in self.backups.release().objects(["ConfigMap"]) if name_of(one).startswith(f"{BACKUP}-")
        ]
        if any((one.get("data") or {}).get(RECIPIENTS) for one in configs) and not secrets.get(IDENTITY):
            missing.append(
                f"{IDENTITY}: is missing, and the backup is encrypted: put it into Secret {site.secret} for this"
            )
        if missing:
            raise UsageError(*missing)

    def _place(self, wanted: Object, old: Object, major: str, there: Stores, needed: int) -> tuple[str, int]:
        """Return the claim for the new data, and its size. Raise `UsageError` unless it is new, or a copy of ours."""
        env, claim, template = self.site.env.name, Store.of(wanted).claim, template_of(wanted)
        if name_of(wanted) == name_of(old) or claim == Store.of(old).claim:
            raise UsageError(
                f"{describe(wanted)}: its claim {claim} holds the data that serves: {new_store(env, major)}"
            )
        if claim is None or template is None:
            raise UsageError(f"{describe(wanted)}: its data needs a claim of its own, in volumeClaimTemplates")
        delete = f"`{shlex.join(self.site.kubectl.command('delete', 'pvc', claim))}` if nobody needs it"
        if left := there.claims.get(claim, {}).get(LEFT):
            what = f"has what was written until {left}, when a move to it was undone"
            raise UsageError(f"PersistentVolumeClaim {claim} {what}: {delete}; then {upgrade_command(env)}")
        if claim in there.claims and there.claims[claim].get(COPY_OF) != Store.of(old).claim:
            raise UsageError(
                f"PersistentVolumeClaim {claim} is there already, and is no copy of the data: {delete}; then"
                f" {upgrade_command(env)}"
            )
        room = quantity(template["spec"]["resources"]["requests"]["storage"])
        if room < needed * ROOM:
            raise UsageError(
                f"{describe(wanted)}: its claim asks for {size(room)}, and a copy of {size(needed)} needs about"
                f" {size(needed * ROOM)}: raise it in volumeClaimTemplates"
            )
        return claim, room

    def _try_objects(self, objects: list[Object]) -> None:
        """Raise `UsageError` where the API server would refuse what `begin` makes."""
        try:
            self.site.kubectl.apply(objects, dry_run=True)
        except Refused as error:
            raise UsageError(f"the API server refuses it: {error.problems[0]}") from error

    def begin(self, place: str, tell: Callable[[str], None]) -> None:
        """Start it as the overlay defines it, where the Service does not lead, and copy the roles."""
        site, objects = self.site, self._objects()
        kubectl, wanted, there = site.kubectl, find_store(objects), Stores.read(site.kubectl)
        old = there.serving
        assert wanted is not None  # as `plan` saw
        assert old is not None
        self.place = place
        self._lead(old)  # the Service of an earlier template selects each pod of PostgreSQL
        if place in there.claims:  # of a try before this one
            tell("emptying its claim")
            self._end(there.of_claim(place))
            self._run(emptying(wanted, f"empty-{token_hex(3)}"), "the Job that empties the claim")
        else:
            kubectl.apply([claim_of(wanted, str(Store.of(old).claim))])
        account = wanted["spec"]["template"]["spec"].get("serviceAccountName")
        accounts = [one for one in objects if (one["kind"], name_of(one)) == ("ServiceAccount", account)]
        configs = config_of(wanted, [one for one in objects if one["kind"] == "ConfigMap"])
        kubectl.apply([*accounts, *configs, wanted])
        self._ready(wanted, tell)
        tell("copying the roles")
        job = roles_copy(self._manifest(), image_of(wanted), f"roles-{token_hex(3)}", self._host(wanted))
        self._run(job, "the Job that copies the roles")

    def fill(self, backup: str, told: Callable[[str], None]) -> dict[str, Any]:
        """Let the program of the release that serves do it, as in a drill."""
        new = self._new()
        database = settings_of(self.backups.release().manifests).get("POSTGRES_DB", self.site.project.name)
        quoted = database.replace('"', '""')
        self._psql(f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE);', new, host=self._host(new))
        drilled: dict[str, Any] = self.backups.run("drill", backup, told=told, server=self._host(new))["drilled"]
        return drilled

    def trial(self, serving: Artifact, watch: Callable[[str], None], *, journal: Path, log: Path) -> Smoked:
        """Start a pod of the service that no Service selects."""
        host = self._host(self._new())
        return try_pod(self.site, serving, watch, journal=journal, log=log, tries=1, server=host)

    def close(self) -> None:
        """Make each session read-only, the server's own setting, and wait for what had begun."""
        log_ended(self._psql(close_sql(COMMIT_SECONDS), self._serving()), COMMIT_SECONDS)

    def switch(self) -> None:
        """Note in the old claim that its data has moved, and hand over: until that is done, nobody writes to either."""
        new, origin = self._new(), Stores.read(self.site.kubectl).origin(self.place)
        assert origin is not None
        self._psql(READ_ONLY, new, host=self._host(new))
        self._mark(self.place, f"{SWITCHING}={now()}")
        self._mark(origin, f"{MOVED_TO}={self.place}")
        self.go_on(self.place)

    def switch_back(self, place: str) -> None:
        """Start the old server again, which takes no writes yet, and hand over to it."""
        if not self.switched(place):
            return
        there = Stores.read(self.site.kubectl)
        origin = there.origin(place)
        if origin is None:
            raise DeployFailed(f"the claim from which {place} was filled is gone: there is nothing to go back to")
        if LEFT not in there.claims[place]:
            self._mark(place, f"{LEFT}={now()}")
        self._hand_over(there.of_claim(origin) or self._bring_back(), there.of_claim(place))
        self._mark(origin, f"{MOVED_TO}-")

    def abandon(self, place: str) -> None:
        """Let the old server take writes, and scale the new one to none; its claim stays, marked as a copy."""
        left = ("jobs", f"--selector={NAME_LABEL}={JOBS}")  # of one that was killed
        self.site.kubectl.ask("delete", *left, "--ignore-not-found", "--wait=false")
        there = Stores.read(self.site.kubectl)
        old = there.serving or self._bring_back()
        self._psql(WRITABLE, old)
        if place:
            self._end(there.of_claim(place))

    def switched(self, place: str) -> bool:
        """Read it from the claims, which stay when all else is stopped."""
        there = Stores.read(self.site.kubectl)
        return place in there.claims and not there.is_copy(place)

    def go_on(self, place: str) -> None:
        """Do what is left of it, unless somebody has stopped everything since: then the next deploy starts it first."""
        there = Stores.read(self.site.kubectl)
        new = there.of_claim(place)
        if new is not None:
            self._hand_over(new, there.of_claim(there.origin(place) or ""))
            self._mark(place, f"{SWITCHING}-")

    def heal(self) -> bool:
        """Bring to its end what was killed, on another machine perhaps, which has its record; return whether there was.

        Call it only under the environment's lock.
        """
        unfinished = list(Stores.read(self.site.kubectl).unfinished())
        for place, step in unfinished:
            log.warning(f"a move of PostgreSQL's data to PersistentVolumeClaim {place} was killed: {step.value}")
            do = {Step.ABANDON: self.abandon, Step.GO_ON: self.go_on, Step.SWITCH_BACK: self.switch_back}
            do[step](place)
        return bool(unfinished)

    # --- what these are made of ---

    def _objects(self) -> list[Object]:
        return self.site.artifacts.render(NOTHING_YET)[1]

    def _manifest(self) -> Object:
        return self.backups.release().objects(["Job"])[0]

    def _serving(self) -> Object:
        serving = Stores.read(self.site.kubectl).serving
        if serving is None:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {self.site.env.name}`")
        return serving

    def _new(self) -> Object:
        new = Stores.read(self.site.kubectl).of_claim(self.place)
        if new is None:
            raise DeployFailed(f"the StatefulSet with PersistentVolumeClaim {self.place} is gone")
        return new

    def _psql(self, sql: str, store: Object, *, host: str | None = None) -> str:
        """Run `sql` as the superuser by a Job of the image of `store`: at the Service, or in `postgres` at `host`."""
        job = superuser_psql(self._manifest(), image_of(store), f"upgrade-{token_hex(3)}", *PLAIN)
        if host:
            pointed_at(job["spec"]["template"]["spec"]["containers"][0], host, MAINTENANCE)
        return self._run(job, "the Job of the upgrade", sql)

    def _run(self, job: Object, what: str, given: str | None = None) -> str:
        job["metadata"]["labels"] |= {NAME_LABEL: JOBS}
        return MigrateJob(self.site.kubectl, job, lambda _: None, what).do(job, JOBS, given)

    def _host(self, store: Object) -> str:
        """Return the address of the pod of `store`: no Service leads to it."""
        pods = self.site.kubectl.get("pod", pod_of(store))
        address = pods[0].get("status", {}).get("podIP") if pods else None
        if not address:
            raise DeployFailed(f"pod {pod_of(store)} does not run")
        return str(address)

    def _ready(self, store: Object, tell: Callable[[str], None] = log.debug) -> None:
        wait_for_store(self.site.kubectl, store, self.site.rollout.findings, tell)

    def _hand_over(self, to: Object, other: Object | None) -> None:
        """Let the Service lead to a server that takes no writes, end the `other` one, and only then let it take them.

        So people go on reading, and nobody writes to one server and reads from the other.
        """
        self._scale(to, 1)
        self._ready(to)
        self._lead(to)
        self._end(other)
        self._psql(WRITABLE, to)

    def _end(self, store: Object | None) -> None:
        """Scale `store` to none, and wait until nobody is connected to it."""
        if store is None:
            return
        self._scale(store, 0)
        for _ in attempts(END_SECONDS, every=0.2):
            pods = self.site.kubectl.get("pod", pod_of(store))
            if not pods or _is_over(pods[0]):
                return
        raise DeployFailed(f"pod {pod_of(store)} does not end within {END_SECONDS} s")

    def _scale(self, store: Object, replicas: int) -> None:
        self._patch("statefulset", name_of(store), {"spec": {"replicas": replicas}})

    def _lead(self, store: Object) -> None:
        """Let the Service lead to the pod of `store`, and wait until it does."""
        self._patch("service", NAME, {"spec": {"selector": {POD_NAME: pod_of(store)}}})
        for _ in attempts(LEAD_SECONDS, every=0.2):
            slices = self.site.kubectl.get("endpointslices", f"--selector=kubernetes.io/service-name={NAME}")
            if _ready_pods(slices) == {pod_of(store)}:
                return
        raise DeployFailed(f"Service {NAME} does not lead to {pod_of(store)} within {LEAD_SECONDS} s")

    def _patch(self, kind: str, name: str, change: Object) -> None:
        manager = f"--field-manager={FIELD_MANAGER}"  # else the next deploy takes it for a change by hand
        self.site.kubectl.do("patch", kind, name, manager, f"--patch={json.dumps(change)}")

    def _mark(self, claim: str, annotation: str) -> None:
        self.site.kubectl.do("annotate", "persistentvolumeclaim", claim, annotation, "--overwrite")

    def _bring_back(self) -> Object:
        """Start the PostgreSQL of the last release, where somebody has stopped everything; return its StatefulSet."""
        release = self.backups.release()
        store = find_store(release.manifests)
        if store is None:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {self.site.env.name}`")
        self.site.apply(before_migrations(release, serving=False))
        self._ready(store, partial(self.site.progress.live, "heal"))
        return store


def _is_over(pod: Object) -> bool:
    """Return whether the containers of a `pod` that is being removed have ended."""
    states = [one.get("state", {}) for one in pod.get("status", {}).get("containerStatuses", ())]
    return "deletionTimestamp" in pod["metadata"] and bool(states) and all("terminated" in state for state in states)


def _ready_pods(slices: list[Object]) -> set[str]:
    """Return the names of the pods to which a Service leads, by its EndpointSlices."""
    ends = [one for each in slices for one in each.get("endpoints") or ()]
    ready = [one for one in ends if one.get("conditions", {}).get("ready", True)]
    return {str(one.get("targetRef", {}).get("name")) for one in ready}
