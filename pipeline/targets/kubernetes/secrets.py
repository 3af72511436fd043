"""The secrets of a Kubernetes environment: from this machine, the cluster's Secret, or the vault that fills it."""

from __future__ import annotations

import json
import secrets as randomness
import time
from collections.abc import Mapping
from typing import Any

from pipeline.config.managed import PASSWORDS
from pipeline.config.secrets import REDIS_ACL, REDIS_ADMIN, SUPERUSER_PASSWORD, redis_acl
from pipeline.config.settings import SECRET_BYTES
from pipeline.config.sources import OWNER, ROLE
from pipeline.engines.kubectl import Object, name_of
from pipeline.errors import SlipwayError
from pipeline.system.text import shorten
from pipeline.system.waiting import attempts
from pipeline.targets.common.rights import password_sql
from pipeline.targets.common.secrets import SecretsHere, lifetime_minutes
from pipeline.targets.kubernetes.release import NOTHING_YET, settings_of
from pipeline.targets.kubernetes.rights import logins_in_cluster, run_as_superuser
from pipeline.targets.kubernetes.secret import read_secret
from pipeline.targets.kubernetes.site import Site

__all__ = ["KubernetesSecrets"]

OURS = "--field-manager=slipway"  # so that the next apply has no conflict
REFRESH_SECONDS = 60


class KubernetesSecrets(SecretsHere):
    """See `pipeline.targets.common.roles.Secrets`."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.project, site.env)
        self.site = site
        self._rendered: list[Object] = []

    def read(self) -> dict[str, str]:
        """Read them where they come from; the roles that only the overlay names, there."""
        site = self.site
        if site.on_this_machine:
            return super().read()
        settings = settings_of(self._objects())
        owner = {OWNER: settings[OWNER]} if settings.get(OWNER) else {}
        given = read_secret(site.kubectl, site.secret)
        if site.env.secrets:
            given = site.env.secrets.read(site.project.root, site.env.name)
        return {ROLE: settings.get(ROLE, site.project.name), **owner, **given}

    def objection(self, name: str) -> str | None:
        """Object to the password of a store that others manage, or that nobody here can change."""
        if name == SUPERUSER_PASSWORD:
            return self._by_hand()
        url = PASSWORDS.get(name, "")
        if self.read().get(url):
            return f"{name}: the store is managed by others: its password is in {url}: change it there, then deploy"
        kind = {"POSTGRES_PASSWORD": "postgres", "POSTGRES_OWNER_PASSWORD": "postgres", "REDIS_PASSWORD": "redis"}.get(
            name
        )
        if kind and kind not in {name_of(one) for one in self._objects() if one["kind"] == "StatefulSet"}:
            what = f"{self.site.env.overlay} runs no {kind}, whose password nobody here may change"
            return f"{name}: {what}: change it there, put it where the secrets come from, then deploy"
        return None

    def elsewhere(self, name: str) -> str | None:
        """Say so where a vault fills the Secret, or a command without `write` gives the secrets."""
        if self.site.delivers:
            return super().elsewhere(name)
        vaults = self._vaults()
        return f"the vault that ExternalSecret {vaults[0]} reads" if vaults else None

    def refresh(self) -> None:
        """Let the External Secrets Operator read the vault now, instead of within its `refreshInterval`."""
        for vault in self._vaults() if not self.site.delivers else ():
            self._refresh(vault)

    def _refresh(self, vault: str) -> None:
        kubectl, place = self.site.kubectl, f"externalsecret.external-secrets.io/{vault}"
        before = _status(kubectl.get(place)).get("refreshTime")
        kubectl.do("annotate", place, f"force-sync={time.time_ns()}", "--overwrite")
        status: Mapping[str, Any] = {}
        for _ in attempts(REFRESH_SECONDS, every=0.5):
            status = _status(kubectl.get(place))
            ready = [one for one in status.get("conditions", ()) if one["type"] == "Ready"]
            if status.get("refreshTime") != before and ready and ready[0]["status"] == "True":
                return
        said = "; ".join(one.get("message", "") for one in status.get("conditions", ())) or "it says nothing"
        raise SlipwayError(f"ExternalSecret {vault} was not refreshed in {REFRESH_SECONDS} s: {shorten(said)}")

    def write(self, changes: Mapping[str, str]) -> None:
        """Write to `.env`, give the values to the command, or patch the Secret, by standard input."""
        site = self.site
        if site.delivers:
            super().write(changes)
            return
        there = read_secret(site.kubectl, site.secret)
        given: dict[str, str | None] = {name: value or None for name, value in changes.items()}
        if REDIS_ACL in there and "REDIS_PASSWORD" in changes:
            admin = there.get(REDIS_ADMIN) or randomness.token_urlsafe(SECRET_BYTES)
            given |= {REDIS_ADMIN: admin, REDIS_ACL: redis_acl(changes["REDIS_PASSWORD"], admin)}
        gone = {"data": {name: None for name, value in given.items() if value is None and name in there}}
        patch = {**gone, "stringData": {name: value for name, value in given.items() if value is not None}}
        command = ("patch", "secret", site.secret, OURS, "--type=merge", "--patch-file=/dev/stdin")
        site.kubectl.do(*command, given=json.dumps(patch))
        after = read_secret(site.kubectl, site.secret)
        if lost := [name for name, value in changes.items() if after.get(name, "") != value]:
            raise SlipwayError(f"Secret {site.secret}: {', '.join(lost)}: somebody else has changed it since")

    def set_password(self, role: str, password: str | None) -> None:
        """Run psql as the superuser, in a Job from the image of the overlay's PostgreSQL."""
        site, serving = self.site, self.site.serving()
        if not serving:
            raise SlipwayError(f"no release serves {site.env.name}: `nox -s deploy -- {site.env.name}`")
        release, values = site.kept.find(serving[0]), self.read()
        database = settings_of(release.manifests).get("POSTGRES_DB", site.project.name)
        logins = logins_in_cluster(values, values[ROLE])
        run_as_superuser(site, release, password_sql(site.project.root, database, logins, role, password))

    def change_superuser(self) -> None:
        """Refuse it: `objection` says why."""
        raise SlipwayError(self._by_hand())

    def _by_hand(self) -> str:
        return f"{SUPERUSER_PASSWORD}: on Kubernetes an administrator changes it: docs/4-runbook.md, New secrets"

    def lifetime_minutes(self) -> float:
        """Return the overlay's setting."""
        return lifetime_minutes(settings_of(self._objects()))

    def _vaults(self) -> list[str]:
        return [name_of(one) for one in self._objects() if one["kind"] == "ExternalSecret"]

    def _objects(self) -> list[Object]:
        self._rendered = self._rendered or self.site.artifacts.render(NOTHING_YET)[1]
        return self._rendered


def _status(found: list[Object]) -> Mapping[str, Any]:
    return (found[0].get("status") or {}) if found else {}
