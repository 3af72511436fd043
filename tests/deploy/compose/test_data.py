"""A volume that was in use is never the first deploy: what would not find its data is refused, and nothing stops."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import SERVICES, ComposeCheckout
from tests.deploy.runs import Outcome
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

BEFORE = "postgres:18-trixie"
HOME = "/var/lib/postgresql"
DATA = f"{HOME}/18/docker"
NEXT_MAJOR = f"FROM {BEFORE}\nENV PG_MAJOR=19 PGDATA={HOME}/19/docker\n"
MOUNT = f"- postgres:{HOME} #"
WITHOUT = "although releases were proved on compose before"
WAY_ON = "or begin with an empty database: `nox -s deploy -- compose --empty-database`"


@pytest.fixture(scope="module")
def row(deployed: ComposeCheckout) -> str:
    """The id of what a user wrote."""
    return str(deployed.write_note("before")["id"])


@pytest.fixture
def next_major(deployed: ComposeCheckout) -> Iterator[str]:
    """An image of the next PostgreSQL major, as far as can be seen."""
    name = f"{deployed.project}-postgres:19"
    subprocess.run(["docker", "build", "--quiet", "--tag", name, "-"], input=NEXT_MAJOR, text=True, check=True)
    yield name
    docker("rmi", "--force", name)


@pytest.fixture
def stack(deployed: ComposeCheckout) -> Iterator[ComposeCheckout]:
    """The module's clone, with docker-compose.yml and the image of PostgreSQL as they were before and after."""
    yield deployed
    deployed.git("checkout", "--quiet", "--", "docker-compose.yml")
    deployed.set_env(POSTGRES_IMAGE="")
    docker("volume", "rm", f"{deployed.project}_renamed", check=False)


def containers(one: ComposeCheckout) -> set[str]:
    """Its containers, and since when each runs."""
    facts = [one.inspect(name) for name in one.containers()]
    return {f"{each['Id']} {each['State']['StartedAt']}" for each in facts}


def refused(one: ComposeCheckout, row: str, *arguments: str) -> str:
    """The line that refuses a deploy: nothing was restarted or left, and the old release answers with its ROW."""
    before, release = containers(one), one.answering()
    outcome = one.deploy(*arguments)
    [line] = outcome.problems()
    assert outcome.code == 2, str(outcome)
    assert containers(one) == before
    assert one.answering() == release
    assert one.request("GET", f"{NOTES}/{row}").status_code == 200
    assert one.untidy() == []
    return line


def rows(one: ComposeCheckout, row: str) -> int:
    """How many rows with the id ROW its database has."""
    return int(one.sql(f"SELECT count(*) FROM testing_notes WHERE id = '{row}'"))


def proved(outcome: Outcome) -> bool:
    """Whether it is."""
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    return True


def test_another_major_is_refused_each_time(stack: ComposeCheckout, row: str, next_major: str) -> None:
    """The second try, which once began an empty database beside the old one, and where an empty one is asked for."""
    stack.set_env(POSTGRES_IMAGE=next_major)
    for arguments in ((), (), ("--empty-database",)):
        assert refused(stack, row, *arguments) == (
            f"postgres: the data in volume {stack.project}_postgres ({DATA}) is of PostgreSQL 18, which PostgreSQL"
            f" 19 of image {next_major} cannot read: put the image back, or mount `postgres-19:{HOME}` instead,"
            " with `postgres-19:` below `volumes:`, and `nox -s upgrade-database -- compose` moves it"
        )


def test_another_major_under_the_same_tag_is_refused(stack: ComposeCheckout, row: str, next_major: str) -> None:
    """A tag that moved: compose's own hash of the service is the same."""
    docker("tag", BEFORE, next_major)
    stack.set_env(POSTGRES_IMAGE=next_major)
    assert proved(stack.deploy())
    subprocess.run(["docker", "build", "--quiet", "--tag", next_major, "-"], input=NEXT_MAJOR, text=True, check=True)
    assert "is of PostgreSQL 18, which PostgreSQL 19 of" in refused(stack, row)
    stack.set_env(POSTGRES_IMAGE="")
    assert proved(stack.deploy())


def test_a_moved_pgdata_is_refused(stack: ComposeCheckout, row: str) -> None:
    """Within the volume: both places are named."""
    stack.patch("docker-compose.yml", "      POSTGRES_USER: postgres\n",
                f"      POSTGRES_USER: postgres\n      PGDATA: {HOME}/other\n")  # fmt: skip
    assert refused(stack, row) == (
        f"postgres: the data in volume {stack.project}_postgres is in {DATA}, and PGDATA is {HOME}/other now:"
        " set PGDATA back, or mount an empty volume for an empty database"
    )


def test_an_image_that_cannot_be_had_is_named(stack: ComposeCheckout, row: str) -> None:
    """With its service."""
    stack.set_env(POSTGRES_IMAGE="localhost:1/postgres:18-nosuch")
    line = refused(stack, row)
    assert line.startswith("postgres: image localhost:1/postgres:18-nosuch cannot be run: docker pull: ")


def test_a_renamed_volume_is_refused_until_an_empty_database_is_wanted(stack: ComposeCheckout, row: str) -> None:
    """It says where the data is; mounted again, everything is there again."""
    stack.patch("docker-compose.yml", MOUNT, MOUNT.replace("postgres:", "renamed:", 1))
    stack.patch("docker-compose.yml", "\nvolumes:\n", "\nvolumes:\n  renamed:\n")
    old, new = (f"{stack.project}_{name}" for name in ("postgres", "renamed"))
    assert refused(stack, row) == (
        f"postgres: volume {new} has no database, {WITHOUT}: there is one in volume {old} (PostgreSQL 18, 18/docker):"
        f" mount that again, {WAY_ON}"
    )
    assert new not in docker("volume", "ls", "--format", "{{.Name}}").split()
    assert proved(stack.deploy("--empty-database"))
    assert rows(stack, row) == 0
    stack.git("checkout", "--quiet", "--", "docker-compose.yml")
    assert proved(stack.deploy())
    assert rows(stack, row) == 1
    assert stack.untidy() == []


def test_a_volume_that_is_gone_is_no_first_deploy(deployed: ComposeCheckout) -> None:
    """Nothing is started; with `--empty-database` it begins anew."""
    assert deployed.run("down").code == 0
    volume = f"{deployed.project}_postgres"
    docker("volume", "rm", volume)
    outcome = deployed.deploy()
    says = f"postgres: volume {volume} has no database, {WITHOUT}: mount it again, or restore a dump of it, {WAY_ON}"
    assert (outcome.code, outcome.problems()) == (2, [says]), str(outcome)
    assert deployed.containers() == []
    assert volume not in docker("volume", "ls", "--format", "{{.Name}}").split()
    assert proved(deployed.deploy("--empty-database"))
    assert {name: len(deployed.containers(name)) for name in SERVICES} == SERVICES
    assert deployed.deploy().verdict == "unchanged"
