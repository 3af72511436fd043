"""A release that fails with the real settings only: the same on each target."""

from __future__ import annotations

import json
from typing import Any

from tests.deploy.breaking import wrap_service
from tests.deploy.checkout import Checkout
from tests.notes import NOTES

__all__ = ["NEEDS_A_SECRET", "refuses_what_lacks_a_secret", "replicas"]

# A laptop and the tests may have it in the environment; the deploy's .env does not.
NEEDS_A_SECRET = """
import os
if method == "POST" and not {"MAIL_KEY", "MAIL_KEY_FILE"} & set(os.environ):
    status = 500
"""


def replicas(one: Checkout) -> list[Any]:
    """Return the replicas that run, each with its name and when it started."""
    said = json.loads(one.run("status", "--json").stdout)
    return [(each["name"], each["release"], each["since"]) for each in said["replicas"]]


def untouched(before: list[Any], after: list[Any]) -> bool:
    """Return whether no replica was exchanged; an autoscaler may have added or removed some."""
    return len({*before} & {*after}) == min(len(before), len(after))


def refuses_what_lacks_a_secret(sound: Checkout) -> str:
    """Refuse it in `check`, with each replica as it was, and nothing of it left; return the reason."""
    before = replicas(sound)
    wrap_service(sound, NEEDS_A_SECRET, when="True")
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict, outcome.report["rollback"]) == (1, "failed", None), str(outcome)
    assert [stage["name"] for stage in outcome.report["stages"]][-1] == "check"
    assert "fails with the settings and secrets of" in outcome.reason, str(outcome)
    assert f"(no replica was exchanged): POST {NOTES}: 500" in outcome.reason, str(outcome)
    assert untouched(before, replicas(sound))
    assert sound.untidy() == []
    sound.restore()
    return outcome.reason
