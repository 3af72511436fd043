"""The Secret of the service."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from pipeline.config.settings import service_secrets
from pipeline.engines.kubectl import Kubectl, Object
from pipeline.targets.common.tokens import Tokens
from pipeline.targets.kubernetes.secret import (
    doubled_stores,
    missing_keys,
    needed_keys,
    pod_mark,
    secret_object,
    secret_values,
    secrets_fingerprint,
    unread_keys,
    unread_urls,
)
from tests.project import NAME

ROOT = Path(__file__).parents[4]
MANIFESTS = (
    "k8s/base/backend.yaml",
    "k8s/base/migrate.yaml",
    "k8s/components/postgres/postgres.yaml",
    "k8s/components/redis/redis.yaml",
)

HERE = {name: f"{name.lower()}-of-the-env-file" for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "SERVICE_TOKEN")}
STORES = [{"kind": "StatefulSet", "metadata": {"name": name}} for name in ("postgres", "redis")]


class TestNeededKeys:
    def test_are_the_stores_own_only_where_they_are(self) -> None:
        """A database outside needs no superuser of ours."""
        assert "POSTGRES_SUPERUSER_PASSWORD" not in needed_keys([])
        assert {"POSTGRES_SUPERUSER_PASSWORD", "REDIS_ACL"} < set(needed_keys(STORES))

    def test_are_none_that_a_rotation_alone_has(self) -> None:
        """A Secret that was made today has no token or key of before, and is complete."""
        assert not {"SERVICE_TOKEN_PREVIOUS", "JWT_SECRET_KEY_PREVIOUS"} & set(needed_keys(STORES))

    def test_are_no_password_that_a_url_has(self) -> None:
        """Each of its own store."""
        assert not {"POSTGRES_PASSWORD", "REDIS_PASSWORD"} & {*needed_keys([], ["DATABASE_URL", "REDIS_URL"])}
        assert {"POSTGRES_PASSWORD"} == {*needed_keys([])} - {*needed_keys([], ["DATABASE_URL"])}


class TestSecretValues:
    def test_keep_what_only_the_cluster_knows(self) -> None:
        """The superuser's password is made once."""
        first = secret_values(needed_keys(STORES), HERE, {})
        again = secret_values(needed_keys(STORES), HERE, first)
        assert again == first
        assert len(first["POSTGRES_SUPERUSER_PASSWORD"]) > 32

    @pytest.mark.parametrize(
        ("of_env", "role"),
        [("shop", None), ("shop-other", "shop-other"), ("shop-app-2", "shop-app-2"), ("another", None)],
    )
    def test_say_whose_the_password_is_where_it_was_rotated(self, of_env: str, role: str | None) -> None:
        """The second of the two roles that own the database; any other name of `.env` is another target's."""
        values = secret_values(needed_keys(STORES), HERE, {}, roles=("shop", of_env))
        assert values.get("POSTGRES_USER") == role

    def test_say_who_migrates_where_that_is_somebody_else(self) -> None:
        """With a password of its own, which is no reason for new pods: none of the service's has it."""
        here = {**HERE, "POSTGRES_OWNER_PASSWORD": "of-the-owner"}
        values = secret_values(needed_keys(STORES), here, {}, roles=("shop", "shop-app-1"), owner="shop")
        assert (values["POSTGRES_OWNER"], values["POSTGRES_OWNER_PASSWORD"]) == ("shop", "of-the-owner")
        assert secrets_fingerprint(values) == secrets_fingerprint({**values, "POSTGRES_OWNER_PASSWORD": "another"})
        assert "POSTGRES_OWNER" not in secret_values(needed_keys(STORES), HERE, {}, roles=("shop", "shop"))

    def test_hold_the_hash_of_redis_password_alone_for_redis(self) -> None:
        """Its file of users is read by its process, and tells nothing."""
        assert HERE["REDIS_PASSWORD"] not in secret_values(needed_keys(STORES), HERE, {})["REDIS_ACL"]

    def test_have_the_keys_of_backups_where_there_are_any(self) -> None:
        """No pod of the service carries a mark of them: it need not start again."""
        plain = secret_values(needed_keys(STORES), HERE, {})
        known = {"BACKUP_IDENTITY": "AGE-SECRET-KEY-1", "BACKUP_ADDRESS_SECRET": "id:secret"}
        values = secret_values(needed_keys(STORES), {**HERE, **known, "BACKUP_KEEP": "7d"}, plain)
        assert values == {**plain, **known}
        assert pod_mark(values) == pod_mark(plain)
        assert "BACKUP_IDENTITY" not in secret_values(needed_keys(STORES), HERE, values)


class TestManagedStores:
    URLS: ClassVar = {"DATABASE_URL": "postgresql://db/shop", "REDIS_URL": "redis://cache"}

    def test_get_there_with_the_authorities(self) -> None:
        """From `.env`; what it no longer has goes from the Secret, too."""
        here = {**HERE, **self.URLS, "CERTIFICATES": "pem"}
        values = secret_values(needed_keys([]), here, {})
        assert {name: values[name] for name in ("DATABASE_URL", "REDIS_URL", "CERTIFICATES")} == {
            **self.URLS,
            "CERTIFICATES": "pem",
        }
        assert not {*self.URLS, "CERTIFICATES"} & {*secret_values(needed_keys([]), HERE, values)}

    @pytest.mark.parametrize("name", ["DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL", "CERTIFICATES"])
    def test_lead_to_new_pods(self, name: str) -> None:
        """And a Secret without them to those there are."""
        assert secrets_fingerprint(HERE) != secrets_fingerprint({**HERE, name: "x"})
        assert secrets_fingerprint(HERE) == secrets_fingerprint({**HERE, name: ""})

    def test_stand_beside_none_of_the_overlay(self) -> None:
        """The data would be in one, and the eyes on the other."""
        lines = doubled_stores([*self.URLS, "MIGRATION_DATABASE_URL"], STORES[:1], "k8s/overlays/kind")
        assert [line.partition(": ")[0] for line in lines] == ["DATABASE_URL"]
        assert "take components/postgres out" in lines[0]
        assert doubled_stores(self.URLS, [], "k8s/overlays/kind") == []


class TestMissingKeys:
    def test_name_the_key_and_the_command_that_mends_it(self) -> None:
        """Without a value in it: it comes through standard input."""
        [line] = missing_keys(["A", "B"], {"A": "x"}, Kubectl("production", "shop"), "shop-secrets", [])
        assert line.startswith("Secret shop-secrets in namespace shop has no B: `kubectl --context=production")
        assert "patch secret shop-secrets --patch-file=/dev/stdin" in line

    def test_lead_to_the_vault_that_fills_it(self) -> None:
        """A patch would be undone by it."""
        vault: Object = {"kind": "ExternalSecret", "metadata": {"name": "of-a-vault"}}
        [line] = missing_keys(["A"], {}, Kubectl("production", "shop"), "shop-secrets", [vault])
        assert "put it into the vault that ExternalSecret of-a-vault reads" in line
        assert "patch" not in line


def pod(*, env: object = (), env_from: object = (), volumes: object = ()) -> Object:
    """A Deployment whose one container has ENV and ENV_FROM, on VOLUMES."""
    spec = {"containers": [{"name": "backend", "env": env, "envFrom": env_from}], "volumes": volumes}
    return {"kind": "Deployment", "metadata": {"name": "backend"}, "spec": {"template": {"spec": spec}}}


def variable(secret: str, key: str) -> Object:
    """A Deployment with a variable from a KEY of SECRET."""
    source = {"secretKeyRef": {"name": secret, "key": key, "optional": True}}
    return pod(env=[{"name": "DATABASE_URL", "valueFrom": source}])


ITEMS = [{"key": "DATABASE_URL", "path": "DATABASE_URL"}]
OTHERS = [{"key": "POSTGRES_PASSWORD", "path": "DATABASE_URL"}]
READ: dict[str, Object] = {
    "a variable": variable("shop-secrets", "DATABASE_URL"),
    "envFrom": pod(env_from=[{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "shop-secrets"}}]),
    "an item of a volume": pod(volumes=[{"secret": {"secretName": "shop-secrets", "items": ITEMS}}]),
    "a volume of all": pod(volumes=[{"secret": {"secretName": "shop-secrets", "defaultMode": 0o440}}]),
    "an item of a projected volume": pod(
        volumes=[{"projected": {"sources": [{"secret": {"name": "shop-secrets", "items": ITEMS}}]}}]
    ),
    "a projected volume of all": pod(volumes=[{"projected": {"sources": [{"secret": {"name": "shop-secrets"}}]}}]),
}
UNREAD: dict[str, Object] = {
    "nothing": pod(),
    "a variable of another key": variable("shop-secrets", "REDIS_PASSWORD"),
    "a variable of another Secret": variable("other", "DATABASE_URL"),
    "envFrom another Secret": pod(env_from=[{"secretRef": {"name": "other"}}]),
    "other items": pod(volumes=[{"secret": {"secretName": "shop-secrets", "items": OTHERS}}]),
    "a volume of another Secret": pod(volumes=[{"secret": {"secretName": "other"}}]),
    "a projected volume of another Secret": pod(volumes=[{"projected": {"sources": [{"secret": {"name": "other"}}]}}]),
}


class TestUnreadUrls:
    KUBECTL = Kubectl("production", "shop")
    THERE: ClassVar = {"DATABASE_URL": "postgresql://shop:canary@db/shop", "POSTGRES_PASSWORD": "x", "REDIS_URL": ""}

    @pytest.mark.parametrize("what", READ)
    def test_are_none_where_a_pod_reads_them(self, what: str) -> None:
        """In whichever way a pod can take a key of a Secret."""
        assert unread_urls(self.THERE, [*STORES, READ[what]], self.KUBECTL, "shop-secrets") == []

    @pytest.mark.parametrize("what", UNREAD)
    def test_are_named_with_the_command_that_mends_it(self, what: str) -> None:
        """The service would be quiet, and use the database of the settings; the value is in no line."""
        [line] = unread_urls(self.THERE, [*STORES, UNREAD[what]], self.KUBECTL, "shop-secrets")
        assert line.startswith("Secret shop-secrets in namespace shop has DATABASE_URL, which no pod reads")
        remove = """patch secret shop-secrets --type=json --patch='[{"op": "remove", "path": "/data/DATABASE_URL"}]'`"""
        assert remove in line
        assert "canary" not in line

    def test_are_none_of_the_manifests_that_ship(self) -> None:
        """The service reads its URLs, and its migrations theirs."""
        text = "---\n".join((ROOT / name).read_text(encoding="utf-8") for name in MANIFESTS)
        there = {"DATABASE_URL": "x", "MIGRATION_DATABASE_URL": "x", "REDIS_URL": "x"}
        assert unread_urls(there, yaml.safe_load_all(text), self.KUBECTL, f"{NAME}-secrets") == []


class TestUnreadKeys:
    @pytest.mark.parametrize("what", READ)
    def test_are_none_where_a_pod_reads_them(self, what: str) -> None:
        """In whichever way a pod can take a key of a Secret."""
        assert unread_keys(["DATABASE_URL"], [READ[what]], "shop-secrets") == []

    @pytest.mark.parametrize("what", UNREAD)
    def test_are_those_that_no_pod_reads(self, what: str) -> None:
        """A pod would start without it, and not get ready."""
        assert unread_keys(["DATABASE_URL"], [UNREAD[what]], "shop-secrets") == ["DATABASE_URL"]

    def test_are_none_of_the_manifests_that_ship(self) -> None:
        """The service's pods get what the service needs, and optional secrets, too."""
        objects = yaml.safe_load_all((ROOT / "k8s/base/backend.yaml").read_text(encoding="utf-8"))
        names = [secret.name for secret in service_secrets()]
        assert unread_keys([*names, "OTHER"], objects, f"{NAME}-secrets") == ["OTHER"]


class TestSecretObject:
    def test_is_encoded(self) -> None:
        """As the API has it: a text that is sent as `stringData` would stay when it is taken out."""
        secret = secret_object("shop", {"TOKEN": "ü"})
        assert base64.b64decode(secret["data"]["TOKEN"]).decode() == "ü"


class TestPodMark:
    def test_says_which_tokens_its_pod_accepts(self) -> None:
        """Behind the fingerprint, which any secret changes."""
        rotated = {**HERE, "SERVICE_TOKEN": "another", "SERVICE_TOKEN_PREVIOUS": HERE["SERVICE_TOKEN"]}
        fingerprint, _, tokens = pod_mark(rotated).partition(" ")
        assert fingerprint == secrets_fingerprint(rotated)
        assert tokens == Tokens("another", HERE["SERVICE_TOKEN"]).mark


class TestFingerprint:
    def test_changes_with_a_secret_and_with_nothing_else(self) -> None:
        """What no pod reads is no reason to roll."""
        assert secrets_fingerprint(HERE) == secrets_fingerprint({**HERE, "POSTGRES_SUPERUSER_PASSWORD": "another"})
        assert secrets_fingerprint(HERE) != secrets_fingerprint({**HERE, "SERVICE_TOKEN": "another"})
        assert secrets_fingerprint(HERE) != secrets_fingerprint({**HERE, "POSTGRES_USER": "shop-other"})
        assert secrets_fingerprint(HERE, ["REDIS_PASSWORD"]) == secrets_fingerprint(
            {**HERE, "SERVICE_TOKEN": "x"}, ["REDIS_PASSWORD"]
        )
