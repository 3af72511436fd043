"""A program of a release near the database of a Kubernetes environment: a Job of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.engines.kubectl import Object, Refused
from pipeline.errors import ProgramFailed, SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.git import Source
from pipeline.targets.kubernetes.database import KubernetesDatabase
from pipeline.targets.kubernetes.job import Ended, MigrateJob
from tests.pipeline.targets.kubernetes.test_job import MIGRATE

RELEASE = Artifact("a", Source(None, dirty=False), None, ())
FORBIDDEN = 'secrets is forbidden: User "eve" cannot create resource "secrets" in API group "" in the namespace "shop"'
Done = tuple[Object, str, str]  # the Job, the verb, what it was given


def command(monkeypatch: pytest.MonkeyPatch, outcome: str | Exception) -> list[Done]:
    """Run a program on a cluster where that comes to `outcome`; return what was done."""
    done: list[Done] = []

    def do(_: MigrateJob, job: Object, verb: str, given: str) -> str:
        done.append((job, verb, given))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(MigrateJob, "do", do)
    kept = SimpleNamespace(images=SimpleNamespace(place=lambda name: f"{name}@sha256:1"), objects=lambda _: [MIGRATE])
    site = SimpleNamespace(
        kept=SimpleNamespace(find=lambda _: kept), prepared=False, serving=lambda: ["a"], kubectl=None
    )
    assert KubernetesDatabase(cast("Any", site)).command(RELEASE, "backend.accounts", "add", stdin="a hash") == outcome
    return done


class TestCommand:
    def test_has_a_name_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two people at once, or one beside a deploy, do not remove each other's Job."""
        [(first, _, given)], [(second, _, _)] = (command(monkeypatch, "{}") for _ in range(2))
        assert first["metadata"]["name"] != second["metadata"]["name"]
        assert first["metadata"]["name"].startswith("accounts-")
        assert first["spec"]["template"]["spec"]["containers"][0]["image"] == "migrate@sha256:1"
        assert given == "a hash"
        assert "a hash" not in str(first)

    def test_fails_with_the_words_of_the_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last line of its log."""
        with pytest.raises(ProgramFailed) as failed:
            command(monkeypatch, Ended("the Job of backend.accounts", "a line\nanna: the name is taken\n"))
        assert failed.value.said == "anna: the name is taken"

    def test_says_who_gives_a_right_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An administrator does, with a Role that is there."""
        with pytest.raises(SlipwayError, match=r"cannot create .*: ask an administrator to bind the Role deployer"):
            command(monkeypatch, Refused(f"kubectl create: {FORBIDDEN}", FORBIDDEN))

    def test_blames_no_right_for_another_refusal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A quota is forbidden, too."""
        said = 'jobs "accounts-1" is forbidden: exceeded quota: slipway'
        with pytest.raises(Refused) as refused:
            command(monkeypatch, Refused(f"kubectl apply: {said}", said))
        assert "administrator" not in str(refused.value)
