"""Whether PostgreSQL's claim is the one that was in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.targets.kubernetes.data import judge_data
from pipeline.targets.kubernetes.moves import Stores
from pipeline.targets.kubernetes.store import Store, find_store, major_of_tag

SHIPPED = Path(__file__).parents[4] / "k8s/components/postgres/postgres.yaml"
HOME = "/var/lib/postgresql"
CLAIM = "data-postgres-0"


def store(
    image: str = "postgres:18-trixie", *, pgdata: str | None = None, name: str = "data", **mount: str
) -> dict[str, Any]:
    """A StatefulSet of PostgreSQL."""
    env = [{"name": "POSTGRES_USER", "value": "postgres"}] + ([{"name": "PGDATA", "value": pgdata}] if pgdata else [])
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": name, "mountPath": HOME, **mount}]
    containers = [{"name": "exporter", "image": "exporter:2"},
                  {"name": "postgres", "image": image, "env": env, "volumeMounts": mounts}]  # fmt: skip
    pod = {"containers": containers, "volumes": [{"name": "tmp", "emptyDir": {}}]}
    spec = {"template": {"spec": pod}, "volumeClaimTemplates": [{"metadata": {"name": name}}]}
    return {"kind": "StatefulSet", "metadata": {"name": "postgres"}, "spec": spec}


def judge(
    wanted: dict[str, Any],
    before: dict[str, Any] | None,
    *,
    claims: tuple[str, ...] | Stores = (CLAIM,),
    expected: bool = True,
    majors: dict[str, str] | None = None,
) -> list[str]:
    """What is said of kind; who is asked for a major knows tags, and MAJORS."""
    return judge_data(
        "kind",
        wanted,
        before,
        claims if isinstance(claims, Stores) else Stores({name: {} for name in claims}),
        lambda image: major_of_tag(image) or (majors or {}).get(image),
        expected=expected,
    )


class TestStore:
    def test_reads_the_shipped_one(self) -> None:
        """The claim is the one that its README names."""
        objects = list(yaml.safe_load_all(SHIPPED.read_text(encoding="utf-8")))
        found = find_store(objects)
        assert found
        assert Store.of(found) == Store("postgres:18-trixie", CLAIM, "18/docker", f". at {HOME}")

    def test_is_none_where_the_database_is_outside(self) -> None:
        """No StatefulSet of that name."""
        assert find_store([{"kind": "StatefulSet", "metadata": {"name": "redis"}}]) is None

    @pytest.mark.parametrize(
        ("given", "claim", "folder"),
        [
            (store("postgres:17", mountPath=f"{HOME}/data"), CLAIM, "."),
            (store("example.com/own:1"), CLAIM, None),
            (store("example.com/own:1", pgdata=f"{HOME}/a/b", subPath="db"), CLAIM, "db/a/b"),
            (store(pgdata="/elsewhere"), CLAIM, ""),
            (store(name="tmp"), "tmp-postgres-0", "18/docker"),
        ],
    )
    def test_knows_where_the_data_is_in_the_claim(self, given: dict[str, Any], claim: str, folder: str | None) -> None:
        """None where only the image knows, empty where it ends with the pod."""
        seen = Store.of(given)
        assert (seen.claim, seen.folder) == (claim, folder)

    def test_knows_a_claim_that_is_not_made_by_it_and_none(self) -> None:
        """A volume of the pod's."""
        one = store()
        one["spec"]["volumeClaimTemplates"] = []
        assert Store.of(one).claim is None
        one["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "old"}}]
        assert Store.of(one).claim == "old"


class TestMajorOfTag:
    @pytest.mark.parametrize(
        ("image", "major"),
        [
            ("postgres:18-trixie", "18"),
            ("mirror.example.com:5000/library/postgres:17.5@sha256:" + "0" * 64, "17"),
            ("bitnami/postgresql:18.1.0", "18"),
            ("postgres", None),
            ("postgres:latest", None),
            ("postgres@sha256:" + "0" * 64, None),
            ("timescale/timescaledb:2.17.2-pg16", None),
        ],
    )
    def test_is_what_the_tag_begins_with(self, image: str, major: str | None) -> None:
        """That of somebody else's image begins with a version of theirs."""
        assert major_of_tag(image) == major


class TestJudgeData:
    @pytest.mark.parametrize("expected", [True, False])
    @pytest.mark.parametrize(
        ("wanted", "before"),
        [
            (store(), store()),
            (store(), None),
            (store("postgres:18.1"), store("postgres:18-trixie")),
            (store(pgdata=f"{HOME}/18/docker"), store()),  # said aloud
            (store(pgdata="/data/18/docker", mountPath="/data"), store()),  # the same folder of the claim
            (store("example.com/own:1"), store("example.com/own:1")),
            (store("own:18"), store()),  # where it has its data only the image knows
        ],
    )
    def test_has_nothing_against_the_same_data(
        self, wanted: dict[str, Any], before: dict[str, Any] | None, expected: bool
    ) -> None:
        """However it is written."""
        assert judge(wanted, before, expected=expected, majors={"own:18": "18"}) == []

    @pytest.mark.parametrize("expected", [True, False])
    def test_refuses_another_major(self, expected: bool) -> None:
        """Both, the claim, the images, and where the steps are."""
        [line] = judge(store("postgres:19-trixie"), store(), expected=expected)
        assert line == (
            f"StatefulSet postgres: the data in PersistentVolumeClaim {CLAIM} is of PostgreSQL 18, which PostgreSQL 19"
            " of image postgres:19-trixie cannot read: put image postgres:18-trixie back, or name it `postgres-19`, and"
            " `postgres-19-0` in the Service's selector, and `nox -s upgrade-database -- kind` moves it"
        )

    def test_asks_the_image_where_the_tag_does_not_say(self) -> None:
        """On this machine; where that cannot tell either, it says so."""
        assert "is of PostgreSQL 18, which PostgreSQL 19" in judge(store("own:1"), store(), majors={"own:1": "19"})[0]
        [line] = judge(store("own:1"), store())
        assert line == (
            "StatefulSet postgres: the PostgreSQL major of own:1 cannot be determined, and the data needs the one that"
            " made it: use a tag that names it (postgres:18…), or deploy where Docker can run the image"
        )

    @pytest.mark.parametrize("expected", [True, False])
    @pytest.mark.parametrize(
        ("wanted", "place"),
        [
            (store(pgdata=f"{HOME}/other"), "`other`"),
            (store(pgdata="/elsewhere"), "a folder outside it"),
            (store(subPath="db"), "`db/18/docker`"),
            (store(mountPath=f"{HOME}/18/docker"), "the root"),
        ],
    )
    def test_refuses_another_place_in_the_claim(self, wanted: dict[str, Any], place: str, expected: bool) -> None:
        """PGDATA, mountPath and subPath together."""
        [line] = judge(wanted, store(), expected=expected)
        assert line == (
            f"StatefulSet postgres: its data is in `18/docker` of PersistentVolumeClaim {CLAIM}, and would be in"
            f" {place}: put PGDATA, mountPath and subPath back, or use another claim for an empty database"
        )

    def test_refuses_another_mount_where_only_the_image_knows_the_place(self) -> None:
        """What is mounted where is known all the same."""
        [line] = judge(store("own:1", subPath="db"), store("own:1"))
        assert (
            f"its data is in `. at {HOME}` of PersistentVolumeClaim {CLAIM}, and would be in `db at {HOME}`: " in line
        )

    def test_refuses_a_claim_that_is_not_there(self) -> None:
        """Where something was proved; what is in a claim to be made is of no major."""
        assert judge(store("postgres:19"), store(), claims=(), expected=False) == []
        [line] = judge(store(), None, claims=())
        assert line == (
            f"StatefulSet postgres: there is no PersistentVolumeClaim {CLAIM}, although releases were proved on kind"
            " before: restore the claim, or begin with an empty database: `nox -s deploy -- kind --empty-database`"
        )
        [line] = judge(store("postgres:17", name="new"), store())
        assert line.startswith("StatefulSet postgres: there is no PersistentVolumeClaim new-postgres-0, although ")
        assert f"before: put {CLAIM} back, or begin with an empty database: " in line

    def test_refuses_another_claim(self) -> None:
        """One that is there, of whatever; begun anew on purpose it may be of another major."""
        new, claims = store("postgres:19", name="new"), (CLAIM, "new-postgres-0")
        assert judge(new, store(), claims=claims, expected=False) == []
        [line] = judge(new, store(), claims=claims)
        assert line.startswith(
            f"StatefulSet postgres: its data was in PersistentVolumeClaim {CLAIM}, and would be in"
            f" PersistentVolumeClaim new-postgres-0, although releases were proved on kind before: put {CLAIM} back"
        )

    def test_minds_no_data_that_ends_with_its_pod(self) -> None:
        """An overlay for a look at it; but data that was in a claim is missed."""
        one = store()
        one["spec"]["volumeClaimTemplates"] = []
        assert judge(one, one, claims=()) == []
        assert "and would be in no claim" in judge(one, store())[0]
