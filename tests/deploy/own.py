"""The story of the team's own service, from its own table of requests: the same on each target."""

from __future__ import annotations

import re

from pipeline.config.project import load_project
from tests.deploy.breaking import wrap_service
from tests.deploy.checkout import Checkout

__all__ = ["ships_updates_and_is_undone"]


def ships_updates_and_is_undone(own: Checkout) -> None:
    """Deploy it, update it by a comment, and undo a release that answers 500 to one of its requests."""
    first = own.proved()
    own.change("a comment")
    second = own.proved()
    assert second.release != first.release
    assert own.answering() == {second.release}

    requests = load_project(own.root).requests
    broken = next((one for one in requests if one.method == "GET"), requests[0])
    fixed = re.split(r"\{[^}]*\}", broken.path.partition("?")[0])  # what is around the placeholders
    path = "[^/]+".join(map(re.escape, fixed))
    wrap_service(own, f"import re\nif method == {broken.method!r} and re.fullmatch({path!r}, path):\n    status = 500")
    outcome = own.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "requests failed" in outcome.reason, str(outcome)
    assert "× 5xx" in outcome.reason, str(outcome)
    assert own.answering() == {second.release}
    assert own.untidy() == []
