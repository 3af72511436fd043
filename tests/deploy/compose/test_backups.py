"""Backups on Compose: made, restored and tried while people use the service; and what goes wrong around them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyrage
import pytest

from tests.backend.backups import s3
from tests.containers import docker
from tests.deploy.compose.stack import AS_SUPERUSER, ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import SUM, TABLE, Writers, tell
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

BACKUPS = "compose: backups"
FAULTS = "compose: faults around a backup"
LONGEST_WINDOW = 5.0  # seconds of 503 in a swap
NOISE_MB = 100


@pytest.fixture(scope="module")
def kept(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCheckout]:
    """A clone whose environment has backups, encrypted for a key that only a restore gets."""
    one = with_backups(ComposeCheckout.make(template, tmp_path_factory.mktemp("backups") / "clone"))
    one.proved()
    yield one
    one.remove(set())
    forget_backups(one)


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Iterator[ComposeCheckout]:
    """The same, for a test that takes it apart; nothing was deployed yet."""
    one = with_backups(ComposeCheckout.make(template, tmp_path / "clone"))
    yield one
    one.remove(set())
    forget_backups(one)


def with_backups(one: ComposeCheckout) -> ComposeCheckout:
    one.configure(backups='{ keep = "7d 4w", max_age = "24h" }')
    one.commit()
    key = pyrage.x25519.Identity.generate()
    one.set_env(BACKUP_RECIPIENTS=str(key.to_public()), BACKUP_IDENTITY=str(key))
    return one


def forget_backups(one: ComposeCheckout) -> None:
    docker("volume", "rm", f"{one.project}-backups")


def listed(one: ComposeCheckout) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tell(one, "backups").report["backups"]
    return found


def in_volume(one: ComposeCheckout) -> set[str]:
    """What is in the volume of the backups."""
    mount = f"type=volume,source={one.project}-backups,target=/backups,readonly"
    names = docker(
        "run", "--rm", "--network", "none", "--mount", mount, "redis:8-trixie", "ls", "-A", "/backups"
    ).split()
    return {name for name in names if name != "schedule.json"}


def log_of(container: str) -> str:
    """Return what it said on both streams."""
    command = ["docker", "logs", container]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True).stdout


def databases(one: ComposeCheckout) -> set[str]:
    return set(one.sql("SELECT string_agg(datname, ' ') FROM pg_database WHERE NOT datistemplate").split())


def questions(one: ComposeCheckout) -> str:
    """The containers that a backup or a restore has left."""
    return docker("ps", "--all", "--quiet", "--filter", f"label=slipway.backups={one.project}")


class TestScheduled:
    def test_the_first_backup_is_made_at_once(self, kept: ComposeCheckout) -> None:
        """By a container that the deploy started, that is healthy, and that makes none when it starts again."""
        [name] = kept.containers("backup")
        wait_until(lambda: kept.inspect(name)["State"]["Health"]["Status"] == "healthy", "it is not healthy", 90)
        wait_until(lambda: len(in_volume(kept)) == 1, "it made no backup", 60)
        docker("restart", name)
        wait_until(lambda: log_of(name).count("the next backup is due at") == 2, "it did not start again", 60)
        assert len(in_volume(kept)) == 1

    def test_it_can_neither_read_nor_restore_what_it_makes(self, kept: ComposeCheckout) -> None:
        """It has no key and no superuser, and nothing secret in its environment."""
        [name] = kept.containers("backup")
        facts = kept.inspect(name)
        secret = {
            mount["Destination"].rpartition("/")[2] for mount in facts["Mounts"] if "secrets" in mount["Destination"]
        }
        assert not {"BACKUP_IDENTITY", "POSTGRES_SUPERUSER_PASSWORD"} & secret
        values = {value for key, value in kept.settings().items() if value and ("PASSWORD" in key or "IDENTITY" in key)}
        assert not [value for value in values if value in json.dumps(facts["Config"])]

    def test_a_key_that_is_none_is_said(self, kept: ComposeCheckout) -> None:
        """Before anything is touched: no backup would be made, and nobody would know."""
        with kept.dotenv(BACKUP_RECIPIENTS="age1nobody"):
            outcome = kept.deploy()
        assert outcome.code == 2, str(outcome)
        assert "BACKUP_RECIPIENTS: must be public keys of age" in outcome.problems()[0]


class TestRestore:
    def test_a_backup_has_each_write_that_was_acknowledged_before_it(
        self, kept: ComposeCheckout, add_row: AddRow
    ) -> None:
        """It is made while people write; restored beside, it has all of them, and the rows that it says."""
        with Writers(kept) as writers:
            wait_until(lambda: len(writers.acknowledged()) > 20, "nobody wrote anything", 30)
            begun = time.monotonic()
            made = tell(kept, "backup").report
            seconds = time.monotonic() - begun
        backup = made["backup"]
        snapshot = datetime.fromisoformat(backup["snapshot"])
        tell(kept, "restore", "--backup", backup["name"], "--database", "beside")
        ids = set(docker("exec", kept.containers("postgres")[0], "sh", "-c", AS_SUPERUSER, "beside",
                         f"SELECT id FROM {TABLE}").split())  # fmt: skip
        before = writers.acknowledged(until=snapshot.timestamp() - time.time() + time.monotonic())
        assert before
        assert before <= ids
        [rows] = [one["rows"] for one in backup["tables"] if one["name"].endswith(TABLE)]
        assert len(ids) == rows
        kept.sql('DROP DATABASE "beside" WITH (FORCE)')
        how = f"{len(before)} of {len(writers.acknowledged())} writes acknowledged before its snapshot, none lost"
        add_row(BACKUPS, f"a backup under writes           {seconds:4.1f} s, {how}")

    @pytest.mark.gate
    def test_a_table_that_somebody_dropped_comes_back(self, kept: ComposeCheckout, add_row: AddRow) -> None:
        """Rows and checksum are equal; people see 503 for a moment, and never another failure."""
        for number in range(50):
            kept.write_note(f"to be kept {number}")
        before = kept.sql(SUM)
        tell(kept, "backup")
        with Visitors(f"http://localhost:{kept.port}", "/ready", "/health") as visitors:
            kept.sql(f"DROP TABLE {TABLE} CASCADE")
            outcome = tell(kept, "restore", "--backup", "latest", "--yes")
        assert outcome.verdict == "proved", str(outcome)
        assert kept.sql(SUM) == before
        statuses = {visit.status for visit in visitors.visits}
        assert statuses <= {200, 503}
        window = [visit.at for visit in visitors.of("/ready") if visit.status == 503]
        seconds = window[-1] - window[0] if window else 0.0
        assert seconds <= LONGEST_WINDOW
        assert len([name for name in databases(kept) if name != kept.settings()["POSTGRES_DB"]]) == 2  # and `postgres`
        assert (questions(kept), list((kept.root / ".slipway/compose/secrets").glob("lent-*"))) == ("", [])
        how = f"503 for {seconds:.1f} s, rows and checksum equal"
        add_row(BACKUPS, f"a dropped table, restored       {outcome.seconds:4.1f} s, {how}")

    def test_a_drill_restores_the_newest_where_nobody_is(self, kept: ComposeCheckout, add_row: AddRow) -> None:
        """It says how old the backup is and how long it took; PostgreSQL says no ERROR, and nothing is left."""
        before = databases(kept)
        outcome = tell(kept, "drill")
        assert outcome.verdict == "proved", str(outcome)
        assert "ERROR" not in outcome.stderr
        assert databases(kept) == before
        left = f"label=slipway.throwaway={kept.project}-drill"
        assert (
            docker("ps", "--all", "--quiet", "--filter", left) + docker("network", "ls", "--quiet", "--filter", left)
            == ""
        )
        facts = outcome.report
        add_row(BACKUPS, f"drill                           RPO {facts['rpo_seconds']} s, RTO {facts['rto_seconds']} s")


class TestTheHostIsGone:
    def test_files_settings_and_key_bring_it_back(self, fresh: ComposeCheckout, template: Path, tmp_path: Path) -> None:
        """`down --volumes` keeps the backups; on another host nothing of the old one is there but a copy of them."""
        fresh.proved()
        fresh.write_note("before the fire")
        before, name = fresh.sql(SUM), tell(fresh, "backup").report["backup"]["name"]
        files = tmp_path / "files"
        tell(fresh, "restore", "--backup", name, "--download", str(files))
        assert (files / "manifest.json").exists()
        assert fresh.run("down", "--volumes").code == 0
        assert name in in_volume(fresh)
        forget_backups(fresh)  # the host is gone, and so is its disk

        new = ComposeCheckout(tmp_path / "new" / "clone", port=fresh.port, environ=dict(fresh.environ))
        subprocess.run(["git", "clone", "--quiet", str(fresh.root), str(new.root)], check=True)
        (new.root / ".env").write_text((fresh.root / ".env").read_text())
        try:
            new.proved()
            put_back(new, files, name)
            assert tell(new, "restore", "--backup", name, "--yes").verdict == "proved"
            assert new.sql(SUM) == before
        finally:
            new.remove(set())
            docker("volume", "create", f"{fresh.project}-backups")  # for the fixture


def put_back(one: ComposeCheckout, files: Path, name: str) -> None:
    """Bring the files of a backup into the volume, as docs/5-compose.md says."""
    volume, image = (
        f"{one.project}-backups:/backups",
        docker("inspect", "--format", "{{.Image}}", one.containers("backup")[0]),
    )
    script = f"cp -r /files /backups/{name} && chown -R 10001:10001 /backups/{name}"
    docker(
        "run",
        "--rm",
        "--user",
        "0",
        "--entrypoint",
        "sh",
        "--volume",
        volume,
        "--volume",
        f"{files}:/files:ro",
        image,
        "-c",
        script,
    )


class TestOffTheHost:
    def test_a_copy_is_in_an_s3_that_the_container_reaches(self, kept: ComposeCheckout, tmp_path: Path) -> None:
        """It is verified there; with the volume empty, a restore brings it back."""
        network = json.loads(docker("network", "inspect", f"{kept.project}_frontend"))[0]
        host = network["IPAM"]["Config"][0]["Gateway"]
        with s3.serving(tmp_path, bind="0.0.0.0") as endpoint:
            place = f"http://{host}:{urlsplit(endpoint).port}"
            address = f"s3://backups/{kept.project}?endpoint={place}&region=us-east-1"
            with kept.dotenv(BACKUP_ADDRESS=address, BACKUP_ADDRESS_SECRET=f"{s3.ADMIN}:{s3.SECRET}"):
                made = tell(kept, "backup").report["backup"]
                assert (made["here"], made["away"]) == (True, True)
                [name] = [made["name"]]
                mount = f"type=volume,source={kept.project}-backups,target=/backups"
                docker("run", "--rm", "--user", "0", "--network", "none", "--mount", mount, "--entrypoint", "rm",
                       "redis:8-trixie", "-r", f"/backups/{name}")  # fmt: skip
                [found] = [one for one in listed(kept) if one["name"] == name]
                assert (found["here"], found["away"]) == (False, True)
                tell(kept, "restore", "--backup", name, "--database", "from_away")
                kept.sql('DROP DATABASE "from_away" WITH (FORCE)')


class TestFaults:
    def test_postgresql_stopped_in_the_middle(self, kept: ComposeCheckout, add_row: AddRow) -> None:
        """The backup fails with a line, and leaves nothing that looks like one."""
        before, [postgres] = in_volume(kept), kept.containers("postgres")
        with locked(kept):
            backup = kept.start("backup", "--json")
            wait_until(lambda: in_volume(kept) > before, f"it did not begin: {backup.said()}", 60)
            docker("kill", postgres)
            outcome = backup.finish()
        docker("start", postgres)
        wait_until(kept.serves, "it did not come back", 60)
        assert outcome.code == 1, str(outcome)
        assert in_volume(kept) == before
        add_row(FAULTS, f"PostgreSQL killed               {outcome.reason[:80]}; nothing left")

    def test_a_full_disk(self, fresh: ComposeCheckout, add_row: AddRow) -> None:
        """The volume is as large as half of the backup: nothing of it stays, and the service does not notice."""
        tmpfs = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=72m,uid=10001")
        docker("volume", "create", "--driver", "local", *tmpfs, f"{fresh.project}-backups")
        fresh.proved()
        fresh.sql(
            "CREATE TABLE noise AS SELECT string_agg(sha512(random()::text::bytea)::text, '') AS what"
            f" FROM generate_series(1, {NOISE_MB * 8 * 1024}) n GROUP BY n % 1000"
        )
        fresh.sql(f'ALTER TABLE noise OWNER TO "{fresh.settings()["POSTGRES_OWNER"]}"')
        outcome = tell(fresh, "backup", code=1)
        assert "BACKUP_FOLDER: /backups is full: nothing was kept" in outcome.reason
        [name] = fresh.containers("backup")
        assert "full" not in docker("exec", name, "ls", "-A", "/backups")
        assert ".part-" not in docker("exec", name, "ls", "-A", "/backups")
        assert fresh.serves()
        add_row(FAULTS, f"disk full at 72 MB              {outcome.reason[:80]}")

    def test_a_backup_goes_on_when_whoever_asked_is_killed(self, kept: ComposeCheckout) -> None:
        """It is whole in the end; a deploy meanwhile leaves it alone, and what is left of it is swept."""
        before = in_volume(kept)
        with locked(kept, seconds=15):
            backup = kept.start("backup", "--json")
            wait_until(lambda: in_volume(kept) > before, f"it did not begin: {backup.said()}", 60)
            backup.kill()
        wait_until(lambda: any(not name.startswith(".") for name in in_volume(kept) - before), "no backup", 60)


MOMENTS: dict[str, Callable[[ComposeCheckout, str], bool]] = {
    "restore": lambda one, said: "restore …" in said and any(name.startswith("restored_") for name in databases(one)),
    "swap": lambda _, said: "swap …" in said,
}


@pytest.mark.parametrize("moment", in_gate(MOMENTS, "swap"))
def test_a_killed_restore_is_healed_by_a_deploy(moment: str, kept: ComposeCheckout, add_row: AddRow) -> None:
    """Whatever it was doing: one whole database serves, none is left half, and people are served."""
    kept.write_note(f"before {moment}")
    name = tell(kept, "backup").report["backup"]["name"]
    kept.write_note(f"after {moment}")
    restore = kept.start("restore", "--backup", name, "--yes", "--json")
    restore.wait_for(lambda: MOMENTS[moment](kept, restore.said()), moment)
    restore.kill()
    outcome = kept.deploy()
    assert outcome.code == 0, str(outcome)
    wait_until(kept.serves, "it does not serve", 60)
    assert {f"before {moment}"} <= texts(kept)
    assert questions(kept) == ""
    assert not [one for one in databases(kept) if one.startswith("restored_")]
    serves = "the old" if f"after {moment}" in texts(kept) else "the restored"
    add_row(FAULTS, f"kill -9 in {moment:21}{serves} database serves after the next deploy")


def texts(one: ComposeCheckout) -> set[str]:
    return set(str(one.sql(f"SELECT string_agg(text, '|') FROM {TABLE} WHERE NOT synthetic")).split("|"))


@contextmanager
def locked(one: ComposeCheckout, seconds: int = 25) -> Iterator[None]:
    """A table that somebody changes by hand, for so long at most: a dump waits for it."""
    [postgres] = one.containers("postgres")
    sql = f"BEGIN; LOCK TABLE {TABLE}; SELECT pg_sleep({seconds})"
    command = ["docker", "exec", postgres, "sh", "-c", AS_SUPERUSER, one.settings()["POSTGRES_DB"], sql]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        held = f"SELECT count(*) FROM pg_locks WHERE relation = '{TABLE}'::regclass AND mode = 'AccessExclusiveLock'"
        wait_until(lambda: one.sql(held) != "0", "nobody holds the lock", 30)
        yield
    finally:
        process.kill()
        process.wait()
