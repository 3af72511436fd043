"""What the tests of backups share on each target: a run of a story about data, writers, and what a table has."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from pipeline.data.records import DataRecords
from pipeline.system.ports import dial
from tests.deploy.checkout import Checkout
from tests.deploy.runs import Deploy, Outcome, newest
from tests.deploy.threads import Working
from tests.notes import NOTES

__all__ = ["DIGEST", "SUM", "TABLE", "Write", "Writers", "begin", "data_records", "kept", "make_table", "tell", "told"]

# The number of notes, and a checksum of all that is in them, whatever their order on the disk.
DIGEST = (
    "SELECT count(*) || ' ' || md5(coalesce(string_agg(testing_notes::text, ',' ORDER BY id), '')) FROM testing_notes"
)
TABLE = "testing_notes"
# The same of those that no proof wrote.
SUM = f"SELECT count(*) || ' ' || md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {TABLE} t WHERE NOT synthetic"
PAUSE_SECONDS = 0.02


def told(checkout: Checkout, verb: str, *arguments: str, **environ: str) -> Outcome:
    """Tell a story about the data of `checkout` to its end."""
    return checkout.run(verb, *arguments, "--json", **environ)


def tell(checkout: Checkout, verb: str, *arguments: str, code: int = 0) -> Outcome:
    """Tell a story that must end with `code`."""
    outcome = told(checkout, verb, *arguments)
    assert outcome.code == code, str(outcome)
    return outcome


def begin(checkout: Checkout, verb: str, *arguments: str) -> Deploy:
    """Begin a story; its stage is that of its own record."""
    records = checkout.home / "data"
    known = newest(records)
    return replace(checkout.start(verb, *arguments, "--json"), records=records, known=known)


def kept(checkout: Checkout, **environ: str) -> dict[str, Any]:
    """Make a backup, and return its summary."""
    outcome = told(checkout, "backup", **environ)
    assert (outcome.code, outcome.verdict) == (0, "done"), str(outcome)
    backup: dict[str, Any] = outcome.report["backup"]
    return backup


def data_records(checkout: Checkout) -> list[str | None]:
    """Return the verdict of each record, oldest first."""
    return [record.verdict for record in DataRecords(checkout.home / "data").all()]


def make_table(checkout: Checkout, name: str, columns: str = "") -> None:
    """Make a table as migrations would, and a backup can read it."""
    owner = checkout.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'alembic_version'")
    checkout.sql(f"CREATE TABLE {name} ({columns})")
    checkout.sql(f'ALTER TABLE {name} OWNER TO "{owner}"')


@dataclass(frozen=True)
class Write:
    """One note: when it was sent and answered (monotonic seconds), the status (0: none), and its id."""

    at: float
    ended: float
    status: int
    retry_after: str | None
    ident: str | None


class Writers(Working):
    """Writers of notes, each one after the other until the block ends, over connections of their own."""

    def __init__(self, checkout: Checkout, count: int = 4) -> None:
        super().__init__(*[self._write] * count)
        self.checkout = checkout
        self.writes: list[Write] = []

    def acknowledged(self, *, until: float = float("inf")) -> set[str]:
        """Return the ids of the notes whose answer had come `until` then."""
        return {one.ident for one in list(self.writes) if one.ident and one.ended < until}

    def _write(self) -> None:
        url, headers = dial(f"{self.checkout.url}{NOTES}")
        headers = {"Authorization": f"Bearer {self.checkout.settings()['SERVICE_TOKEN']}", **headers}
        while not self._over.wait(PAUSE_SECONDS):
            at, status, later, ident = time.monotonic(), 0, None, None
            try:
                answer = httpx2.post(url, headers=headers, json={"text": "a write", "tag": "w"}, timeout=15)
                status, later = answer.status_code, answer.headers.get("retry-after")
                ident = answer.json()["id"] if status == 201 else None
            except httpx2.TransportError:
                pass  # written down as status 0
            self.writes.append(Write(at, time.monotonic(), status, later, ident))
