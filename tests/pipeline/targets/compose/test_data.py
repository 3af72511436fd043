"""Whether the database that compose mounts now is the one that was in use."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.targets.compose.data import Mount, Seen, Wanted, judge_data, read_seen, unchanged

HOME = "/var/lib/postgresql"
DATA = f"{HOME}/18/docker"
VOLUME = Mount("shop_postgres", HOME)
WANTED = Wanted("postgres:18-trixie", (VOLUME,), user="999:999")
OLD = Mount("shop_old", "/slipway-others/0")
SAID = """\
server postgres (PostgreSQL) 18.6 (Debian 18.6-1)
promised 18
pgdata /var/lib/postgresql/18/docker
data 18 /var/lib/postgresql/18/docker/PG_VERSION
data 18 /var/lib/postgresql/18/docker/PG_VERSION
closed find: '/var/lib/postgresql/lost+found': Permission denied
"""


def config(**service: Any) -> dict[str, Any]:
    """What `docker compose config --format json` says, with SERVICE for PostgreSQL's."""
    scripts = {"type": "bind", "source": "/srv/shop/scripts", "target": "/scripts", "read_only": True}
    data = {"type": "volume", "source": "postgres", "target": HOME, "volume": {}}
    usual = {"image": "postgres:18-trixie", "user": "999:999", "environment": None, "volumes": [data, scripts]}
    return {
        "name": "shop",
        "services": {"postgres": {**usual, **service}},
        "volumes": {"postgres": {"name": "shop_postgres"}},
    }


class TestWanted:
    def test_is_read_from_compose(self) -> None:
        """By the volume's real name; a folder that nothing can be written to holds no data."""
        assert Wanted.of(config()) == WANTED

    def test_knows_folders_subpaths_and_a_moved_place(self) -> None:
        """All that compose has for it."""
        folder = {"type": "bind", "source": "/srv/data", "target": "/data"}
        part = {"type": "volume", "source": "postgres", "target": HOME, "volume": {"subpath": "db"}}
        seen = Wanted.of(config(volumes=[folder, part], environment={"PGDATA": "/data/x"}, image=None))
        assert (seen.image, seen.pgdata) == ("shop-postgres", "/data/x")
        assert [str(one) for one in seen.mounts] == ["folder /srv/data", "volume shop_postgres"]
        assert [one.option() for one in seen.mounts] == [
            "type=bind,source=/srv/data,target=/data,readonly",
            f"type=volume,volume-nocopy,source=shop_postgres,target={HOME},readonly,volume-subpath=db",
        ]
        assert seen.home("/data/x") == seen.mounts[0]
        assert seen.home("/elsewhere") == seen.mounts[1]

    def test_takes_the_name_of_a_volume_without_one_from_its_container(self) -> None:
        """Compose gives it to the next container, too."""
        unnamed = Wanted.of(config(volumes=[{"type": "volume", "target": HOME}]))
        assert unnamed.named([Mount("f00d", HOME), Mount("beef", "/data")]).mounts == (Mount("f00d", HOME),)


class TestUnchanged:
    @pytest.mark.parametrize(
        ("change", "same"),
        [
            ({}, True),
            ({"State": {"Running": False}}, False),
            ({"Image": "sha256:2"}, False),
            ({"Config": {"Labels": {"com.docker.compose.config-hash": "other"}}}, False),
            ({"Mounts": [{"Type": "volume", "Name": "shop_other", "Destination": HOME, "RW": True}]}, False),
        ],
    )
    def test_is_what_up_would_keep(self, change: dict[str, Any], same: bool) -> None:
        """A tag that names another image by now, and another volume behind a name, are in no hash of compose's."""
        facts = {
            "State": {"Running": True},
            "Image": "sha256:1",
            "Config": {"Labels": {"com.docker.compose.config-hash": "hash"}},
            "Mounts": [{"Type": "volume", "Name": "shop_postgres", "Destination": HOME, "RW": True}],
        }
        assert unchanged({**facts, **change}, WANTED, "hash", "sha256:1") is same


class TestReadSeen:
    def test_reads_what_the_container_said(self) -> None:
        """Each folder once."""
        closed = ("find: '/var/lib/postgresql/lost+found': Permission denied",)
        assert read_seen(SAID) == Seen(DATA, "18", "18", {DATA: "18"}, closed)

    def test_falls_back_on_what_the_image_promises(self) -> None:
        """An image whose program is not on the PATH."""
        assert read_seen("server \npromised 19\npgdata \n") == Seen("", "19", "19")
        assert read_seen("server postgres (PostgreSQL) 19beta1\npromised \npgdata /d\n").server == "19"
        assert read_seen("server \npromised \npgdata \n").server is None


def judge(seen: Seen, wanted: Wanted = WANTED, others: tuple[Mount, ...] = (), *, expected: bool = True) -> list[str]:
    """What is said of compose."""
    return judge_data("compose", wanted, seen, others, expected=expected)


class TestJudgeData:
    def test_has_nothing_against_the_data_that_was_there(self) -> None:
        """Also where an older one lies beside it, after an upgrade in place."""
        assert judge(Seen(DATA, "18", "18", {DATA: "18", f"{HOME}/17/docker": "17"})) == []
        assert judge(Seen(f"{DATA}/", "18", "18", {DATA: "18"})) == []

    def test_has_nothing_against_a_first_deploy(self) -> None:
        """Without a volume, or with one that compose has just made."""
        assert judge(Seen(DATA), expected=False) == []
        assert judge(Seen(DATA, "18", "18"), expected=False) == []

    @pytest.mark.parametrize("expected", [True, False])
    @pytest.mark.parametrize(
        "seen",
        [
            Seen(f"{HOME}/19/docker", "19", "19", {DATA: "18"}),  # 18 and newer: a folder of its own
            Seen(DATA, "19", "19", {DATA: "18"}),  # PGDATA stayed
            Seen(f"{HOME}/19/docker", "18", "19", {DATA: "18"}),  # the image says 19, its program 18
        ],
    )
    def test_refuses_another_major(self, seen: Seen, expected: bool) -> None:
        """Whether or not something was proved here: both majors, the volume, the image, and where the steps are."""
        [line] = judge(seen, expected=expected)
        assert line == (
            f"postgres: the data in volume shop_postgres ({DATA}) is of PostgreSQL 18, which PostgreSQL 19 of image"
            f" postgres:18-trixie cannot read: put the image back, or mount `postgres-19:{HOME}` instead, with"
            " `postgres-19:` below `volumes:`, and `nox -s upgrade-database -- compose` moves it"
        )

    @pytest.mark.parametrize("expected", [True, False])
    def test_refuses_data_of_the_same_major_elsewhere(self, expected: bool) -> None:
        """A moved PGDATA, inside of the volume or out of it: both places."""
        for place in (f"{HOME}/other", "/elsewhere"):
            [line] = judge(Seen(place, "18", "18", {DATA: "18"}), expected=expected)
            assert line == (
                f"postgres: the data in volume shop_postgres is in {DATA}, and PGDATA is {place} now: set PGDATA back,"
                " or mount an empty volume for an empty database"
            )

    def test_refuses_nothing_where_something_was_proved(self) -> None:
        """With the way on, and the way back where nobody knows better."""
        [line] = judge(Seen(DATA, "18", "18"))
        assert line == (
            "postgres: volume shop_postgres has no database, although releases were proved on compose before: mount it"
            " again, or restore a dump of it, or begin with an empty database:"
            " `nox -s deploy -- compose --empty-database`"
        )
        [line] = judge(Seen(DATA), Wanted("postgres:18", ()))
        assert line.startswith("postgres: no volume is mounted for its data, although ")

    def test_says_where_the_data_is(self) -> None:
        """A volume that docker-compose.yml does not mount any more."""
        [line] = judge(Seen(DATA, "18", "18", {f"{OLD.target}/18/docker": "18"}), others=(OLD,))
        assert "there is one in volume shop_old (PostgreSQL 18, 18/docker): mount that again, or begin" in line

    def test_says_what_moves_the_data_to_a_new_major(self) -> None:
        """Where docker-compose.yml has the new image and its new volume already."""
        there = {f"{OLD.target}/18/docker": "18"}
        [line] = judge(Seen(f"{HOME}/19/docker", "19", "19", there), others=(OLD,))
        assert (
            "there is one in volume shop_old (PostgreSQL 18, 18/docker): `nox -s upgrade-database -- compose`" in line
        )
        assert "moves it to PostgreSQL 19, or mount that again, or begin" in line
        [line] = judge(Seen(f"{HOME}/17/docker", "17", "17", there), others=(OLD,))
        assert "upgrade-database" not in line

    def test_says_that_it_may_not_look(self) -> None:
        """A data folder of another user is no empty one."""
        [line] = judge(Seen(DATA, "18", "18", closed=("find: '18': Permission denied",)), expected=False)
        assert line == (
            "postgres: volume shop_postgres is closed to user 999:999 of image postgres:18-trixie (find: '18':"
            " Permission denied): set `user` back"
        )

    def test_says_that_nobody_knows_the_major(self) -> None:
        """An image of something else."""
        [line] = judge(Seen(DATA, None, None, {DATA: "18"}))
        assert line == (
            "postgres: image postgres:18-trixie does not say which PostgreSQL it has (`postgres --version`)"
        )
