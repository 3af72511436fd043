"""Where the secrets of a cluster come from, and how a rotation changes them there."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.config.project import KubernetesEnvironment
from pipeline.config.sources import Source
from pipeline.engines.kubectl import Object
from pipeline.errors import SlipwayError
from pipeline.targets.kubernetes import secrets as module
from pipeline.targets.kubernetes.secret import doubled_secret
from pipeline.targets.kubernetes.secrets import KubernetesSecrets
from tests.project import PROJECT

STORES = [{"kind": "StatefulSet", "metadata": {"name": name}} for name in ("postgres", "redis")]
SETTINGS = {"kind": "ConfigMap", "metadata": {"name": "settings-1"},
            "data": {"POSTGRES_USER": "board", "JWT_EXPIRE_MINUTES": "30"}}  # fmt: skip
VAULT = {"kind": "ExternalSecret", "metadata": {"name": "slipway-secrets"}}


@dataclass
class Cluster:
    """A cluster that has one Secret, and an ExternalSecret that is refreshed when it is annotated, unless it is `ill`.

    `undone`: somebody else writes the Secret.
    """

    secret: dict[str, str]
    ill: bool = False
    undone: bool = False
    refreshed: int = 0
    done: list[tuple[str, ...]] = field(default_factory=list)

    def get(self, *arguments: str) -> list[Object]:
        """Return the Secret, or how the ExternalSecret is."""
        if arguments[0] == "secret":
            data = {name: base64.b64encode(value.encode()).decode() for name, value in self.secret.items()}
            return [{"data": data}]
        ready = {"type": "Ready", "status": "False" if self.ill else "True", "message": "the vault is sealed"}
        return [{"status": {"refreshTime": f"T{self.refreshed}", "conditions": [ready]}}]

    def do(self, *arguments: str, given: str = "{}") -> str:
        """Patch the Secret as the API server merges it, or refresh it."""
        self.done.append(arguments)
        if arguments[0] == "annotate":
            self.refreshed += not self.ill
        elif not self.undone:
            patch = json.loads(given)
            self.secret |= patch["stringData"]
            for name in patch["data"]:
                del self.secret[name]
        return ""


def secrets_of(cluster: Cluster, *objects: Object, source: Source | None = None) -> KubernetesSecrets:
    """Return those of an environment on `cluster`, with `objects` in its overlay."""
    env = PROJECT.environment("staging").model_copy(update={"secrets": source})
    assert isinstance(env, KubernetesEnvironment)
    rendered = [SETTINGS, *objects]
    artifacts = SimpleNamespace(render=lambda _: ("a", rendered))
    site = SimpleNamespace(project=PROJECT, env=env, kubectl=cluster, artifacts=artifacts,
                           secret="slipway-secrets", delivers=source is not None, on_this_machine=False)  # fmt: skip
    return KubernetesSecrets(cast("Any", site))


class TestTheSecretOfTheCluster:
    def test_is_read_with_the_role_of_the_overlay(self) -> None:
        """Or with its own, once a rotation has put it there."""
        cluster = Cluster({"SERVICE_TOKEN": "a-token"})
        assert secrets_of(cluster).read() == {"POSTGRES_USER": "board", "SERVICE_TOKEN": "a-token"}
        cluster.secret["POSTGRES_USER"] = "board-other"
        assert secrets_of(cluster).read()["POSTGRES_USER"] == "board-other"
        assert secrets_of(cluster).lifetime_minutes() == 30

    def test_is_patched_by_standard_input(self) -> None:
        """No argument has a value; an empty one is taken out."""
        cluster = Cluster({"SERVICE_TOKEN": "old", "SERVICE_TOKEN_PREVIOUS": "older", "OTHER": "stays"})
        one = secrets_of(cluster)
        assert one.elsewhere("SERVICE_TOKEN") is None
        one.write(
            {"SERVICE_TOKEN": "canary-of-the-secret", "SERVICE_TOKEN_PREVIOUS": "", "JWT_SECRET_KEY_PREVIOUS": ""}
        )
        assert cluster.secret == {"SERVICE_TOKEN": "canary-of-the-secret", "OTHER": "stays"}
        assert "canary" not in str(cluster.done)

    def test_has_the_users_of_redis_with_its_password(self) -> None:
        """Where Redis reads them from there."""
        cluster = Cluster({"REDIS_PASSWORD": "old", "REDIS_ACL": "user default on #0 ~* &* +@all\n"})
        secrets_of(cluster).write({"REDIS_PASSWORD": "new"})
        admin = cluster.secret["REDIS_ADMIN_PASSWORD"]
        secrets_of(cluster).write({"REDIS_PASSWORD": "newer"})
        assert cluster.secret["REDIS_ADMIN_PASSWORD"] == admin
        secrets_of(cluster).write({"REDIS_PASSWORD": "new"})
        assert f"#{hashlib.sha256(b'new').hexdigest()} " in cluster.secret["REDIS_ACL"]

    def test_must_have_what_was_written(self) -> None:
        """An operator of somebody's may write it back."""
        with pytest.raises(SlipwayError, match="Secret slipway-secrets: SERVICE_TOKEN: somebody else has changed it"):
            secrets_of(Cluster({"SERVICE_TOKEN": "old"}, undone=True)).write({"SERVICE_TOKEN": "new"})


class TestAVault:
    def test_is_a_persons_to_change(self) -> None:
        """A patch of the Secret would be undone with its next refresh."""
        place = secrets_of(Cluster({}), VAULT).elsewhere("SERVICE_TOKEN")
        assert place == "the vault that ExternalSecret slipway-secrets reads"

    def test_is_read_at_once(self) -> None:
        """By the annotation that the operator documents for that; the next time is another value of it."""
        cluster = Cluster({})
        for _ in range(2):
            secrets_of(cluster, VAULT).refresh()
        assert cluster.refreshed == 2
        assert len({words[2] for words in cluster.done}) == 2
        assert {words[2].partition("=")[0] for words in cluster.done} == {"force-sync"}

    def test_that_cannot_be_read_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the operator's words."""
        monkeypatch.setattr(module, "REFRESH_SECONDS", 0)
        with pytest.raises(
            SlipwayError, match="ExternalSecret slipway-secrets was not refreshed in 0 s: the vault is se"
        ):
            secrets_of(Cluster({}, ill=True), VAULT).refresh()

    def test_and_a_command_are_one_too_many(self) -> None:
        """Each would undo what the other wrote."""
        [line] = doubled_secret([VAULT, *STORES], "k8s/overlays/staging", "slipway-secrets")
        assert line.startswith(
            "k8s/overlays/staging: ExternalSecret slipway-secrets fills Secret slipway-secrets, and so"
        )
        assert doubled_secret(STORES, "k8s/overlays/staging", "slipway-secrets") == []


class TestACommand:
    def test_is_asked_instead_of_the_cluster(self) -> None:
        """And one without `write` is a person's to change."""
        source = Source(command=("echo", "SERVICE_TOKEN=of-the-command"))
        one = secrets_of(Cluster({"SERVICE_TOKEN": "of-the-cluster"}), source=source)
        assert one.read()["SERVICE_TOKEN"] == "of-the-command"
        assert one.elsewhere("SERVICE_TOKEN") == "what `echo` reads"


class TestObjection:
    def test_to_what_nobody_here_can_change(self) -> None:
        """A store outside, one that a URL names, the superuser."""
        inside, outside = secrets_of(Cluster({}), *STORES), secrets_of(Cluster({}))
        assert [inside.objection(name) for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "SERVICE_TOKEN")] == [
            None
        ] * 3
        assert "k8s/overlays/staging runs no redis" in str(outside.objection("REDIS_PASSWORD"))
        assert "its password is in DATABASE_URL" in str(
            secrets_of(Cluster({"DATABASE_URL": "postgresql://x"})).objection("POSTGRES_PASSWORD")
        )
        assert "an administrator changes it" in str(inside.objection("POSTGRES_SUPERUSER_PASSWORD"))
