"""What deploys, backups and drills leave as metrics, as Prometheus' own client reads it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config.backup_policy import BackupPolicy
from pipeline.config.project import LocalEnvironment
from pipeline.data.metrics import FACTS, FOLDER
from pipeline.monitoring.exporter import scrape
from pipeline.monitoring.exposition import exposition
from pipeline.monitoring.http_exporter import HttpExporter
from pipeline.monitoring.metrics import PIPELINE
from tests.pipeline.deploy.fake_backups import summary
from tests.pipeline.deploy.world import World, release
from tests.project import PROJECT

FIRST, SECOND, THIRD = (f"2026-11-28T16:00:0{second}+00:00" for second in range(3))
AT = 1795881600.0  # FIRST
PROVED = {"started": FIRST, "finished": SECOND, "verdict": "proved"}
RUNNING = {"started": THIRD}
BACKUP = {"kind": "backup", "started": FIRST, "finished": THIRD, "verdict": "done", "backup": summary(snapshot=SECOND)}
DRILL = {"kind": "drill", "started": FIRST, "finished": THIRD, "verdict": "proved", "rto_seconds": 1.5,
         "backup": summary()}  # fmt: skip


def read(text: str) -> dict[str, float]:
    """Return the value of each series of TEXT; of a verdict, with the verdict."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {sample.labels["environment"] for sample in samples} <= {"here"}
    read = {" ".join(filter(None, (one.name, one.labels.get("verdict")))): one.value for one in samples}
    assert len(read) == len(samples), "a series is there twice"
    return {name.removeprefix("slipway_"): value for name, value in read.items()}


def told(**records: Any) -> dict[str, float]:
    """Return what the exposition of RECORDS says."""
    return read(exposition("here", **records))


class TestExposition:
    def test_is_empty_before_anything_happened(self) -> None:
        """So that nothing fires of what was never promised."""
        assert exposition("here") == ""

    def test_has_each_metric_that_a_rule_may_name(self) -> None:
        """And no other."""
        text = exposition("here", deploys=[PROVED], stories=[BACKUP, DRILL], max_age_seconds=60)
        assert {family.name for family in text_string_to_metric_families(text)} == PIPELINE.keys()

    def test_says_when_a_deploy_began_and_how_the_last_one_ended(self) -> None:
        """While one runs, the verdict is that of the one before; the order of the records is nothing."""
        said = {
            "deploy_started_timestamp_seconds": AT + 2,
            "deploy_last_timestamp_seconds": AT + 1,
            "deploy_last_seconds": 1,
            "deploy_last_verdict proved": 1,
        }
        assert told(deploys=[PROVED, RUNNING]) == told(deploys=[RUNNING, PROVED]) == said

    def test_a_clock_that_was_set_meanwhile_does_not_change_how_long_it_took(self) -> None:
        """The record has the seconds, too; a Job of a cluster has not."""
        assert told(deploys=[{**PROVED, "started": THIRD, "seconds": 7.5}])["deploy_last_seconds"] == 7.5
        assert told(stories=[{**BACKUP, "seconds": 8.5}])["backup_last_seconds"] == 8.5

    def test_a_dry_run_is_no_deploy(self) -> None:
        """It would stand there as one that never ended."""
        assert told(deploys=[PROVED, {**RUNNING, "dry_run": True}])["deploy_started_timestamp_seconds"] == AT

    def test_of_one_that_was_killed_nobody_knows_how_long_it_took(self) -> None:
        """Once somebody noticed, it has ended: when it began is all that is known."""
        said = told(deploys=[{**RUNNING, "finished": None, "verdict": "interrupted"}])
        assert said == {
            "deploy_started_timestamp_seconds": AT + 2,
            "deploy_last_timestamp_seconds": AT + 2,
            "deploy_last_verdict interrupted": 1,
        }

    def test_a_backup_is_as_old_as_its_data(self) -> None:
        """As `max_age` is meant; a later failure leaves the newest whole one what it is."""
        failed = {**BACKUP, "started": THIRD, "finished": "2026-11-28T17:00:00+00:00", "verdict": "failed"}
        said = told(stories=[BACKUP, {**failed, "backup": None}], max_age_seconds=86400)
        assert said == {
            "backup_last_timestamp_seconds": AT + 3600,
            "backup_last_seconds": 3598,
            "backup_last_verdict failed": 1,
            "backup_last_success_timestamp_seconds": AT + 1,
            "backup_last_bytes": 2048,
            "backup_max_age_seconds": 86400,
        }

    def test_a_backup_of_another_hand_counts(self) -> None:
        """Of cron, or of a schedule: it is in the list."""
        said = told(stories=[BACKUP], backups=[summary(snapshot=THIRD, bytes=7)])
        assert (said["backup_last_success_timestamp_seconds"], said["backup_last_bytes"]) == (AT + 2, 7)

    def test_a_drill_takes_as_long_as_the_restore(self) -> None:
        """One that failed may not have come so far."""
        assert told(stories=[DRILL])["drill_last_seconds"] == 1.5
        failed = {**DRILL, "verdict": "failed", "backup": None}
        del failed["rto_seconds"]
        assert told(stories=[failed]) == {"drill_last_timestamp_seconds": AT + 2, "drill_last_verdict failed": 1}

    def test_a_name_may_have_any_character(self) -> None:
        """It is a label."""
        [sample] = next(iter(text_string_to_metric_families(exposition('a"\\b', max_age_seconds=1)))).samples
        assert sample.labels == {"environment": 'a"\\b'}


def left(world: World) -> dict[str, float]:
    """Return what the exporter of the environment says now."""
    facts = world.target.project.state("here") / FOLDER / FACTS
    return read(scrape(facts, facts.parent / "none"))


def test_local_leaves_nothing(served: World) -> None:
    """No exporter would read it."""
    served.deploy(release("b"))
    assert not (served.target.project.state("here") / FOLDER).exists()


class TestLeaving:
    @pytest.fixture(autouse=True)
    def _on_compose(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the environment of the fake target, which is local, be one that leaves metrics."""
        monkeypatch.setattr("pipeline.data.metrics.ComposeEnvironment", LocalEnvironment)

    def test_a_deploy_leaves_its_verdict(self, served: World) -> None:
        """Of a dry run there is nothing."""
        served.deploy(release("b"))
        said = left(served)
        assert said["deploy_last_verdict proved"] == 1
        assert said["deploy_started_timestamp_seconds"] <= said["deploy_last_timestamp_seconds"]
        served.deploy(release("c"), dry_run=True)
        assert left(served) == said

    def test_a_deploy_that_runs_has_begun(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is seen while it runs: else nobody could miss its end."""
        seen = list[dict[str, float]]()
        run = served.target.fleet.roll_out

        def roll_out(*given: Any, **options: Any) -> None:
            seen.append(left(served))
            run(*given, **options)

        monkeypatch.setattr(served.target.fleet, "roll_out", roll_out)
        served.deploy(release("b"))
        assert seen[0].keys() >= {"deploy_started_timestamp_seconds"}
        assert "deploy_last_seconds" in left(served)

    def test_backups_and_drills_leave_theirs(self, served: World) -> None:
        """And the table says how old the newest may be."""
        target = served.target
        env = target.env.model_copy(update={"backups": BackupPolicy(max_age="2h")})
        target.project = target.project.model_copy(update={"environments": {env.name: env}})
        served.run("backup", "--json")
        served.run("drill", "--json")
        said = left(served)
        assert (said["backup_last_verdict done"], said["backup_max_age_seconds"]) == (1, 7200)
        assert said["backup_last_bytes"] == said["drill_last_bytes"] == 2048
        assert {name for name in said if name.startswith("drill_last_verdict")}

    def test_another_user_can_read_it(self, served: World) -> None:
        """Whatever the umask: the exporter is in a container."""
        before = os.umask(0o077)
        try:
            served.deploy(release("b"))
        finally:
            os.umask(before)
        file = served.target.project.state("here") / FOLDER / FACTS
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o644, 0o755)

    def test_what_cannot_be_written_fails_no_deploy(self, served: World) -> None:
        """It is said."""
        (served.target.project.state("here") / FOLDER).write_text("in the way")
        assert served.deploy(release("b")).code == 0
        assert "the evidence is incomplete: File exists" in served.said


@pytest.fixture(name="volume")
def _volume(tmp_path: Path) -> Path:
    """The facts of a deploy, and of a schedule whose last backup failed after a whole one."""
    (tmp_path / FACTS).write_text(json.dumps({
        "environment": "here", "deploys": [PROVED], "stories": [BACKUP], "max_age_seconds": 60,
    }))  # fmt: skip
    for name, day in (("20261129T030000Z-000001", 29), ("20261130T030000Z-000002", 30)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(summary(snapshot=f"2026-11-{day}T03:00:00Z")))
    (tmp_path / "20261201T030000Z-000003").mkdir()  # it is being removed
    schedule = tmp_path / "schedule.json"
    schedule.write_text(json.dumps({"started": "2026-12-01T03:00:00+00:00", "code": 1, "said": "S3 is away"}))
    os.utime(schedule, (AT + 10**6, AT + 10**6))
    return tmp_path


class TestExporter:
    @pytest.fixture(name="address")
    def _address(self, volume: Path) -> Iterator[str]:
        with HttpExporter(partial(scrape, volume / FACTS, volume), 0) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}/metrics"
            server.shutdown()
            thread.join()

    def test_adds_what_a_schedule_did(self, volume: Path) -> None:
        """No pipeline was there."""
        said = read(scrape(volume / FACTS, volume))
        assert said["backup_last_verdict failed"] == 1
        assert "backup_last_verdict done" not in said
        assert said["backup_last_timestamp_seconds"] == AT + 10**6
        assert said["backup_last_success_timestamp_seconds"] == AT + 86400 + 11 * 3600

    def test_answers_over_http(self, address: str) -> None:
        """With the type that Prometheus insists on."""
        with urllib.request.urlopen(address) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert read(answer.read().decode())["deploy_last_verdict proved"] == 1

    def test_is_down_where_it_cannot_read(self, volume: Path, address: str) -> None:
        """So that somebody hears of it; before the first deploy there is nothing to read."""
        (volume / FACTS).write_text("{")
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(address)
        (volume / FACTS).unlink()
        with urllib.request.urlopen(address) as answer:
            assert answer.read() == b""

    def test_ends_with_sigterm(self) -> None:
        """As process 1 of a container it would not, without a handler, and each deploy that replaces it would wait."""
        code = (
            "import os, signal, threading; from pipeline.monitoring.http_exporter import serve\n"
            "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
            "serve(str, 0)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, cwd=PROJECT.root, timeout=60).returncode == 0
