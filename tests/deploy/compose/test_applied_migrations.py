"""What the database of a compose project has applied is compared with the files, as on `local`."""

from __future__ import annotations

import pytest

from tests.deploy import applied
from tests.deploy.compose.stack import ComposeCheckout

pytestmark = pytest.mark.e2e


def test_what_was_applied_in_another_form_is_refused(sound: ComposeCheckout) -> None:
    """Where the release was undone, too; and rows go only with a reason."""
    applied.refuses_another_form(sound)


def test_a_database_that_did_not_run_is_asked_before_anything_is_applied(sound: ComposeCheckout) -> None:
    """After `down`, what is there is known once PostgreSQL runs: an edit is refused then, and nothing is applied."""
    applied.asks_a_database_that_did_not_run(sound, lambda: sound.containers("backend"))


def test_a_database_of_before_gets_a_history(sound: ComposeCheckout) -> None:
    """Recorded as the image that serves has it."""
    applied.begins_a_history(sound)


def test_programs_of_postgresql_run_near_the_database(sound: ComposeCheckout) -> None:
    """As the service's role, without a way in from outside."""
    applied.runs_programs(sound)
