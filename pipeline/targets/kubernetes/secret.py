"""The Secret of the service: made from `.env` for a cluster on this machine, and elsewhere there before a deploy."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets as randomness
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.config.secrets import SERVICE_SECRETS, SUPERUSER_PASSWORD, owner_of, redis_acl
from pipeline.engines.kubectl import Kubectl, Object, name_of

__all__ = [
    "ROLE",
    "SECRETS_ANNOTATION",
    "fingerprint",
    "missing_keys",
    "needed_keys",
    "read_secret",
    "secret_name",
    "secret_object",
    "secret_values",
    "unread_urls",
]

SECRETS_ANNOTATION = "slipway/secrets"
OPTIONAL = ("JWT_SECRET_KEY_PREVIOUS",)
REDIS_ACL = "REDIS_ACL"
URLS = ("DATABASE_URL", "REDIS_URL")  # each would win over what the overlay's settings name
ROLE = "POSTGRES_USER"  # whose password it is, where that is not who the overlay says


def needed_keys(objects: Iterable[Object]) -> list[str]:
    """The keys that OBJECTS need of the Secret: PostgreSQL's own and Redis' users only where these are among them."""
    sets = {name_of(one) for one in objects if one["kind"] == "StatefulSet"}
    keys = [name for name in SERVICE_SECRETS if name not in OPTIONAL]
    return [*keys, *([SUPERUSER_PASSWORD] if "postgres" in sets else []), *([REDIS_ACL] if "redis" in sets else [])]


def secret_name(service: str) -> str:
    """What the Secret of SERVICE is called."""
    return f"{service}-secrets"


def read_secret(kubectl: Kubectl, name: str) -> dict[str, str]:
    """What the Secret NAME of the cluster holds; empty where there is none."""
    found = kubectl.get("secret", name)
    data: Mapping[str, str] = (found[0].get("data") or {}) if found else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def secret_values(
    keys: Iterable[str], here: Mapping[str, str], there: Mapping[str, str], *, roles: tuple[str, str] = ("", "")
) -> dict[str, str]:
    """The values of KEYS from the secrets of `.env` (HERE); what only the cluster knows (THERE) stays.

    ROLES: who logs in by the overlay, and by `.env`: the second of the two roles has to be in the Secret.
    """
    values = {name: here.get(name, "") for name in (*keys, *OPTIONAL) if name in SERVICE_SECRETS}
    if SUPERUSER_PASSWORD in keys:
        values[SUPERUSER_PASSWORD] = there.get(SUPERUSER_PASSWORD) or randomness.token_urlsafe(36)
    of_overlay, of_env = roles
    if of_overlay != of_env and owner_of(of_overlay) == owner_of(of_env):
        values[ROLE] = of_env
    if REDIS_ACL in keys:
        values[REDIS_ACL] = redis_acl(values["REDIS_PASSWORD"])
    return values


def secret_object(service: str, values: Mapping[str, str]) -> Object:
    """The Secret of SERVICE that holds VALUES."""
    labels = {"app.kubernetes.io/part-of": service, "app.kubernetes.io/managed-by": "slipway"}
    metadata = {"name": secret_name(service), "labels": labels}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def missing_keys(keys: Iterable[str], there: Mapping[str, str], kubectl: Kubectl, name: str) -> list[str]:
    """A line for each of KEYS that the Secret NAME lacks, with the command that mends it."""
    base = " ".join(kubectl.command())
    create = f"{base} create secret generic {name}"
    return [
        f"Secret {name} in namespace {kubectl.namespace} has no {key}:"
        f" `{'' if there else f'{create}; '}{base} patch secret {name} --patch-file=/dev/stdin"
        f""" <<< '{{"stringData": {{"{key}": "…"}}}}'` (or the component external-secrets)"""
        for key in keys
        if not there.get(key)
    ]


def unread_urls(there: Mapping[str, str], objects: Iterable[Object], kubectl: Kubectl, name: str) -> list[str]:
    """Give a line for each URL of a store in `there`, the Secret `name`, that no pod of `objects` reads."""
    base = " ".join(kubectl.command())
    objects = list(objects)
    return [
        f"Secret {name} in namespace {kubectl.namespace} has {key}, which no pod reads, so that the service would use"
        f" what the overlay's settings name: take it out of the Secret: `{base} patch secret {name} --type=json"
        f""" --patch='[{{"op": "remove", "path": "/data/{key}"}}]'` (and of the vault, with external-secrets)"""
        for key in URLS
        if there.get(key) and not _reads(objects, name, key)
    ]


def _reads(value: Any, secret: str, key: str) -> bool:
    """Say whether anything in `value` takes `key` of `secret`: a variable, `envFrom`, or a volume."""
    if isinstance(value, list):
        return any(_reads(one, secret, key) for one in value)
    if not isinstance(value, dict):
        return False
    variable, every, volume = (value.get(one) for one in ("secretKeyRef", "secretRef", "secret"))
    if isinstance(variable, dict) and (variable.get("name"), variable.get("key")) == (secret, key):
        return True
    if isinstance(every, dict) and every.get("name") == secret:
        return True
    # A volume names it by `secretName`, a source of a projected one by `name`; without items it has all the keys.
    if isinstance(volume, dict) and secret in (volume.get("secretName"), volume.get("name")):
        items = volume.get("items")
        if not items or any(one.get("key") == key for one in items):
            return True
    return any(_reads(one, secret, key) for one in value.values())


def fingerprint(values: Mapping[str, str], names: Iterable[str] = SERVICE_SECRETS) -> str:
    """Changes with any of the secrets NAMES and tells none: they are random and of 32 bytes and more."""
    known = {name: values.get(name, "") for name in names}
    if ROLE in values and "POSTGRES_PASSWORD" in known:
        known[ROLE] = values[ROLE]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
