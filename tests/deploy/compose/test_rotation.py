"""Every secret is changed under traffic, and no request fails."""

from __future__ import annotations

import subprocess

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import AS_SUPERUSER, ComposeCheckout
from tests.deploy.rotation import rotates_the_database_password, rotates_the_others

pytestmark = pytest.mark.e2e


def test_the_database_password_rotates_by_two_roles(deployed: ComposeCheckout) -> None:
    """PostgreSQL is not restarted for it, and each role owns nothing of its own."""
    [postgres] = deployed.containers("postgres")
    since = deployed.inspect(postgres)["State"]["StartedAt"]

    def psql(command: str, given: str) -> None:
        words = ["docker", "exec", "--interactive", postgres, "sh", "-c", AS_SUPERUSER, "postgres", command]
        subprocess.run(words, input=given, text=True, check=True, capture_output=True, timeout=60)

    rotates_the_database_password(deployed, psql)
    assert deployed.containers("postgres") == [postgres]
    assert deployed.inspect(postgres)["State"]["StartedAt"] == since
    assert deployed.untidy() == []


def test_the_other_secrets_rotate_together(deployed: ComposeCheckout) -> None:
    """No list of processes, environments or commands shows one."""
    rotates_the_others(deployed)
    values = deployed.settings()
    seen = docker("inspect", *deployed.containers())
    assert not [name for name in ("SERVICE_TOKEN", "REDIS_PASSWORD") if values[name] in seen]
    assert deployed.untidy() == []
