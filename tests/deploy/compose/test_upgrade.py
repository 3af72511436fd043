"""PostgreSQL 17 to 18 on Compose: each acknowledged write moves, people read meanwhile, and no fault loses anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.test_backups import forget_backups
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import tell
from tests.deploy.upgrading import (
    VERSION,
    is_healed,
    is_interrupted,
    is_not_restored,
    is_undone,
    moves_each_acknowledged_write,
)
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

UPGRADES = "compose: PostgreSQL 17 to 18"
HOME = "/var/lib/postgresql"
OLD_MOUNT, NEW_MOUNT = f"- postgres:{HOME} #", f"- postgres-18:{HOME} #"
# Images since 18 keep their data so, which the move after this one begins with.
USER = "      POSTGRES_USER: postgres\n"
FOLDER_OF_17 = f"{USER}      PGDATA: {HOME}/17/docker\n"


@pytest.fixture
def old(template: Path, tmp_path: Path) -> Iterator[ComposeCheckout]:
    """A clone whose release was proved on PostgreSQL 17, with notes; docker-compose.yml names 18 and its volume now."""
    one = ComposeCheckout.make(template, tmp_path / "clone")
    one.patch("docker-compose.yml", USER, FOLDER_OF_17)
    one.commit()
    one.set_env(POSTGRES_IMAGE="postgres:17-trixie")
    one.proved()
    for number in range(20):
        one.write_note(f"before {number}")
    define_18(one)
    yield one
    # Only one of the two volumes is in docker-compose.yml, and nothing of the pipeline's removes the other one.
    one.run("down")
    docker("volume", "rm", f"{one.project}_postgres", check=False)
    one.remove(set())
    forget_backups(one)


def define_18(one: ComposeCheckout) -> None:
    one.patch("docker-compose.yml", OLD_MOUNT, NEW_MOUNT)
    one.patch("docker-compose.yml", FOLDER_OF_17, USER)
    one.patch("docker-compose.yml", "\n  postgres:\n  redis:\n", "\n  postgres-18:\n  redis:\n")
    one.set_env(POSTGRES_IMAGE="postgres:18-trixie")


def volumes(one: ComposeCheckout) -> set[str]:
    """The volumes of PostgreSQL's data that there are."""
    return set(docker("volume", "ls", "--quiet", "--filter", f"name={one.project}_postgres").split())


def tidy(one: ComposeCheckout, major: str, *kept: str) -> None:
    """Assert that the server of MAJOR serves and takes writes, that KEPT is what is left, and no other container."""
    assert one.sql(VERSION) == major
    assert one.write_note("after")["id"]
    assert volumes(one) == {f"{one.project}_{name}" for name in kept}
    assert one.untidy() == []


@pytest.mark.gate
def test_it_moves_each_acknowledged_write(old: ComposeCheckout, add_row: AddRow) -> None:
    """Under traffic: a deploy is refused before, writes get 503 for some seconds, and nobody sees another fault."""
    moves_each_acknowledged_write(old, UPGRADES, add_row)
    tidy(old, "18", "postgres", "postgres-18")
    assert old.deploy().code == 0  # with the programs of 18
    tell(old, "backup")


def test_what_cannot_be_restored_is_undone(old: ComposeCheckout, add_row: AddRow) -> None:
    """Before anybody is turned away."""
    outcome = is_not_restored(old)
    tidy(old, "17", "postgres")
    add_row(UPGRADES, f"a restore that fails            {outcome.report['said'][:110]}")


def test_what_fails_its_proof_is_undone(old: ComposeCheckout, add_row: AddRow) -> None:
    """The old server serves again on its own volume; the new one's is kept, and has to go before the next try."""
    outcome = is_undone(old)
    tidy(old, "17", "postgres", "postgres-18")
    again = old.run("upgrade-database", "--yes", "--json")
    assert again.code == 2
    assert f"`docker volume rm {old.project}_postgres-18` if nobody needs it" in again.problems()[0]
    deploy = old.deploy()
    assert deploy.code == 1, str(deploy)
    assert "has a copy of the data, and what was written since is not in it" in deploy.reason
    assert old.sql(VERSION) == "17"
    add_row(UPGRADES, f"a proof that fails              {outcome.report['said'][:110]}")


def test_ctrl_c_while_nobody_writes_is_undone(old: ComposeCheckout) -> None:
    """They write again."""
    is_interrupted(old)
    tidy(old, "17", "postgres")


@pytest.mark.parametrize("stage", in_gate(["last restore", "switch"], "switch"))
def test_a_killed_one_is_healed(old: ComposeCheckout, stage: str, add_row: AddRow) -> None:
    """By the next command; a deploy does not take the copy for the data, and the next try is proved."""
    row = is_healed(old, stage, "upgrade-database -- compose` moves it")
    tidy(old, "18", "postgres", "postgres-18")
    add_row(UPGRADES, row)
