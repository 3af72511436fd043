"""What a move to a new major of PostgreSQL changes for the releases of before it: they leave PostgreSQL alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.engines.kubectl import Object
from pipeline.targets.kubernetes.changes import key_of
from pipeline.targets.kubernetes.database import KubernetesDatabase
from pipeline.targets.kubernetes.moves import COPY_OF, MOVED_TO, Stores, without_moved
from pipeline.targets.kubernetes.objects import mounted
from pipeline.targets.kubernetes.rehearsal import store_image
from pipeline.targets.kubernetes.secret import doubled_stores, needed_keys
from tests.pipeline.targets.kubernetes.fake_cluster import NEW, OLD, Cluster, fake, moved, of, overlay, upgrade

pytestmark = pytest.mark.needs("kubectl")  # renders


@pytest.fixture(name="cluster")
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return fake(monkeypatch)


def before() -> list[Object]:
    """What a release of before the move has."""
    return overlay("postgres", "postgres:17-trixie")


def there(cluster: Cluster) -> Stores:
    return Stores.read(cast("Any", cluster))


class TestWithoutMoved:
    def test_leaves_out_a_server_whose_data_moved_and_its_service(self, cluster: Cluster) -> None:
        """On the way back to a release of before, the one that serves stays as it is; all else is applied."""
        assert without_moved(before(), there(cluster)) == before()
        moved(upgrade(cluster))
        left = {key_of(one) for one in before()} - {key_of(one) for one in without_moved(before(), there(cluster))}
        assert left == {("StatefulSet", "postgres"), ("Service", "postgres")}
        assert without_moved(overlay(), there(cluster)) == overlay()

    def test_leaves_a_database_outside_alone(self, cluster: Cluster) -> None:
        """There is nothing to leave out."""
        objects = [one for one in before() if one["kind"] != "StatefulSet"]
        assert without_moved(objects, there(cluster)) == objects


class TestStores:
    def test_a_service_of_before_leads_to_the_only_server(self) -> None:
        """Its selector names no pod yet."""
        service = {"kind": "Service", "metadata": {"name": "postgres"}, "spec": {"selector": {"a": "b"}}}
        [store] = [one for one in before() if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "postgres"]
        stores = Stores.read(cast("Any", SimpleNamespace(get=lambda _: [service, store])))
        assert stores.serving == store

    def test_a_claim_whose_origin_is_gone_is_the_data(self) -> None:
        """An administrator removed the old one, as the report says."""
        assert Stores({OLD: {}, NEW: {COPY_OF: OLD}}).is_copy(NEW)
        assert not Stores({OLD: {MOVED_TO: NEW}, NEW: {COPY_OF: OLD}}).is_copy(NEW)
        assert not Stores({NEW: {COPY_OF: OLD}}).is_copy(NEW)


def test_a_name_with_a_major_is_that_of_postgresql() -> None:
    """For its secrets, its image, and what stands beside a database outside."""
    objects = overlay()
    assert "POSTGRES_SUPERUSER_PASSWORD" in needed_keys(objects)
    assert "runs postgres itself" in doubled_stores(["DATABASE_URL"], objects, "k8s/overlays/kind")[0]
    assert store_image(before(), "postgres") == "postgres:17-trixie"
    assert store_image(objects, "postgres") == "postgres:18-trixie"


def test_what_the_pods_of_a_store_mount_is_needed() -> None:
    """A release that left PostgreSQL out does not name it, and no deploy removes it."""
    [init] = [one for one in overlay() if one["metadata"]["name"].startswith("postgres-init-")]
    assert key_of(init) in mounted([of(overlay(), "StatefulSet", "postgres-18")])


class TestProblems:
    def problems(self, cluster: Cluster) -> list[str]:
        """What speaks against the way back to a release of before."""
        kept = SimpleNamespace(find=lambda _: SimpleNamespace(manifests=before()), knows=bool)
        site = SimpleNamespace(
            kept=kept,
            kubectl=cluster,
            env=SimpleNamespace(name="kind"),
            records=SimpleNamespace(serving=lambda: None),
            docker=None,
            stand="board",
        )
        return KubernetesDatabase(cast("Any", site)).problems(expected=True, release="sha256:abcdef0123456789")

    def test_a_release_of_before_may_come_back(self, cluster: Cluster) -> None:
        """Onto the new server, if that runs."""
        assert self.problems(cluster) == []
        moved(upgrade(cluster))
        assert self.problems(cluster) == []
        for name in ("postgres", "postgres-18"):
            del cluster.objects["StatefulSet", name]
        [line] = self.problems(cluster)
        assert line.startswith("PostgreSQL does not run, and its data was moved since release ")
        assert line.endswith("`nox -s deploy -- kind` first")
