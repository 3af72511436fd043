"""The Secret of the service."""

from __future__ import annotations

import base64

import pytest

from pipeline.targets.kubernetes.kubectl import Kubectl
from pipeline.targets.kubernetes.secret import fingerprint, missing_keys, needed_keys, secret_object, secret_values

HERE = {name: f"{name.lower()}-of-the-env-file" for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET_KEY", "SERVICE_TOKEN")}  # fmt: skip # noqa: E501
STORES = [{"kind": "StatefulSet", "metadata": {"name": name}} for name in ("postgres", "redis")]


class TestNeededKeys:
    def test_are_the_stores_own_only_where_they_are(self) -> None:
        """A database outside needs no superuser of ours."""
        assert "POSTGRES_SUPERUSER_PASSWORD" not in needed_keys([])
        assert {"POSTGRES_SUPERUSER_PASSWORD", "REDIS_ACL"} < set(needed_keys(STORES))


class TestSecretValues:
    def test_keep_what_only_the_cluster_knows(self) -> None:
        """The superuser's password is made once."""
        first = secret_values(needed_keys(STORES), HERE, {})
        again = secret_values(needed_keys(STORES), HERE, first)
        assert again == first
        assert len(first["POSTGRES_SUPERUSER_PASSWORD"]) > 32

    @pytest.mark.parametrize(("of_env", "role"), [("shop", None), ("shop-other", "shop-other"), ("another", None)])
    def test_say_whose_the_password_is_where_it_was_rotated(self, of_env: str, role: str | None) -> None:
        """The second of the two roles that own the database; any other name of `.env` is another target's."""
        values = secret_values(needed_keys(STORES), HERE, {}, roles=("shop", of_env))
        assert values.get("POSTGRES_USER") == role

    def test_hold_the_hash_of_redis_password_alone_for_redis(self) -> None:
        """Its file of users is read by its process, and tells nothing."""
        assert HERE["REDIS_PASSWORD"] not in secret_values(needed_keys(STORES), HERE, {})["REDIS_ACL"]


class TestMissingKeys:
    def test_name_the_key_and_the_command_that_mends_it(self) -> None:
        """Without a value in it: it comes through standard input."""
        [line] = missing_keys(["A", "B"], {"A": "x"}, Kubectl("production", "shop", lambda _: None), "shop-secrets")
        assert line.startswith("Secret shop-secrets in namespace shop has no B: `kubectl --context=production")
        assert "patch secret shop-secrets --patch-file=/dev/stdin" in line


class TestSecretObject:
    def test_is_encoded(self) -> None:
        """As the API has it: a text that is sent as `stringData` would stay when it is taken out."""
        secret = secret_object("shop", {"TOKEN": "ü"})
        assert base64.b64decode(secret["data"]["TOKEN"]).decode() == "ü"


class TestFingerprint:
    def test_changes_with_a_secret_and_with_nothing_else(self) -> None:
        """What no pod reads is no reason to roll."""
        assert fingerprint(HERE) == fingerprint({**HERE, "POSTGRES_SUPERUSER_PASSWORD": "another"})
        assert fingerprint(HERE) != fingerprint({**HERE, "SERVICE_TOKEN": "another"})
        assert fingerprint(HERE) != fingerprint({**HERE, "POSTGRES_USER": "shop-other"})
        assert fingerprint(HERE, ["REDIS_PASSWORD"]) == fingerprint({**HERE, "SERVICE_TOKEN": "x"}, ["REDIS_PASSWORD"])
