"""A new major of PostgreSQL in the cluster: what is refused, what each step leaves, and what a kill in it comes to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.engines.kubectl import Object
from pipeline.errors import DeployFailed, SlipwayError, UsageError
from pipeline.targets.common.upgrade import WRITABLE
from pipeline.targets.kubernetes.beside import claim_of, emptying, roles_copy
from pipeline.targets.kubernetes.moves import COPY_OF, LEFT, MOVED_TO, POD_NAME
from pipeline.targets.kubernetes.store import find_store
from pipeline.targets.kubernetes.trial import selects
from tests.pipeline.targets.kubernetes.fake_cluster import (
    NEW,
    OLD,
    SAYS,
    Cluster,
    Killed,
    fake,
    moved,
    new_serves,
    old_serves,
    overlay,
    upgrade,
)
from tests.pipeline.targets.kubernetes.test_job import MIGRATE

pytestmark = pytest.mark.needs("kubectl")  # renders


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return fake(monkeypatch)


class TestPlan:
    def test_says_what_goes_where(self, cluster: Cluster) -> None:
        """Both versions, the claims, and what removes the old one some day; it changes nothing."""
        cluster.writes = 1  # the Job that asks
        plan = upgrade(cluster).plan()
        assert plan
        assert (plan.old, plan.new, plan.bytes, plan.free) == ("17.6", "18", 1000, 2**30)
        assert (plan.place, plan.before) == (NEW, f"PersistentVolumeClaim {OLD}")
        assert plan.removal == f"kubectl delete statefulset/postgres pvc/{OLD}"
        assert plan.others == ("yesterday",)

    def test_has_nothing_to_do_for_the_same_major(self, cluster: Cluster) -> None:
        """Another minor is a deploy's."""
        assert upgrade(cluster, overlay("postgres", "postgres:17.9")).plan() is None

    @pytest.mark.parametrize(
        ("objects", "line"),
        [
            (lambda: overlay(image="postgres:16"), "postgres:16 is PostgreSQL 16, and 17 serves: no data goes back"),
            (
                lambda: overlay("postgres"),
                f"its claim {OLD} holds the data that serves: name it `postgres-18`, and `postgres-18-0`",
            ),
            (lambda: overlay(pod="postgres-0"), "leads to postgres-0, and StatefulSet postgres-18 has"),
            (lambda: [one for one in overlay() if not find_store([one])], "has no components/postgres: whoever runs"),
        ],
        ids=["an older major", "the same claim", "a Service that was forgotten", "outside"],
    )
    def test_refuses(self, cluster: Cluster, objects: Callable[[], list[Object]], line: str) -> None:
        """With the fix."""
        with pytest.raises(UsageError, match=line):
            upgrade(cluster, objects()).plan()

    @pytest.mark.parametrize(
        ("notes", "line"),
        [
            (
                None,
                f"PersistentVolumeClaim {NEW} is there already, and is no copy of the data: `kubectl delete pvc {NEW}`",
            ),
            ({COPY_OF: "another"}, "is no copy of the data"),
            ({COPY_OF: OLD, LEFT: "2026"}, "has what was written until 2026, when a move to it was undone: `kubectl"),
            ({COPY_OF: OLD}, None),
        ],
    )
    def test_takes_no_claim_with_anything_but_a_copy(
        self, cluster: Cluster, notes: dict[str, str] | None, line: str | None
    ) -> None:
        """It would be emptied."""
        claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": NEW, "annotations": notes}}
        cluster.objects["PersistentVolumeClaim", NEW] = claim
        if line is None:
            assert upgrade(cluster).plan()
            return
        with pytest.raises(UsageError, match=line):
            upgrade(cluster).plan()

    def test_asks_the_api_server_first(self, cluster: Cluster) -> None:
        """A quota, a policy of the cluster, a field that cannot be changed."""
        cluster.refuses = "exceeded quota"
        with pytest.raises(UsageError, match="the API server refuses it: exceeded quota"):
            upgrade(cluster).plan()

    def test_needs_room_and_the_superuser(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """As much as the data has, and half of that again."""
        monkeypatch.setitem(SAYS, "bytes", 2**30)
        with pytest.raises(UsageError, match=r"its claim asks for 1\.07 GB, and a copy of 1\.07 GB needs"):
            upgrade(cluster).plan()
        with pytest.raises(UsageError, match="Secret board-secrets has no POSTGRES_SUPERUSER_PASSWORD"):
            upgrade(cluster, POSTGRES_SUPERUSER_PASSWORD="").plan()


class TestAMove:
    def test_fills_the_new_server_and_lets_the_service_lead_there(self, cluster: Cluster) -> None:
        """In place of what was in it; the old one ends, with its claim."""
        one = upgrade(cluster)
        moved(one)
        assert new_serves(cluster)
        assert one.switched(NEW)
        opened = WRITABLE.partition("\n")[0]  # of the new server, once the old one had ended
        drills = [f"drill {name} at ip of postgres-18-0" for name in ("first", "last")]
        assert [line for line in cluster.done if not line.startswith("DROP")] == ["roles", *drills, opened]
        assert len([line for line in cluster.done if line.startswith("DROP DATABASE IF EXISTS")]) == 2
        assert cluster.readonly == {"postgres-0"}
        assert list(one.site.kubectl.get("pod", "postgres-0")) == []

    def test_is_never_led_to_beside_by_a_service_of_an_earlier_template(self, cluster: Cluster) -> None:
        """Which selects each pod of PostgreSQL: it is told which one before there is another."""
        del cluster.objects["Service", "postgres"]["spec"]["selector"][POD_NAME]
        cluster.writes = 1
        with pytest.raises(Killed):
            upgrade(cluster).begin(NEW, lambda _: None)
        assert cluster.objects["Service", "postgres"]["spec"]["selector"][POD_NAME] == "postgres-0"
        assert ("StatefulSet", "postgres-18") not in cluster.objects

    def test_makes_the_claim_as_its_statefulset_would(self, cluster: Cluster) -> None:
        """And says in it, from its first moment on, that it is a copy."""
        store = find_store(overlay())
        assert store
        claim = claim_of(store, OLD)
        assert claim["metadata"]["name"] == NEW
        assert claim["metadata"]["annotations"] == {COPY_OF: OLD}
        assert claim["metadata"]["labels"]["app.kubernetes.io/component"] == "postgres"  # by which `down` finds it
        assert claim["spec"] == store["spec"]["volumeClaimTemplates"][0]["spec"]

    def test_is_switched_back_without_two_that_are_written_to(self, cluster: Cluster) -> None:
        """What was written to the new server stays in its claim, which no deploy and no other try takes."""
        one = upgrade(cluster)
        moved(one)
        one.switch_back(NEW)
        assert old_serves(cluster)
        assert LEFT in cluster.mark(NEW)
        with pytest.raises(UsageError, match="has what was written until"):
            upgrade(cluster).plan()

    def test_can_be_tried_again(self, cluster: Cluster) -> None:
        """Into the claim of the try before, which is emptied first: a role that is gone by now must not be there."""
        one = upgrade(cluster)
        one.begin(NEW, lambda _: None)
        one.abandon(NEW)
        assert old_serves(cluster)
        cluster.done.clear()
        moved(upgrade(cluster))
        assert new_serves(cluster)
        assert cluster.done[:2] == ["empty", "roles"]

    def test_ends_in_time_or_says_what_does_not(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pod on a node that does not answer."""
        one = upgrade(cluster)
        monkeypatch.setattr(cluster, "_pods", lambda: ["postgres-0"])
        with pytest.raises(DeployFailed, match="pod postgres-0 does not end within"):
            one._end(cluster.objects["StatefulSet", "postgres"])


class TestJobs:
    def test_empties_the_claim_and_nothing_else(self, tmp_path: Path) -> None:
        """As the pod of PostgreSQL would, where nobody reaches it; what is root's in a new disk stays."""
        store = find_store(overlay())
        assert store
        job = emptying(store, "empty-1")
        pod, there = job["spec"]["template"]["spec"], store["spec"]["template"]["spec"]
        assert pod["securityContext"] == there["securityContext"]
        assert [one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]] == [NEW]
        labels = job["spec"]["template"]["metadata"]["labels"]
        for one in overlay():
            if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] != "deny-all":
                assert not selects(one["spec"]["podSelector"], labels), one["metadata"]["name"]
        for name in ("18/docker", "lost+found"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / ".hidden").touch()
        [container] = pod["containers"]
        command = [word.replace("/data", str(tmp_path)) for word in container["command"]]
        subprocess.run(command, check=True)
        assert [path.name for path in tmp_path.iterdir()] == ["lost+found"]

    def test_copies_roles_without_a_word_in_a_log(self, tmp_path: Path) -> None:
        """Those that are there are set up as well; a failure of that is one of the Job."""
        job = roles_copy(MIGRATE, "postgres:18", "roles-1", "10.0.0.9")
        [container] = job["spec"]["template"]["spec"]["containers"]
        says = "CREATE ROLE postgres;\nALTER ROLE postgres WITH PASSWORD 'hash';\n"
        scripts = {"pg_dumpall": f"printf '%s' \"{says}\"", "psql": 'echo "$@" >> "$LOG"; cat >> "$LOG"; exit "$FAILS"'}
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
        (tmp_path / "password").write_text("x")
        log = tmp_path / "log"
        command = [*container["command"], *container["args"]]
        command[2] = command[2].replace("/run/secrets/POSTGRES_SUPERUSER_PASSWORD", str(tmp_path / "password"))
        for fails in ("0", "1"):
            environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log), "FAILS": fails, "POSTGRES_HOST": "old"}
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr, done.returncode) == ("", "", int(fails))
        first, second = log.read_text().split("--no-psqlrc")[1:3]
        assert "CREATE ROLE postgres" in first
        assert "hash" not in first
        assert "--host=10.0.0.9" in first
        assert "ON_ERROR_STOP=1" in second
        assert "PASSWORD 'hash'" in second


def test_a_server_that_is_gone_is_said(cluster: Cluster) -> None:
    """By what it was."""
    one = upgrade(cluster)
    one.begin(NEW, lambda _: None)
    del cluster.objects["StatefulSet", "postgres-18"]
    with pytest.raises(DeployFailed, match=f"the StatefulSet with PersistentVolumeClaim {NEW} is gone"):
        one.fill("first", lambda _: None)
    del cluster.objects["StatefulSet", "postgres"]
    with suppress(AssertionError), pytest.raises(SlipwayError, match="PostgreSQL does not run"):
        one.close()
    assert MOVED_TO not in cluster.mark(OLD)
