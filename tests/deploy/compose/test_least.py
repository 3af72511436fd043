"""The service has the least rights in its database, on Compose; an installation of before is brought there."""

from __future__ import annotations

import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.least import as_before, brings_over, refuses_a_right_that_is_gone, serves_what_a_migration_makes

pytestmark = pytest.mark.e2e


def test_an_installation_of_before_is_brought_over(checkout: ComposeCheckout) -> None:
    """By the next deploy, without a failed request and without a restart of PostgreSQL."""
    as_before(checkout)
    [postgres] = checkout.containers("postgres")
    since = checkout.inspect(postgres)["State"]["StartedAt"]
    brings_over(checkout)
    serves_what_a_migration_makes(checkout)
    refuses_a_right_that_is_gone(checkout)
    assert checkout.inspect(postgres)["State"]["StartedAt"] == since
    assert checkout.untidy() == []
