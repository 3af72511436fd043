"""Every secret is changed under traffic on Kubernetes, and no request fails; the account is the deployer."""

from __future__ import annotations

import subprocess

import pytest

from pipeline.engines.kind import CONTEXT
from tests.deploy.compose.stack import AS_SUPERUSER
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import NAMESPACE, KindCheckout, kubectl
from tests.deploy.rotation import rotates_the_database_password, rotates_the_others

pytestmark = pytest.mark.e2e


def test_the_database_password_rotates_by_two_roles(deployed: KindCheckout, add_row: AddRow) -> None:
    """The Secret says who logs in; PostgreSQL is not restarted for it."""
    before = [pod["metadata"]["uid"] for pod in deployed.pods("postgres")]

    def psql(command: str, given: str) -> None:
        words = ["kubectl", f"--context={CONTEXT}", f"--namespace={NAMESPACE}", "exec", "--stdin", "postgres-0", "--",
                 "sh", "-c", AS_SUPERUSER, "postgres", command]  # fmt: skip
        subprocess.run(words, input=given, text=True, check=True, capture_output=True, timeout=60)

    for outcome in rotates_the_database_password(deployed, psql):
        sent = outcome.traffic["sent"]
        add_row("kind: rotation", f"database password: {sent} requests, 0 failed, {outcome.seconds:.0f} s")
    assert [pod["metadata"]["uid"] for pod in deployed.pods("postgres")] == before
    assert deployed.untidy() == []


def test_the_other_secrets_rotate_together(deployed: KindCheckout, add_row: AddRow) -> None:
    """No object but the Secret shows one."""
    outcome = rotates_the_others(deployed)
    add_row("kind: rotation", f"token and Redis: {outcome.traffic['sent']} requests, 0 failed")
    values = deployed.settings()
    seen = kubectl("get", "configmaps,deployments,statefulsets,pods", "--output=json")
    assert not [name for name in ("SERVICE_TOKEN", "REDIS_PASSWORD") if values[name] in seen]
    assert deployed.untidy() == []
