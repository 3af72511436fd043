"""The service has the least rights in its database in a cluster; a Job brings an installation of before there."""

from __future__ import annotations

import pytest

from tests.deploy.kind.stack import KindCheckout
from tests.deploy.least import as_before, brings_over, refuses_a_right_that_is_gone, serves_what_a_migration_makes

pytestmark = pytest.mark.e2e


def test_an_installation_of_before_is_brought_over(deployed: KindCheckout) -> None:
    """By the next deploy, without a failed request and without a restart of PostgreSQL."""
    as_before(deployed)
    before = [pod["metadata"]["uid"] for pod in deployed.pods("postgres")]
    brings_over(deployed)
    serves_what_a_migration_makes(deployed)
    refuses_a_right_that_is_gone(deployed)
    assert [pod["metadata"]["uid"] for pod in deployed.pods("postgres")] == before
    assert deployed.untidy() == []
