"""What the database of a namespace has applied is compared with the files, as on `local`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.breaking import add_migration
from tests.deploy.kind.stack import KindCheckout

pytestmark = pytest.mark.e2e


def test_what_was_applied_in_another_form_is_refused(sound: KindCheckout) -> None:
    """Where the release was undone, too; and rows go only with a reason."""
    old = sound.answering()
    revision = add_migration(sound, "labels", "ALTER TABLE releases ADD COLUMN label text")
    sound.append("backend/app.py", "raise RuntimeError('broken')\n")
    assert sound.deploy().verdict == "rolled_back"
    assert sound.sql("SELECT version_num FROM alembic_version") == revision
    sound.restore()
    add_migration(sound, "labels", "ALTER TABLE releases ADD COLUMN label text, ADD COLUMN colour text")
    refused = sound.deploy()
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert f"migration {revision} (labels) was applied in another form" in refused.reason
    sound.restore()

    add_migration(sound, "labels", "ALTER TABLE releases ADD COLUMN label text")
    sound.report_release("1.0.0")
    rows = sound.sql("SELECT count(*) FROM releases")
    later = add_migration(sound, "clean up", "TRUNCATE releases")
    refused = sound.deploy()
    assert f"migration {later} (clean up) destroys {rows} row" in refused.reason, str(refused)
    assert sound.sql("SELECT count(*) FROM releases") == rows
    assert sound.answering() == old
    next((sound.root / "backend/migrations/versions").glob(f"{later}_*.py")).unlink()
    sound.proved()
    sound.commit()


def test_a_database_that_did_not_run_is_asked_before_anything_is_applied(sound: KindCheckout) -> None:
    """After `down`, what is there is known once PostgreSQL runs: an edit is refused then, and nothing is applied."""
    assert sound.run("down", KUBECONFIG=str(Path.home() / ".kube/config")).code == 0
    [path] = (sound.root / "backend/migrations/versions").glob("0001_*.py")
    sound.patch(str(path.relative_to(sound.root)), "notes text,", "notes text, more text,")
    refused = sound.deploy()
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert "migration 0001" in refused.reason
    assert "was applied in another form" in refused.reason
    assert sound.pods() == []
    sound.restore()
    sound.proved()


def test_a_database_of_before_gets_a_history(sound: KindCheckout) -> None:
    """Recorded as the image that serves has it."""
    sound.sql("DROP TABLE alembic_history")
    sound.change("with a history")
    outcome = sound.proved()
    assert "recorded as unknown" not in outcome.stderr
    assert sound.sql("SELECT count(*) FROM alembic_history WHERE checksum IS NULL") == "0"
    assert sound.sql("SELECT count(*) FROM alembic_history") != "0"
