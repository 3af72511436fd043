"""The Secret of the service: made from `.env` for a cluster on this machine; elsewhere it exists before a deploy."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets as randomness
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pipeline.config.logins import owner_of
from pipeline.config.managed import FILES, PASSWORDS
from pipeline.config.secrets import REDIS_ACL, REDIS_ADMIN, SUPERUSER_PASSWORD, redis_acl
from pipeline.config.settings import OWNER_PASSWORD, URLS, needed_secrets, service_secrets
from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.targets.common.tokens import Tokens
from pipeline.targets.kubernetes.store import find_store

__all__ = [
    "OWNER",
    "ROLE",
    "SECRETS_ANNOTATION",
    "doubled_secret",
    "doubled_stores",
    "missing_keys",
    "needed_beside",
    "needed_keys",
    "pod_mark",
    "read_secret",
    "secret_name",
    "secret_object",
    "secret_values",
    "secrets_fingerprint",
    "unread_keys",
    "unread_urls",
]

SECRETS_ANNOTATION = "slipway/secrets"
BACKUP_SECRETS = ("BACKUP_IDENTITY", "BACKUP_ADDRESS_SECRET")  # of components/backup, where they are needed
ROLE = "POSTGRES_USER"  # the role whose password it is, where it is not the overlay's
OWNER = "POSTGRES_OWNER"


def needed_keys(objects: Iterable[Object], urls: Collection[str] = ()) -> list[str]:
    """Return the keys that `objects` need in the Secret, which has those of `urls`, too.

    PostgreSQL's own password and Redis' users are needed only where these stores are among the objects, and the
    password of a store only where no URL has it.
    """
    objects = list(objects)
    sets = {name_of(one) for one in objects if one["kind"] == "StatefulSet"}
    return [
        *needed_beside(needed_secrets(), urls),
        *([SUPERUSER_PASSWORD] if find_store(objects) else []),
        *([REDIS_ACL] if "redis" in sets else []),
    ]


def needed_beside(names: Iterable[str], urls: Collection[str]) -> list[str]:
    """Return those of the secrets `names` that are needed beside `urls`."""
    return [name for name in names if PASSWORDS.get(name) not in urls]


def doubled_stores(urls: Iterable[str], objects: Iterable[Object], overlay: str) -> list[str]:
    """Return a line for each of `urls` whose store the `overlay` runs itself."""
    objects = list(objects)
    runs = {name_of(one) for one in objects if one["kind"] == "StatefulSet"}
    runs |= {"postgres"} if find_store(objects) else set()  # it may have a major in its name
    stores = {"DATABASE_URL": "postgres", "REDIS_URL": "redis"}
    return [
        f"{url}: {overlay} runs {stores[url]} itself, and nobody would use it: take components/{stores[url]} out of its"
        f" kustomization.yaml, or {url} out of the secrets"
        for url in urls
        if stores.get(url) in runs
    ]


def doubled_secret(objects: Iterable[Object], overlay: str, secret: str) -> list[str]:
    """Return a line for each ExternalSecret among `objects`, which would undo what a deploy writes to the `secret`."""
    return [
        f"{overlay}: ExternalSecret {name_of(each)} fills Secret {secret}, and so would `secrets` in pyproject.toml:"
        " take components/external-secrets out, or `secrets`"
        for each in objects
        if each["kind"] == "ExternalSecret"
    ]


def secret_name(service: str) -> str:
    """Return the name of the Secret of `service`."""
    return f"{service}-secrets"


def read_secret(kubectl: Kubectl, name: str) -> dict[str, str]:
    """Return what the Secret `name` of the cluster holds; empty where there is none."""
    secrets = kubectl.get("secret", name)
    data: Mapping[str, str] = (secrets[0].get("data") or {}) if secrets else {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def secret_values(
    keys: Iterable[str],
    here: Mapping[str, str],
    there: Mapping[str, str],
    *,
    roles: tuple[str, str] = ("", ""),
    owner: str = "",
) -> dict[str, str]:
    """Return the values of `keys` from the secrets of `.env` (`here`); what only the cluster knows (`there`) stays.

    `roles`: who logs in according to the overlay, and according to `.env`; where these are roles of one owner, that of
    `.env` has to be in the Secret. `owner`: who migrates, according to `.env`, where it is not who logs in.
    """
    values = {secret.name: here.get(secret.name, "") for secret in service_secrets()}
    values |= {name: here[name] for name in (*FILES, *BACKUP_SECRETS) if here.get(name)}
    if SUPERUSER_PASSWORD in keys:
        values[SUPERUSER_PASSWORD] = there.get(SUPERUSER_PASSWORD) or randomness.token_urlsafe(36)
    of_overlay, of_env = roles
    if of_overlay != of_env and owner_of(of_overlay) == owner_of(of_env):
        values[ROLE] = of_env
    if owner:
        values[OWNER] = owner
    if REDIS_ACL in keys:
        values[REDIS_ADMIN] = there.get(REDIS_ADMIN) or randomness.token_urlsafe(36)
        values[REDIS_ACL] = redis_acl(values["REDIS_PASSWORD"], values[REDIS_ADMIN])
    return values


def secret_object(service: str, values: Mapping[str, str]) -> Object:
    """Return the Secret of `service` that holds `values`."""
    labels = {"app.kubernetes.io/part-of": service, "app.kubernetes.io/managed-by": "slipway"}
    metadata = {"name": secret_name(service), "labels": labels}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def missing_keys(
    keys: Iterable[str], there: Mapping[str, str], kubectl: Kubectl, name: str, objects: Iterable[Object]
) -> list[str]:
    """Return a line for each of `keys` that the Secret `name` lacks, with the command that adds it.

    Where an ExternalSecret among `objects` fills the Secret, that is where a key has to be put.
    """
    base = " ".join(kubectl.command())
    create = f"{base} create secret generic {name}"
    vault = next((name_of(one) for one in objects if one["kind"] == "ExternalSecret"), None)
    lines = []
    for key in [key for key in keys if not there.get(key)]:
        if vault:
            fix = f"put it into the vault that ExternalSecret {vault} reads (docs/7-kubernetes.md, Secrets)"
        else:
            patch = f"{'' if there else f'{create}; '}{base} patch secret {name} --patch-file=/dev/stdin"
            fix = f"""`{patch} <<< '{{"stringData": {{"{key}": "…"}}}}'` (or the component external-secrets)"""
        lines.append(f"Secret {name} in namespace {kubectl.namespace} has no {key}: {fix}")
    return lines


def unread_urls(there: Mapping[str, str], objects: Iterable[Object], kubectl: Kubectl, name: str) -> list[str]:
    """Return a line for each URL of a store in `there`, the Secret `name`, that no pod of `objects` reads."""
    base = " ".join(kubectl.command())
    objects = list(objects)
    return [
        f"Secret {name} in namespace {kubectl.namespace} has {key}, which no pod reads, so that the service would use"
        f" what the overlay's settings name: remove it from the Secret: `{base} patch secret {name} --type=json"
        f""" --patch='[{{"op": "remove", "path": "/data/{key}"}}]'` (and from the vault, with external-secrets)"""
        for key in URLS
        if there.get(key) and not _reads(objects, name, key)
    ]


def unread_keys(keys: Iterable[str], objects: Iterable[Object], name: str) -> list[str]:
    """Return those of `keys` that no pod of `objects` takes from the Secret `name`."""
    objects = list(objects)
    return [key for key in keys if not _reads(objects, name, key)]


def _reads(value: Any, secret: str, key: str) -> bool:
    """Return whether anything in `value` takes `key` of `secret`: a variable, `envFrom`, or a volume."""
    if isinstance(value, list):
        return any(_reads(one, secret, key) for one in value)
    if not isinstance(value, dict):
        return False
    variable, every, volume = (value.get(one) for one in ("secretKeyRef", "secretRef", "secret"))
    if isinstance(variable, dict) and (variable.get("name"), variable.get("key")) == (secret, key):
        return True
    if isinstance(every, dict) and every.get("name") == secret:
        return True
    # A volume names the Secret by `secretName`, a source of a projected one by `name`; without items it has all keys.
    if isinstance(volume, dict) and secret in (volume.get("secretName"), volume.get("name")):
        items = volume.get("items")
        if not items or any(one.get("key") == key for one in items):
            return True
    return any(_reads(one, secret, key) for one in value.values())


def pod_mark(values: Mapping[str, str]) -> str:
    """Return what a pod of the service carries: a fingerprint of its secrets, then the marks of its tokens."""
    return f"{secrets_fingerprint(values)} {Tokens.of(values).mark}"


def secrets_fingerprint(values: Mapping[str, str], names: Iterable[str] | None = None) -> str:
    """Return a fingerprint that changes with any of the secrets `names`, by default the service's, and reveals none."""
    # A hash reveals none of them because they are random and have 32 bytes or more.
    service = names is None
    names = [secret.name for secret in service_secrets()] if names is None else names
    known = {name: values.get(name, "") for name in names}
    if service:
        known |= {name: values[name] for name in FILES if values.get(name) and name != OWNER_PASSWORD}
    if ROLE in values and "POSTGRES_PASSWORD" in known:
        known[ROLE] = values[ROLE]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
