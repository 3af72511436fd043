"""A release whose secrets are not there: refused in the plan, whichever way it is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config.settings import needed_secrets
from pipeline.errors import UsageError
from pipeline.releases.model import Artifact
from tests.pipeline.deploy.world import World, release

KEY = "CARRIER_KEY"


def needing(name: str) -> Artifact:
    """Make a release that does not start without a secret."""
    return replace(release(name), needs=(KEY,))


def test_a_working_tree_is_refused_by_what_its_schema_declares(served: World) -> None:
    """Before it is built."""
    name = needed_secrets()[0]
    served.target.fleet.lost = {name}
    with pytest.raises(UsageError, match=f"^{name} of release None is lost: find it$"):
        served.deploy(release("b"))
    assert served.target.asked == ["problems"]
    assert [one.number for one in served.records] == [1]


def test_a_recorded_release_is_refused_by_what_it_needs_itself(served: World) -> None:
    """Whatever the working tree declares; a deploy by number and a rollback are the same here."""
    assert served.deploy(needing("b")).code == 0
    assert served.deploy(release("c")).code == 0
    served.target.fleet.lost = {KEY}
    for ask in (lambda: served.deploy(reference="2"), lambda: served.run("rollback")):
        with pytest.raises(UsageError, match=f"^{KEY} of release b is lost: find it$"):
            ask()
    assert served.serving == ["c", "c"]
    assert served.deploy(reference="1").report.release == "a", "it needs none"


def test_a_release_of_elsewhere_is_refused_by_what_it_needs_itself(served: World) -> None:
    """By its digest: it was never built or recorded here."""
    served.target.releases.kept["digest"] = needing("digest")
    served.target.releases.promoted = "digest"
    served.target.fleet.lost = {KEY}
    with pytest.raises(UsageError, match=f"^{KEY} of release digest is lost"):
        served.deploy(reference="digest")
    assert served.serving == ["a", "a"]


def test_a_deploy_says_that_what_serves_could_not_be_brought_back(served: World) -> None:
    """Its secret was taken away together with the code that needs it."""
    assert served.deploy(needing("b")).code == 0
    served.target.fleet.lost = {KEY}
    assert served.deploy(release("c")).code == 0
    assert f"the release that serves could not be brought back: {KEY} of release b is lost" in served.said
