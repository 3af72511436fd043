"""A change of the configuration alone is a rollout like any other: secrets, limits, replicas, the port."""

from __future__ import annotations

import secrets

import httpx2
import pytest

from tests.containers import docker
from tests.deploy.compose.stack import SERVICES, ComposeCheckout
from tests.deploy.machine import free_port
from tests.notes import NOTES

pytestmark = pytest.mark.e2e


VAIN = {
    "MIGRATION_DATABASE_URL": "postgresql://shop:canary-Fq8-canary-Fq8@db.example.org/shop",
    "POSTGRES_HOST": "db.example.org",
    "REDIS_HOST": "cache.example.org",
}
DECIDES = {"POSTGRES_DB": "another", "POSTGRES_USER": "another", "POSTGRES_IMAGE": "postgres:17-trixie",
           "REDIS_IMAGE": "valkey/valkey:9",
           # A name that nobody has: code that does not refuse it removes the volumes of that name.
           "PROJECT_NAME": f"slipway-test-{secrets.token_hex(3)}"}  # fmt: skip


@pytest.mark.parametrize("name", VAIN)
def test_a_store_that_would_not_be_used_is_refused(name: str, deployed: ComposeCheckout) -> None:
    """In `.env` or the environment: one line with its name and never its value, and nothing is touched."""
    before = deployed.containers()
    with deployed.dotenv(**{name: VAIN[name]}):
        in_file = deployed.deploy()
    in_shell = deployed.deploy(**{name: VAIN[name]})
    for refused, fix in ((in_file, f"take {name} out of .env"), (in_shell, f"unset {name} in the environment")):
        assert refused.code == 2, str(refused)
        [problem] = refused.problems()
        assert problem.startswith(f"{name}: compose runs a ")
        assert problem.endswith(f"of its own and would not use it: {fix}")
        assert VAIN[name] not in refused.stderr
    assert deployed.containers() == before


@pytest.mark.parametrize("name", DECIDES)
def test_a_shell_that_says_another_place_is_refused(name: str, deployed: ComposeCheckout) -> None:
    """Else the data would change with who deploys; and what only looks shows what `.env` names."""
    before, release = deployed.containers(), deployed.answering()
    for verb in (["deploy"], ["rollback", "--release", "1"], ["down", "--volumes"]):
        refused = deployed.run(*verb, **{name: DECIDES[name]})
        assert refused.code == 2, str(refused)
        [problem] = refused.problems()
        assert problem.startswith(f"{name}: the environment says `{DECIDES[name]}`, .env says ")
        assert problem.endswith(": put it in .env, or unset it")
    status = deployed.run("status", "--json", **{name: DECIDES[name]})
    assert (status.code, {status.report["release"]}, status.report["problems"]) == (0, release, []), str(status)
    assert f"{name}: the environment says `{DECIDES[name]}`" in status.stderr
    assert deployed.containers() == before


def test_an_image_of_a_store_is_what_env_says(deployed: ComposeCheckout) -> None:
    """The same image under the name of a mirror: PostgreSQL is made anew, its data is there, and every shell agrees."""
    mirror, written = f"{deployed.project}-mirror:18", deployed.write_note("before the mirror")
    docker("tag", "postgres:18-trixie", mirror)
    with deployed.dotenv(POSTGRES_IMAGE=mirror):
        assert deployed.deploy().code == 0
        [postgres] = deployed.containers("postgres")
        assert deployed.inspect(postgres)["Config"]["Image"] == mirror
        assert deployed.deploy(POSTGRES_IMAGE=mirror).verdict == "unchanged"
        assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert deployed.deploy().code == 0
    docker("rmi", mirror)
    assert deployed.untidy() == []


def test_a_changed_limit_in_the_compose_file_rolls(deployed: ComposeCheckout) -> None:
    """The release is the same, its containers are not: what is written is what runs."""
    before, release = deployed.containers("backend"), deployed.answering()
    deployed.patch("docker-compose.yml", "memory: 384M", "memory: 400M")
    deployed.proved()
    assert deployed.answering() == release
    assert not set(before) & set(deployed.containers("backend"))
    limits = {deployed.inspect(name)["HostConfig"]["Memory"] for name in deployed.containers("backend")}
    assert limits == {400 * 2**20}
    assert deployed.deploy().verdict == "unchanged"


def test_a_changed_store_is_made_anew_with_its_data(deployed: ComposeCheckout) -> None:
    """PostgreSQL is restarted once, before the baseline; nothing that was written is lost."""
    written = deployed.write_note("before the larger store")
    deployed.patch("docker-compose.yml", "shared_buffers=128MB", "shared_buffers=160MB")
    outcome = deployed.deploy()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert deployed.sql("SHOW shared_buffers") == "160MB"
    assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert deployed.untidy() == []


def test_another_number_of_replicas_fails_no_request(deployed: ComposeCheckout) -> None:
    """Three instead of two, and back; the edge has slots to spare and stays what it is."""
    release, [edge] = deployed.answering(), deployed.containers("frontend")
    since = deployed.inspect(edge)["State"]["StartedAt"]
    deployed.configure(replicas=3)
    deployed.proved()
    assert len(deployed.containers("backend")) == 3
    deployed.configure(replicas=SERVICES["backend"])
    deployed.proved()
    assert deployed.answering() == release
    assert deployed.inspect(edge)["State"]["StartedAt"] == since
    assert deployed.untidy() == []


def test_another_port_moves_the_edge(deployed: ComposeCheckout) -> None:
    """Users find the service at the new address, and at the old one nobody listens."""
    release, before = deployed.answering(), deployed.port
    deployed.port = free_port()
    deployed.environ["EDGE_PORT"] = str(deployed.port)
    outcome = deployed.deploy()
    assert (outcome.code, outcome.report["url"]) == (0, f"http://localhost:{deployed.port}"), str(outcome)
    assert deployed.answering() == release
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://localhost:{before}/health")
    assert deployed.untidy() == []
