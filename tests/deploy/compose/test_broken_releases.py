"""A release that must not ship on Compose: undone for the reason that a reader needs, and the old one serves."""

from __future__ import annotations

import textwrap

import pytest

from tests.deploy.applied import notes_revision
from tests.deploy.breaking import IN_SERVICE, SLOW_SECONDS, add_migration, wrap_service
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow
from tests.deploy.tried import refuses_what_lacks_a_secret
from tests.notes import NOTES
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

TABLE = "compose: broken releases"


def code(text: str) -> str:
    """Text at the end of the service's module."""
    return textwrap.dedent(text)


ENDS = {
    "does not start": (f"if {IN_SERVICE}:\n    raise RuntimeError('no flux')\n", "no flux"),
}  # fmt: skip
ANSWERS = {
    "never gets ready": ("if path == '/ready':\n    status = 503", "did not get ready in time: /ready says 503"),
    "starts and dies": ("import os\nif self.asked >= 20:\n    os._exit(7)", "ended after it was ready"),
    "answers 500": ("if self.asked >= 50:\n    status = 500", "requests failed until it was undone: "),
    "is slow": (f"if path == '{NOTES}' and method == 'GET':\n    await asyncio.sleep({SLOW_SECONDS})",
                "is slow: `list notes` "),
}  # fmt: skip


@pytest.mark.parametrize("name", in_gate([*ENDS, *ANSWERS], "answers 500"))
def test_a_broken_release_is_undone(name: str, sound: ComposeCheckout, add_row: AddRow) -> None:
    """Exit code 1, the cause in one line, and each user is answered by the release before."""
    old = sound.answering()
    sound.configure(timeout=25 if name == "never gets ready" else 60)
    if name in ENDS:
        sound.append("backend/app.py", code(ENDS[name][0]))
    else:
        wrap_service(sound, ANSWERS[name][0])
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert (ENDS | ANSWERS)[name][1] in outcome.reason, str(outcome)
    assert sound.answering() == old
    assert outcome.report["rollback"]["verdict"] == "proved"
    assert sound.untidy() == []
    failed = (outcome.report["traffic"] or {}).get("failed", 0) + outcome.report["rollback"]["traffic"]["failed"]
    add_row(TABLE, f"{name:18} undone in {outcome.seconds:4.1f} s, {failed:3} requests failed: {outcome.reason[:90]}")


@pytest.mark.gate
def test_what_lacks_a_secret_is_refused_before_anything_is_exchanged(sound: ComposeCheckout, add_row: AddRow) -> None:
    """By a container that the edge does not know."""
    add_row(TABLE, f"{'lacks a secret':18} {refuses_what_lacks_a_secret(sound)[:120]}")


def test_a_migration_that_the_old_image_cannot_live_with_is_refused(sound: ComposeCheckout) -> None:
    """The old image is tried on the new schema before anything real is touched."""
    old = sound.answering()
    add_migration(
        sound,
        "refuses what the old release writes",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no team'; END $$",
        "CREATE TRIGGER team BEFORE INSERT ON testing_notes FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert "cannot live with the new schema" in outcome.reason
    assert outcome.report["rollback"] is None
    assert sound.answering() == old
    assert sound.untidy() == []


def test_a_column_that_a_kept_image_needs_stays(sound: ComposeCheckout) -> None:
    """A contracting migration is refused while a recorded image needs what it drops, and the image is named."""
    [old], next_one = sound.answering(), f"{int(notes_revision(sound)) + 1:04}"
    add_migration(sound, "drop tags", "ALTER TABLE testing_notes DROP COLUMN tag", contract_after=next_one)
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert old.removeprefix("sha256:")[:12] in outcome.reason, outcome.reason
    assert sound.answering() == {old}
