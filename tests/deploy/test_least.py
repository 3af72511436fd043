"""The service has the least rights in its database, on `local`; an installation of before is brought there."""

from __future__ import annotations

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.least import as_before, brings_over, refuses_a_right_that_is_gone, serves_what_a_migration_makes

pytestmark = pytest.mark.e2e


def test_an_installation_of_before_is_brought_over(checkout: Checkout) -> None:
    """By the next deploy, without a failed request; its release of before serves again after a rollback."""
    as_before(checkout)
    brings_over(checkout)
    serves_what_a_migration_makes(checkout)
    refuses_a_right_that_is_gone(checkout)
    assert checkout.untidy() == []
