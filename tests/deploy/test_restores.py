"""Restores on this machine that do not end well: refused, undone, interrupted, killed at each step."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

import psutil
import pytest
from pyrage import x25519

from tests.deploy.checkout import Checkout
from tests.deploy.keeping import DIGEST, begin, data_records, kept, told
from tests.deploy.runs import Deploy

pytestmark = pytest.mark.e2e

LONG_BAKE, SHORT_BAKE = 20, 3  # seconds: something breaks in the first, however busy the machine is


@pytest.fixture(name="board")
def _board(deployed: Checkout) -> Iterator[Checkout]:
    """Yield the module's clone with a note, and no backup."""
    deployed.write_note("kept")
    yield deployed
    shutil.rmtree(deployed.home / "backups", ignore_errors=True)


def databases(checkout: Checkout) -> set[str]:
    """Return the databases on the server, but not what a swap put aside."""
    said: str = checkout.sql("SELECT string_agg(datname, ' ') FROM pg_database WHERE NOT datistemplate")
    return {name for name in said.split() if "-before-" not in name}


def serves(checkout: Checkout, *, since: str) -> None:
    """Assert that the service answers, on what it had `since`, and that nothing was left beside."""
    assert len(checkout.answering()) == 1
    assert checkout.sql(DIGEST) == since
    assert databases(checkout) == {"postgres", checkout.settings()["POSTGRES_DB"]}


class TestARestoreIsRefused:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--backup", "latest"), "add `--yes`"),
            (("--backup", "2031", "--yes"), "has no backup `2031`: `nox -s backups -- local` lists them"),
            (("--yes",), "--backup"),
            (("--backup", "latest", "--database", "x", "--download", "y"), "not allowed with"),
        ],
    )
    def test_where_it_is_asked_wrongly(self, board: Checkout, arguments: tuple[str, ...], words: str) -> None:
        """2, one line, and nothing was touched."""
        kept(board)
        outcome = told(board, "restore", *arguments)
        assert outcome.code == 2
        [problem] = outcome.problems()
        assert words in problem

    @pytest.mark.parametrize("how", ["cut short", "changed", "missing", "not whole"])
    def test_where_the_backup_is_damaged(self, board: Checkout, how: str) -> None:
        """What serves is not touched; the line names the file, or the backup is none any more."""
        backup, before = kept(board), board.sql(DIGEST)
        folder = board.home / "backups" / backup["name"]
        victim = max(
            (path for path in folder.iterdir() if path.name != "manifest.json"), key=lambda one: one.stat().st_size
        )
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        match how:
            case "cut short":
                victim.write_bytes(victim.read_bytes()[:-1])
            case "changed":
                victim.write_bytes(content)
            case "missing":
                victim.unlink()
            case _:
                (folder / "manifest.json").unlink()
        outcome = told(board, "restore", "--backup", "latest", "--yes")
        if how == "not whole":
            assert (outcome.code, outcome.problems()) == (
                2,
                ["local has no backup: `nox -s backup -- local` makes one"],
            )
        else:
            assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
            assert victim.name in outcome.reason
        serves(board, since=before)

    def test_without_the_key(self, board: Checkout) -> None:
        """Or with another one; with the right one it works."""
        identity, other = (x25519.Identity.generate() for _ in range(2))
        backup = kept(board, BACKUP_RECIPIENTS=str(identity.to_public()))
        assert backup["encrypted"] == [str(identity.to_public())]
        before = board.sql(DIGEST)
        for key in ({}, {"BACKUP_IDENTITY": str(other)}):
            outcome = told(board, "restore", "--backup", "latest", "--yes", **key)
            assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
            assert "BACKUP_IDENTITY" in outcome.reason
            assert "AGE-SECRET-KEY" not in outcome.stderr + outcome.stdout
            serves(board, since=before)
        assert told(board, "restore", "--backup", "latest", "--yes", BACKUP_IDENTITY=str(identity)).code == 0
        serves(board, since=before)


class TestARestoreIsUndone:
    def test_where_the_proof_fails(self, board: Checkout) -> None:
        """The database of before is swapped back, and proved."""
        kept(board)
        board.write_note("later")
        before = board.sql(DIGEST)
        board.configure(bake_seconds=LONG_BAKE)
        restore = begin(board, "restore", "--backup", "latest", "--yes")
        restore.wait_for_stage("prove")
        board.sql("DROP TABLE testing_notes")
        outcome = restore.finish()
        board.configure(bake_seconds=SHORT_BAKE)
        assert (outcome.code, outcome.verdict) == (1, "undone"), str(outcome)
        assert outcome.report["undone"]["verdict"] == "proved"
        assert [one["name"] for one in outcome.report["undone"]["stages"]] == ["swap back", "prove"]
        assert board.sql(DIGEST) == before
        assert board.run("doctor").code == 0

    @pytest.mark.parametrize("stage", ["restore", "try", "prove"])
    def test_by_ctrl_c(self, board: Checkout, stage: str) -> None:
        """What was restored is gone, or was swapped back."""
        kept(board)
        board.write_note("later")
        before = board.sql(DIGEST)
        restore = begin(board, "restore", "--backup", "latest", "--yes")
        restore.wait_for_stage(stage)
        restore.send(signal.SIGINT)
        outcome = restore.finish()
        assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)
        assert board.sql(DIGEST) == before
        assert len(board.answering()) == 1


def swapping(restore: Deploy) -> bool:
    """Return whether the program swaps now."""

    def command(process: psutil.Process) -> list[str]:
        try:
            return process.cmdline()
        except psutil.NoSuchProcess:
            return []

    return any(command(process)[1:4] == ["-m", "backend.backups", "swap"] for process in restore.family())


class TestARestoreThatWasKilled:
    @pytest.mark.parametrize("stage", ["verify", "restore", "try"])
    def test_before_its_swap_has_touched_nothing(self, board: Checkout, stage: str) -> None:
        """The next deploy drops what it had restored."""
        kept(board)
        board.write_note("later")
        before = board.sql(DIGEST)
        restore = begin(board, "restore", "--backup", "latest", "--yes")
        restore.wait_for_stage(stage)
        restore.kill()
        findings = board.run("doctor", "--json").report["findings"]
        assert any(f"died in stage `{stage}`" in line for line in findings), findings
        board.proved()
        assert data_records(board)[-1] == "interrupted"
        serves(board, since=before)
        assert board.run("doctor").code == 0

    @pytest.mark.parametrize("moment", ["swap", "prove"])
    def test_from_its_swap_on_is_proved_by_the_next_deploy(self, board: Checkout, moment: str) -> None:
        """What was restored serves by then; the next command says so."""
        kept(board)
        restored = board.sql(DIGEST)
        board.write_note("later")
        restore = begin(board, "restore", "--backup", "latest", "--yes")
        if moment == "swap":
            restore.wait_for(lambda: restore.stage() == "swap" and swapping(restore), "swap")
        else:
            restore.wait_for_stage("prove")
        restore.kill()
        outcome = board.proved()
        assert f"died in stage `{moment}`" in outcome.stderr
        assert "what serves now was not proved" in outcome.stderr
        serves(board, since=restored)
        assert board.run("doctor").code == 0
