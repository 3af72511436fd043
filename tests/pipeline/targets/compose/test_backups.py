"""The program of backups in a one-off container: what it gets, what it says, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.config.backup_policy import BackupPolicy
from pipeline.errors import ProgramFailed, SlipwayError, UsageError
from pipeline.system.run import CommandFailed
from pipeline.targets.compose.backups import ComposeBackups
from pipeline.targets.compose.scheduled import Scheduled

ANSWER = '{"restored": {"rows": 3}}\n'
KEY = "AGE-SECRET-KEY-1"


class Engine:
    """Containers by their names and verbs; `do` is what Compose does."""

    def __init__(self, do: Callable[..., str], **left: str) -> None:
        self.run, self.left, self.asked = do, dict(left), list[dict[str, Any]]()
        self.ended: list[str] = []

    def do(self, *words: str, **options: Any) -> str:
        self.asked.append({"words": words, **options})
        return self.run(*words, **options)


def backups(engine: Engine, folder: Path, *, managed: bool = False, **secrets: str) -> ComposeBackups:
    """Those of a project `shop` whose secrets are files in FOLDER."""

    @contextmanager
    def lend(secret: str) -> Iterator[Path]:
        file = folder / "lent-1"
        file.write_text(secret)
        yield file
        file.unlink()

    kept = SimpleNamespace(images=SimpleNamespace(backup="sha256:b"))
    scheduled = SimpleNamespace(
        questions=lambda: engine.left,
        end=lambda *names: engine.ended.extend(names),
        serving=lambda: kept,
        make_volume=lambda: None,
    )
    stack = SimpleNamespace(
        name="shop", backups="shop-backups", do=engine.do, containers=lambda _: [SimpleNamespace(running=True)]
    )
    variables = SimpleNamespace(
        backups=secrets, managed=SimpleNamespace(database=managed), environment=lambda _: {"POSTGRES_DB": "shop"}
    )
    env = SimpleNamespace(name="compose", backups=BackupPolicy())
    site = SimpleNamespace(
        stack=stack, variables=variables, secrets=folder, backups=scheduled, lend=lend, write_secrets=lambda: None,
        docker=SimpleNamespace(image=lambda _: {"Id": "sha256:b"}), env=env,
    )  # fmt: skip
    return ComposeBackups(cast("Any", site))


def ask(one: ComposeBackups, verb: str, *arguments: str) -> dict[str, Any]:
    return one.run(verb, *arguments, told=lambda _: None)


class TestRun:
    def test_a_restore_gets_the_superuser_and_the_key(self, tmp_path: Path) -> None:
        """As files that nobody else has, never as values; and the key is gone afterwards."""
        engine = Engine(lambda *_, **__: ANSWER)
        assert ask(backups(engine, tmp_path, BACKUP_IDENTITY=KEY), "restore", "it", "--into", "x") == {
            "restored": {"rows": 3}
        }
        [asked] = engine.asked
        words = " ".join(asked["words"])
        assert f"{tmp_path}/POSTGRES_SUPERUSER_PASSWORD:/run/secrets/POSTGRES_SUPERUSER_PASSWORD:ro" in words
        assert f"{tmp_path}/lent-1:/run/secrets/BACKUP_IDENTITY:ro" in words
        assert words.endswith("backup restore it --into x")
        assert KEY not in words + str(asked["env"])
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("verb", ["backup", "list", "prune", "fetch"])
    def test_what_changes_no_database_gets_neither(self, verb: str, tmp_path: Path) -> None:
        """It has what the scheduled one has."""
        engine = Engine(lambda *_, **__: ANSWER)
        ask(backups(engine, tmp_path, BACKUP_IDENTITY=KEY), verb)
        assert "--volume" not in engine.asked[0]["words"]
        assert "--env" not in engine.asked[0]["words"]

    def test_a_swap_reaches_redis(self, tmp_path: Path) -> None:
        """What is cached of the database of before must go."""
        engine = Engine(lambda *_, **__: ANSWER)
        ask(backups(engine, tmp_path), "swap", "shop", "new")
        mounted = [word.rpartition("/")[2] for word in engine.asked[0]["words"] if word.endswith(":ro")]
        assert mounted == ["POSTGRES_SUPERUSER_PASSWORD:ro", "REDIS_PASSWORD:ro", "REDIS_URL:ro"]

    def test_a_database_of_others_has_no_superuser_here(self, tmp_path: Path) -> None:
        """The owner does what it may."""
        engine = Engine(lambda *_, **__: ANSWER)
        ask(backups(engine, tmp_path, managed=True), "compare", "new")
        assert "--volume" not in engine.asked[0]["words"]

    def test_ends_a_restore_that_a_kill_has_left(self, tmp_path: Path) -> None:
        """A backup goes on: nobody waits for it, and it is whole in the end."""
        left = {"shop-backup-restore-1": "restore", "shop-backup-backup-2": "backup"}
        engine = Engine(lambda *_, **__: ANSWER, **left)
        ask(backups(engine, tmp_path), "list")
        assert "shop-backup-restore-1" not in engine.ended
        ask(backups(engine, tmp_path), "compare", "new")
        assert "shop-backup-restore-1" in engine.ended
        assert "shop-backup-backup-2" not in engine.ended

    def test_hands_on_its_progress_without_that_of_compose(self, tmp_path: Path) -> None:
        """Which says what it does with containers."""

        def do(*_: str, progress: Callable[[str], None], **__: Any) -> str:
            for line in (" Container shop-postgres-1  Running", "", "restored 3 rows"):
                progress(line)
            return ANSWER

        told: list[str] = []
        backups(Engine(do), tmp_path).run("restore", told=told.append)
        assert told == ["restored 3 rows"]

    @pytest.mark.parametrize(("code", "kind"), [(1, ProgramFailed), (2, UsageError)])
    def test_fails_with_its_words(self, code: int, kind: type[SlipwayError], tmp_path: Path) -> None:
        """Not with those of Compose; with its exit code's meaning."""

        def do(*_: str, **__: Any) -> str:
            said = "it is no whole backup\n Container shop-postgres-1  Running\n"
            raise SlipwayError("docker compose run") from CommandFailed(["docker"], code, said)

        with pytest.raises(kind, match="it is no whole backup"):
            ask(backups(Engine(do), tmp_path), "restore")

    def test_answers_in_spite_of_what_is_wrong_beside(self, tmp_path: Path) -> None:
        """A backup that is whole, and not off the host."""

        def do(*_: str, **__: Any) -> str:
            answer = '{"backup": {}, "problem": "S3 is away"}\n'
            raise SlipwayError("docker compose run") from CommandFailed(["docker"], 1, "copying\n", answer)

        assert ask(backups(Engine(do), tmp_path), "backup")["problem"] == "S3 is away"

    def test_a_container_that_is_given_up_is_ended(self, tmp_path: Path) -> None:
        """To end its client does not."""

        def do(*_: str, **__: Any) -> str:
            raise KeyboardInterrupt

        engine = Engine(do)
        with pytest.raises(KeyboardInterrupt):
            ask(backups(engine, tmp_path), "backup")
        [name] = engine.ended
        assert name.startswith("shop-backup-backup-")


class TestFindings:
    @pytest.mark.parametrize(
        ("wanted", "there", "line"),
        [
            (None, None, None),
            (BackupPolicy(), None, "nothing makes the backups of compose: `nox -s deploy -- compose` starts what does"),
            (BackupPolicy(), ("healthy", ""), None),
            (BackupPolicy(), ("unhealthy", "it failed: full"), "shop-backup-1: it failed: full"),
        ],
    )  # fmt: skip
    def test_say_what_the_health_check_says(
        self, wanted: BackupPolicy | None, there: tuple[str, str] | None, line: str | None
    ) -> None:
        """And where there is nothing to have one."""
        container = there and SimpleNamespace(
            name="shop-backup-1", running=True, restarts=0, health=there[0], said=there[1]
        )
        variables = SimpleNamespace(
            env=SimpleNamespace(name="compose", backups=wanted),
            stack=SimpleNamespace(containers=lambda _: [container] if container else []),
        )
        found = Scheduled(cast("Any", variables), cast("Any", None)).findings()
        assert found == ([line] if line else [])
