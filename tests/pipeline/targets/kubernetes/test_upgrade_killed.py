"""A move to a new major of PostgreSQL that was killed: what the next deploy makes of it, wherever that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from pipeline.engines.kubectl import Object
from pipeline.targets.kubernetes.data import judge_data
from pipeline.targets.kubernetes.moves import LEFT, Stores
from pipeline.targets.kubernetes.store import find_store, major_of_tag
from tests.pipeline.targets.kubernetes.fake_cluster import (
    NEW,
    OLD,
    Cluster,
    Killed,
    fake,
    moved,
    new_serves,
    old_serves,
    overlay,
    upgrade,
)

pytestmark = pytest.mark.needs("kubectl")  # renders


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return fake(monkeypatch)


class TestKilled:
    """Whoever moves it is killed before each change that it makes, one after the other."""

    def killed(self, cluster: Cluster, after: int, what: Callable[[], None]) -> bool:
        cluster.writes = after
        try:
            what()
        except Killed:
            return True
        finally:
            cluster.writes = 10_000
        return False

    @pytest.mark.parametrize("recorded", [True, False], ids=["here", "on another machine"])
    def test_each_kill_is_healed(self, cluster: Cluster, recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the next deploy: the old server takes writes, or the new one serves; never half of both."""
        after, served = 0, list[str]()
        while True:
            fresh = Cluster()
            cluster.__dict__.update(fresh.__dict__)
            if not self.killed(cluster, after, lambda: moved(upgrade(cluster))):
                break
            after += 1
            other = upgrade(cluster, overlay("postgres", "postgres:17-trixie"))  # with an overlay of before
            other.heal()
            if recorded:  # as `pipeline.data.healing` does
                other.go_on(NEW) if other.switched(NEW) else other.abandon(NEW)
            served.append("new" if other.switched(NEW) else "old")
            if served[-1] == "new":
                assert new_serves(cluster)
            else:
                assert old_serves(cluster)
                moved(upgrade(cluster))  # and the next try comes to its end
                assert new_serves(cluster)
        assert served == sorted(served, reverse=True)  # what was switched stays so
        assert {"old", "new"} == {*served}

    @pytest.mark.parametrize("recorded", [True, False], ids=["here", "on another machine"])
    def test_each_kill_of_a_switch_back_is_healed(self, cluster: Cluster, recorded: bool) -> None:
        """The old server serves, whatever came of it; without its record the new one, if nothing was undone yet."""
        after = 0
        while True:
            cluster.__dict__.update(Cluster().__dict__)
            one = upgrade(cluster)
            moved(one)
            if not self.killed(cluster, after, lambda one=one: one.switch_back(NEW)):  # type: ignore[misc]
                break
            other = upgrade(cluster)
            other.heal()
            if recorded:  # as `pipeline.data.healing` does
                other.switch_back(NEW)
            if after or recorded:
                assert old_serves(cluster)
                assert LEFT in cluster.mark(NEW)
            else:
                assert new_serves(cluster)
            after += 1
        assert after > 5

    def test_nothing_is_healed_that_is_at_its_end(self, cluster: Cluster) -> None:
        """A deploy changes nothing there."""
        one = upgrade(cluster)
        cluster.writes = 0
        assert not one.heal()
        cluster.writes = 10_000
        moved(one)
        cluster.writes = 0
        assert not upgrade(cluster).heal()

    def test_what_was_stopped_since_is_started_to_take_writes_again(self, cluster: Cluster) -> None:
        """`nox -s down` after a kill: the setting is in the old server's claim."""
        one = upgrade(cluster)
        one.begin(NEW, lambda _: None)
        one.close()
        for name in ("postgres", "postgres-18"):
            del cluster.objects["StatefulSet", name]
        upgrade(cluster).abandon(NEW)
        assert old_serves(cluster)

    def test_a_deploy_judges_nothing_before_it_is_healed(self, cluster: Cluster) -> None:
        """Then the line says what to do: neither the copy nor the data of before is served from."""
        one, store = upgrade(cluster), find_store(overlay())
        before = find_store(overlay("postgres", "postgres:17-trixie"))
        assert store and before  # noqa: PT018

        def judged(wanted: Object) -> list[str]:
            there = Stores.read(cast("Any", cluster))
            return judge_data("kind", wanted, there.serving, there, major_of_tag, expected=True)

        [line] = judged(store)
        assert line.endswith(
            f"the data of PostgreSQL 17 is in another one: put {OLD} back, or `nox -s upgrade-database -- kind` moves"
            " it to PostgreSQL 18"
        )
        one.begin(NEW, lambda _: None)
        assert judged(store) == judged(before) == []
        one.abandon(NEW)
        [line] = judged(store)
        assert f"{NEW} has a copy of the data, and what was written since is not in it: `nox -s upgrade" in line
        assert judged(before) == []
        moved(upgrade(cluster))
        assert judged(store) == []
        [line] = judged(before)
        assert f"its data moved from PersistentVolumeClaim {OLD} to {NEW}, and is served from there" in line
        upgrade(cluster).switch_back(NEW)
        [line] = judged(store)
        assert f"`kubectl delete pvc {NEW}`, then `nox -s upgrade-database -- kind` copies it anew" in line
