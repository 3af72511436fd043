"""A cluster without Kubernetes: pods of StatefulSets, claims, where the Service leads; and who is killed in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.engines.kubectl import Object, Refused
from pipeline.engines.kustomize import render
from pipeline.targets.common.upgrade import WRITABLE
from pipeline.targets.kubernetes import upgrade as module
from pipeline.targets.kubernetes.beside import claim_of
from pipeline.targets.kubernetes.job import MigrateJob
from pipeline.targets.kubernetes.moves import LEFT, POD_NAME, SWITCHING, Stores
from pipeline.targets.kubernetes.store import find_store
from pipeline.targets.kubernetes.upgrade import KubernetesUpgrade
from tests.pipeline.targets.kubernetes.test_job import MIGRATE
from tests.services import ROOT

__all__ = [
    "NEW",
    "OLD",
    "SAYS",
    "Cluster",
    "Killed",
    "fake",
    "moved",
    "new_serves",
    "of",
    "old_serves",
    "overlay",
    "upgrade",
]

OLD, NEW = "data-postgres-0", "data-postgres-18-0"
SAYS: dict[str, Any] = {"server": "17.6 (Debian 17.6-1)", "data": "/x", "bytes": 1000, "others": ["yesterday"]}


@cache
def shipped() -> list[Object]:
    return render({"resources": [str(ROOT / "k8s/overlays/kind")]})


def overlay(name: str = "postgres-18", image: str = "postgres:18-trixie", pod: str | None = None) -> list[Object]:
    """What the overlay renders to, once its PostgreSQL has another name and image."""
    objects = deepcopy(shipped())
    store = find_store(objects)
    assert store
    store["metadata"]["name"] = name
    store["spec"]["template"]["spec"]["containers"][0]["image"] = image
    of(objects, "Service", "postgres")["spec"]["selector"][POD_NAME] = pod or f"{name}-0"
    return objects


def of(objects: list[Object], kind: str, name: str) -> Object:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


class Killed(BaseException):
    """`kill -9`."""


class Cluster:
    """kubectl, and what Kubernetes does: pods of StatefulSets, and where the Service leads.

    After `writes` changes, whoever makes the next one is killed. `readonly`: the pods whose server takes no writes;
    `done`: what was run by Jobs.
    """

    def __init__(self) -> None:
        before = overlay("postgres", "postgres:17-trixie")
        self.objects: dict[tuple[str, str], Object] = {}
        self.writes = 10_000
        self.readonly, self.done, self.jobs = set[str](), list[str](), list[Object]()
        self.refuses = ""
        store = find_store(before)
        assert store
        self._put(claim_of(store, "") | {"metadata": {"name": OLD}})
        for one in (store, of(before, "Service", "postgres")):
            self._put(one)

    def _put(self, one: Object) -> Object:
        key = (one["kind"], one["metadata"]["name"])
        self.objects[key] = deepcopy(one)
        return self.objects[key]

    def _write(self) -> None:
        self._assert_one_is_written_to()
        self.writes -= 1
        if self.writes < 0:
            raise Killed

    def _assert_one_is_written_to(self) -> None:
        """Once people may have got to both servers, no two take writes."""
        there = Stores.read(cast("Any", self))
        if there.led == "postgres-18" or LEFT in there.claims.get(NEW, {}):
            assert len({*self._pods()} - self.readonly) <= 1

    def _pods(self) -> Iterator[str]:
        for (kind, name), one in self.objects.items():
            if kind == "StatefulSet" and name.startswith("postgres") and one["spec"]["replicas"]:
                yield f"{name}-0"

    @property
    def led(self) -> str:
        return str(self.objects["Service", "postgres"]["spec"]["selector"].get(POD_NAME, "postgres-0"))

    def apply(self, objects: list[Object], *, dry_run: bool = False) -> list[Object]:
        if self.refuses:
            raise Refused(self.refuses, self.refuses)
        if not dry_run:
            for one in objects:
                self._write()
                self._put(one)
        return objects

    def get(self, kinds: str, *names: str) -> list[Object]:
        if kinds == "pod":
            status: dict[str, Any] = {"podIP": f"ip of {names[0]}", "phase": "Running"}
            return [{"metadata": {"name": names[0]}, "status": status}] if names[0] in self._pods() else []
        if kinds == "endpointslices":
            there = [self.led] if self.led in self._pods() else []
            return [{"endpoints": [{"conditions": {"ready": True}, "targetRef": {"name": one}} for one in there]}]
        if kinds == "statefulset":
            one = self.objects.get(("StatefulSet", names[0]))
            status = {"readyReplicas": 1, "updatedReplicas": 1, "observedGeneration": 1}
            return [{**one, "status": status}] if one else []
        assert kinds == "persistentvolumeclaims,statefulsets,services"
        return list(self.objects.values())

    def do(self, verb: str, kind: str, name: str, *arguments: str) -> str:
        self._write()
        kinds = {"statefulset": "StatefulSet", "service": "Service", "persistentvolumeclaim": "PersistentVolumeClaim"}
        one = self.objects[kinds[kind], name]
        if verb == "annotate":
            key, _, value = arguments[0].partition("=")
            notes = one["metadata"].setdefault("annotations", {})
            if key.endswith("-"):
                notes.pop(key.removesuffix("-"), None)
            else:
                notes[key] = value
            return ""
        assert verb == "patch"
        change = json.loads(arguments[-1].partition("=")[2])["spec"]
        if kind == "service":
            one["spec"]["selector"] |= change["selector"]
        else:
            one["spec"]["replicas"] = change["replicas"]
        return ""

    def ask(self, *arguments: str) -> str:
        assert arguments[:3] == ("delete", "jobs", "--selector=app.kubernetes.io/name=upgrade-database")
        return ""

    def command(self, *words: str) -> list[str]:
        return ["kubectl", *words]

    def run(self, job: Object, given: str | None) -> str:
        """Do what a Job does; whoever waits for it may be killed before it began."""
        self._write()
        self.jobs.append(job)
        assert job["metadata"]["labels"]["app.kubernetes.io/name"] == "upgrade-database"  # by which they are removed
        container = job["spec"]["template"]["spec"]["containers"][0]
        host = {one["name"]: one.get("value") for one in container.get("env", ())}.get("POSTGRES_HOST")
        pod = str(host).removeprefix("ip of ") if host else self.led
        name = job["metadata"]["name"].partition("-")[0]
        if name == "empty":
            self.done.append("empty")
            self.readonly.discard("postgres-18-0")
            return ""
        assert pod in self._pods(), "nobody answers there"
        if name == "roles":
            self.done.append("roles")
            return ""
        assert given
        if "json_build_object" in given:
            return json.dumps(SAYS)
        if "SET default_transaction_read_only = on" in given:
            self.readonly.add(pod)
            return "t\n\n0"
        if given == WRITABLE:
            self.readonly.discard(pod)
        self.done.append(given.partition("\n")[0])
        return ""

    def mark(self, claim: str) -> dict[str, str]:
        return dict(self.objects["PersistentVolumeClaim", claim]["metadata"].get("annotations", {}))


def fake(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Return a cluster on which the old server serves, in which each Job is done at once."""
    cluster = Cluster()
    monkeypatch.setattr(MigrateJob, "do", lambda _, job, __, given=None: cluster.run(job, given))
    monkeypatch.setattr(module, "END_SECONDS", 0)
    monkeypatch.setattr(module, "LEAD_SECONDS", 0)
    return cluster


class Backups:
    """The program of backups, which fills the new server."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def release(self) -> Any:
        objects = [*overlay("postgres", "postgres:17-trixie"), MIGRATE]
        kinds: Callable[[list[str]], list[Object]] = lambda names: [one for one in objects if one["kind"] in names]  # noqa: E731
        return SimpleNamespace(manifests=objects, objects=kinds)

    def run(self, verb: str, backup: str, *, told: Any, server: str) -> dict[str, Any]:
        self.cluster.done.append(f"{verb} {backup} at {server}")
        return {"drilled": {"rows": 3, "seconds": 1.0}}


def upgrade(cluster: Cluster, objects: list[Object] | None = None, **secrets: str) -> KubernetesUpgrade:
    """Return what another process sees, whose overlay has `objects`."""
    rendered = overlay() if objects is None else objects
    site = SimpleNamespace(
        kubectl=cluster,
        managed=SimpleNamespace(database=False),
        env=SimpleNamespace(name="kind", overlay="k8s/overlays/kind"),
        artifacts=SimpleNamespace(render=lambda _: ("x", rendered)),
        known={"POSTGRES_SUPERUSER_PASSWORD": "x", **secrets},
        secret="board-secrets",
        docker=None,
        stand="board",
        project=SimpleNamespace(name="board"),
        rollout=SimpleNamespace(findings=list),
        progress=SimpleNamespace(live=lambda *_: None),
        apply=cluster.apply,
    )
    return KubernetesUpgrade(cast("Any", site), cast("Any", Backups(cluster)))


def moved(one: KubernetesUpgrade) -> None:
    """Do what the story does, up to the switch."""
    one.begin(NEW, lambda _: None)
    one.fill("first", lambda _: None)
    one.close()
    one.fill("last", lambda _: None)
    one.switch()


def old_serves(cluster: Cluster) -> bool:
    """Whether all is as before, but the copy."""
    stores = Stores.read(cast("Any", cluster))
    assert NEW not in stores.claims or stores.is_copy(NEW)
    assert not stores.moved_to(OLD)
    return (
        cluster.led == "postgres-0" and list(cluster._pods()) == ["postgres-0"] and "postgres-0" not in cluster.readonly
    )


def new_serves(cluster: Cluster) -> bool:
    stores = Stores.read(cast("Any", cluster))
    assert (stores.is_copy(NEW), stores.moved_to(OLD)) == (False, NEW)
    assert SWITCHING not in cluster.mark(NEW)
    assert "postgres-18-0" not in cluster.readonly
    return cluster.led == "postgres-18-0" and list(cluster._pods()) == ["postgres-18-0"]
