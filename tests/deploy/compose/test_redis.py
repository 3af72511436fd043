"""What docker-compose.yml asks of Redis, by its effect: a password, a log that survives, a limit that evicts."""

from __future__ import annotations

import pytest

from pipeline.config.secrets import REDIS_ADMIN, secret_files
from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e

AS_SERVICE = 'REDISCLI_AUTH=$(cat /run/secrets/REDIS_PASSWORD) redis-cli "$@"'
AS_ADMIN = ("sh", "-c", 'exec redis-cli --user admin "$@"', "sh")
LIMIT_MB, GIVEN_MB = 192, 240


@pytest.fixture(name="redis")
def _redis(deployed: ComposeCheckout, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its container; `docker exec --env REDISCLI_AUTH` has its administrator's password."""
    secrets = secret_files(deployed.root)
    monkeypatch.setenv("REDISCLI_AUTH", (secrets / REDIS_ADMIN).read_text(encoding="utf-8"))
    [name] = deployed.containers("redis")
    return name


def asked(redis: str, *command: str) -> str:
    """Return what Redis answers to its administrator."""
    return docker("exec", "--env", "REDISCLI_AUTH", redis, *AS_ADMIN, *command)


def figures(redis: str, section: str) -> dict[str, str]:
    """Return a section of what Redis says about itself."""
    return dict(line.split(":", 1) for line in asked(redis, "info", section).split() if ":" in line)


def test_without_its_password_it_says_nothing(redis: str) -> None:
    """Nor with another one."""
    assert "NOAUTH" in docker("exec", redis, "redis-cli", "get", "a")
    assert "NOAUTH" in docker("exec", redis, "redis-cli", "-a", "another", "get", "a")
    assert asked(redis, "ping") == "PONG"


@pytest.mark.parametrize("command", ["flushall", "keys *", "config get *", "acl list", "eval return 0", "shutdown"])
def test_the_service_may_run_its_own_commands_alone(redis: str, command: str) -> None:
    """None that reads every key, stops the server, or gives more rights."""
    assert "NOPERM" in docker("exec", redis, "sh", "-c", AS_SERVICE, "sh", *command.split())
    assert docker("exec", redis, "sh", "-c", AS_SERVICE, "sh", "ping") == "PONG"


def test_what_is_stored_survives_a_kill(redis: str) -> None:
    """The append-only log is synced each second."""
    asked(redis, "set", "survivor", "yes")
    wait_until(lambda: figures(redis, "persistence")["aof_pending_bio_fsync"] == "0", "the log is synced", 10)
    docker("exec", redis, "sh", "-c", "sleep 1.5")
    docker("kill", "--signal", "KILL", redis)
    docker("start", redis)
    wait_until(
        lambda: "PONG" in docker("exec", redis, "sh", "-c", AS_SERVICE, "sh", "ping", check=False), "it is up", 30
    )
    assert asked(redis, "get", "survivor") == "yes"


def test_what_is_beyond_its_limit_goes_and_it_lives(deployed: ComposeCheckout, redis: str) -> None:
    """What was used longest ago first; the container's own limit is not reached, and the service does not notice."""
    before = deployed.inspect(redis)["State"]["StartedAt"]
    deployed.fill_redis(GIVEN_MB)
    used, evicted = figures(redis, "memory"), int(figures(redis, "stats")["evicted_keys"])
    assert int(used["maxmemory"]) == LIMIT_MB * 2**20
    assert int(used["used_memory"]) <= LIMIT_MB * 2**20 * 1.1  # what it needs for its log is beside the limit
    assert evicted >= GIVEN_MB - LIMIT_MB
    assert asked(redis, "exists", f"x{GIVEN_MB}") == "1"
    state = deployed.inspect(redis)["State"]
    assert (state["StartedAt"], state["OOMKilled"]) == (before, False)
    assert len(deployed.answering()) == 1
    asked(redis, "flushall")


def test_a_log_that_it_cannot_read_stops_no_deploy(sound: ComposeCheckout, redis: str) -> None:
    """It is a cache: the service does without, the deploy says so and how to start it empty, and that helps."""
    docker("exec", redis, "sh", "-c", "for one in /data/appendonlydir/*.incr.aof; do echo rubbish >>$one; done")
    docker("restart", redis)
    wait_until(lambda: sound.inspect(redis)["RestartCount"] > 1, "it starts all the same", 60)
    sound.change("without a cache")
    outcome = sound.proved()
    assert "Nothing is cached until it runs. If its data is broken, start it empty: `docker rm" in outcome.stderr
    assert any("redis" in line for line in outcome.report["remarks"]), outcome.report["remarks"]
    docker("rm", "--force", redis)
    docker("volume", "rm", f"{sound.project}_redis")
    assert "Nothing is cached" not in sound.proved().stderr
    assert sound.request("GET", "/ready").json()["checks"]["redis"]["state"] == "ok"
