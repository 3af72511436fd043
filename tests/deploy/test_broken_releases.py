"""Releases that must not ship: the deploy fails with the reason that a reader needs, and the old release serves."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.deploy.breaking import IN_SERVICE, SLOW_SECONDS, add_migration, wrap_service
from tests.deploy.checkout import Checkout
from tests.deploy.tried import NEEDS_A_SECRET, refuses_what_lacks_a_secret, replicas
from tests.notes import NOTES
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Case:
    """A way to break the service, and what the deploy must report."""

    breaks: Callable[[Checkout], None]
    verdict: str
    says: tuple[str, ...]  # words in the reason; {release} is the broken one


def layer(breakage: str, when: str = IN_SERVICE) -> Callable[[Checkout], None]:
    """Return a breakage in a layer around the whole service, by default of the replicas that people are sent to."""
    return lambda checkout: wrap_service(checkout, textwrap.dedent(breakage).strip(), when=when)


def code(text: str) -> Callable[[Checkout], None]:
    """Return a breakage by text at the end of the service's module."""
    return lambda checkout: checkout.append("backend/app.py", textwrap.dedent(text))


CASES = {
    "never gets ready": Case(
        layer("if path == '/ready':\n    status = 503", when="True"), "failed",
        ("{release} did not get ready in time", "/ready says 503", "no replica was exchanged")),
    "gets ready in its trial alone": Case(
        layer("if path == '/ready':\n    status = 503"), "rolled_back",
        ("{release} did not get ready in time", "/ready says 503")),
    "crashes at import": Case(
        code("raise RuntimeError('the flux is not compensated')\n"), "failed",
        ("{release} ended before it was ready", "RuntimeError: the flux is not compensated")),
    "crashes at import, but in its trial": Case(
        code(f"if {IN_SERVICE}:\n    raise RuntimeError('the flux is not compensated')\n"), "rolled_back",
        ("{release} ended before it was ready", "RuntimeError: the flux is not compensated")),
    "answers 500": Case(
        layer(f"if path == '{NOTES}' and method == 'POST':\n    status = 500", when="True"), "failed",
        ("{release} fails with the settings and secrets of local, before anybody is sent to it", f"POST {NOTES}: 500")),
    "does not compile": Case(
        code("def broken(:\n"), "failed", ("does not compile", "backend/app.py", "SyntaxError")),
    "exits after it was ready": Case(
        code(f"""
            import os, threading
            if {IN_SERVICE}:
                threading.Timer(2, os._exit, [7]).start()
        """), "rolled_back", ("release {release} ended",)),
    "answers 500 from its 50th request on": Case(
        layer("if self.asked >= 50:\n    status = 500"), "rolled_back",
        ("requests failed", "× 5xx", "answered by release {release}", "→ 500")),
    "is slow": Case(
        layer(f"if path == '{NOTES}' and method == 'GET':\n    await asyncio.sleep({SLOW_SECONDS})"), "rolled_back",
        ("release {release} is slow: `list notes` ", "confirmed twice")),
    "a list that is no JSON": Case(
        layer(f"if path == '{NOTES}' and method == 'GET':\n    body = b'<'"), "rolled_back",
        ("requests failed", "× body", "answered by release {release}")),
    "writes answered by what is no JSON": Case(
        layer("if path.startswith('/api/') and method == 'POST':\n    body = b'<'"), "rolled_back",
        ("requests failed", "× body", "answered by release {release}")),
}  # fmt: skip


@pytest.mark.parametrize("name", in_gate(CASES, "answers 500 from its 50th request on"))
def test_a_broken_release_is_undone_for_the_right_reason(name: str, sound: Checkout) -> None:
    """Exit code 1, one line that names the cause, evidence, and each user is answered by the release before."""
    case, old = CASES[name], sound.answering()
    sound.configure(timeout=8 if "gets ready" in name else 60)
    case.breaks(sound)
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, case.verdict), str(outcome)
    assert sound.answering() == old
    broken = str(outcome.report["release"])
    for words in case.says:
        assert words.format(release=broken) in outcome.reason, str(outcome)
    assert len(outcome.reason) < 400, "one line that fits a message"
    assert "Traceback" not in outcome.stderr, "that is in the replica's log"
    assert {outcome.report["previous"]} == old
    if case.verdict == "failed":
        assert outcome.report["rollback"] is None, "nothing was touched"
    else:
        assert outcome.report["rollback"]["verdict"] == "proved"
        assert [stage["name"] for stage in outcome.report["rollback"]["stages"]] == ["roll back", "prove"]
        [restored] = old
        assert outcome.report["rollback"]["traffic"]["by_release"][restored]["failed"] == 0
    shown = (sound.newest_record() / "report.md").read_text(encoding="utf-8")
    assert outcome.reason in html.unescape(re.sub(r"\\([^\w\s])", r"\1", shown)), "as Markdown shows it"
    assert sound.untidy() == []


@pytest.mark.gate
def test_what_lacks_a_secret_is_refused_before_anything_is_exchanged(sound: Checkout) -> None:
    """One request of its table needs it, and no other replica of it was ever asked that here."""
    refuses_what_lacks_a_secret(sound)


def test_where_a_migration_was_pending_it_alone_is_applied(sound: Checkout) -> None:
    """The line says so, and each replica is as it was."""
    before = replicas(sound)
    revision = add_migration(sound, "labels", "ALTER TABLE testing_notes ADD COLUMN label text")
    wrap_service(sound, NEEDS_A_SECRET, when="True")
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "(its migrations are applied, and no replica was exchanged): POST" in outcome.reason, str(outcome)
    assert "roll out" not in [stage["name"] for stage in outcome.report["stages"]]
    assert outcome.report["rollback"]["verdict"] == "proved"
    assert (replicas(sound), sound.revision()) == (before, revision)
    assert sound.untidy() == []
    sound.git("checkout", "--quiet", "--", "backend/app.py")
    sound.proved()
    sound.commit()


def test_a_bad_caddyfile_is_refused_in_check(sound: Checkout) -> None:
    """Nothing is touched: the edge goes on, and nothing has to be brought back."""
    old = sound.answering()
    sound.patch("docker/edge/Caddyfile", "persist_config off", "persist_konfig off")
    outcome = sound.deploy()
    sound.git("checkout", "--quiet", "--", "docker")
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert "persist_konfig" in outcome.reason
    assert (outcome.report["stages"][-1]["name"], outcome.report["rollback"]) == ("check", None)
    assert sound.answering() == old
    assert sound.untidy() == []


def test_the_release_before_is_whole_after_all_that(sound: Checkout) -> None:
    """With its source back in the working tree there is nothing to deploy."""
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (0, "unchanged"), str(outcome)
