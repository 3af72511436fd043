"""What the program of backups gets on this machine, and who is refused one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.backup_policy import BackupPolicy
from pipeline.config.derived import SET_FOR_BACKUPS
from pipeline.config.project import LocalEnvironment, Project
from pipeline.engines.embedded import Engines
from pipeline.engines.occupant import HOME
from pipeline.errors import ProgramFailed, SlipwayError, UsageError
from pipeline.targets.local.backups import LocalBackups
from pipeline.targets.local.site import Site
from pipeline.targets.local.stores import SUPERUSER

PROGRAM = """
import json, os, sys
print("a line of progress", file=sys.stderr)
if sys.argv[1] == "prune":
    sys.exit("pg_dump: it fails")
print(json.dumps({"asked": sys.argv[1:], "given": sys.stdin.read(), **os.environ}))
"""


@pytest.fixture(name="backups")
def _backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBackups:
    """Those of an environment in which a release serves, whose program prints what it gets."""
    env = LocalEnvironment(name="here", url="http://localhost", backups=BackupPolicy(keep="3d"))
    (tmp_path / "backend").mkdir()
    (tmp_path / ".env").write_text("BACKUP_IDENTITY=secret\nBACKUP_RECIPIENTS=age1\nPOSTGRES_DB=shop\n")
    site = Site(Project(root=tmp_path, name="board", environments={"here": env}, requests=(), source=("backend",)), env)
    release = site.artifacts.folder("abc")
    (release / "requirements").mkdir(parents=True)
    (release / "requirements/backup.txt").touch()
    (release / "backend/backups").mkdir(parents=True)
    for path in ("backend/__init__.py", "backend/backups/__init__.py"):
        (release / path).touch()
    (release / "backend/backups/__main__.py").write_text(PROGRAM)
    record = tmp_path / ".slipway/here/releases/1"
    record.mkdir(parents=True)
    (record / "report.json").write_text(json.dumps({"verdict": "proved", "release": "abc"}))
    engines = Engines(*(tmp_path / name for name in ("pg", "valkey", "caddy", "supervisord")))
    monkeypatch.setattr(Site, "engines", lambda _: engines)
    monkeypatch.setattr("pipeline.targets.local.artifacts.Artifacts.backup_python", lambda *_: Path(sys.executable))
    return LocalBackups(site)


def got(backups: LocalBackups, verb: str, **options: Any) -> dict[str, Any]:
    """Return what the program got."""
    return backups.run(verb, told=lambda _: None, **options)


class TestLocalBackups:
    def test_run_near_the_database_with_its_own_programs(self, backups: LocalBackups, tmp_path: Path) -> None:
        """As the owner, with the superuser of the socket; by the rule of the environment."""
        seen = got(backups, "backup")
        assert seen["PATH"].split(os.pathsep)[0] == str(tmp_path / "pg")
        assert seen["POSTGRES_SUPERUSER"] == SUPERUSER
        assert (seen["POSTGRES_DB"], seen["BACKUP_KEEP"], seen["RELEASE"]) == ("shop", "3d", "abc")
        assert seen["BACKUP_FOLDER"] == str(tmp_path / ".slipway/here/backups")
        assert seen["BACKUP_RECIPIENTS"] == "age1"
        assert seen["given"] == ""

    @pytest.mark.parametrize("name", SET_FOR_BACKUPS)
    def test_set_what_the_documents_say(self, backups: LocalBackups, name: str) -> None:
        """Whatever `.env` says."""
        backups.site.values[name] = "of .env"
        assert got(backups, "backup")[name] != "of .env"

    def test_hand_on_what_is_given_and_each_line(self, backups: LocalBackups) -> None:
        """The first as JSON."""
        lines: list[str] = []
        seen = backups.run("verify", "NAME", told=lines.append, given={"project": "other"})
        assert (seen["asked"], seen["given"]) == (["verify", "NAME"], '{"project": "other"}')
        assert lines == ["a line of progress"]

    def test_give_the_key_to_what_decrypts_alone(self, backups: LocalBackups) -> None:
        """And the way to Redis to what ends its generations."""
        having = {verb for verb in ("backup", "list", "verify", "restore", "compare", "swap", "drop")
                  if "BACKUP_IDENTITY" in got(backups, verb)}  # fmt: skip
        assert having == {"verify", "restore"}
        assert "REDIS_HOST" in got(backups, "swap")
        assert "REDIS_HOST" not in got(backups, "backup")

    def test_are_not_ended_by_a_deploy(self, backups: LocalBackups) -> None:
        """It kills what a restore left by its mark, and a backup runs beside it."""
        assert HOME not in got(backups, "backup")
        assert HOME in got(backups, "restore")

    def test_say_what_the_program_complains_of(self, backups: LocalBackups) -> None:
        """In one line."""
        with pytest.raises(ProgramFailed, match=r"python -m backend\.backups: pg_dump: it fails"):
            got(backups, "prune")

    def test_need_a_release_with_the_program(self, backups: LocalBackups) -> None:
        """One of before has none; before the first there is no database."""
        (backups.site.artifacts.folder("abc") / "requirements/backup.txt").unlink()
        with pytest.raises(UsageError, match="release abc has no program for backups: `nox -s deploy -- here` first"):
            got(backups, "backup")
        (backups.site.project.state("here") / "releases/1/report.json").unlink()
        with pytest.raises(SlipwayError, match="nothing is deployed to here yet"):
            got(backups, "backup")


class TestAReplicaBeside:
    def test_has_another_database_and_no_redis(self, backups: LocalBackups, tmp_path: Path) -> None:
        """Which would hand on to everybody what it finds in that database; the server and the rest are the same."""
        backups.site.layout.make()
        environment = backups.site.beside("abc", "restored")
        assert environment["POSTGRES_DB"] == "restored"
        assert environment["REDIS_URL"] == "redis://127.0.0.1:1/0"
        assert "REDIS_URL_FILE" not in environment
        assert environment["POSTGRES_HOST"] == str(backups.site.layout.postgres_sockets)
