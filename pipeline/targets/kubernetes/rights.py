"""The roles of the PostgreSQL in the cluster: a Job makes them as the superuser, whose password the Secret has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_hex

from pipeline.config.logins import Logins, apart, brought_over, logins_of
from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.config.settings import OWNER_PASSWORD, set_in_env
from pipeline.targets.common.rights import bring_over
from pipeline.targets.kubernetes.job import MigrateJob, superuser_psql
from pipeline.targets.kubernetes.rehearsal import store_image
from pipeline.targets.kubernetes.release import Release, settings_of
from pipeline.targets.kubernetes.secret import OWNER, ROLE, read_secret, secret_object, unread_keys
from pipeline.targets.kubernetes.site import Site
from pipeline.targets.kubernetes.store import find_store

__all__ = ["logins_in_cluster", "run_as_superuser", "see_to_roles"]

VAULT = "reconcile.external-secrets.io/"  # begins the labels and annotations of a Secret that an operator fills


def see_to_roles(site: Site, release: Release) -> None:
    """Make the roles of the database that runs in the cluster; where the owner serves, give the service a login."""
    if find_store(release.manifests) is None or not site.secrets.get(SUPERUSER_PASSWORD):
        return
    settings = settings_of(release.manifests)
    root, database = site.project.root, settings.get("POSTGRES_DB", site.project.name)
    stays = _needs_owner(site)
    if site.on_this_machine:
        logins = logins_of(site.values, site.project.name)
        lines = {} if stays else brought_over(root, logins)
        write: Callable[[Mapping[str, str]], object] = partial(set_in_env, root)
    else:
        logins = logins_in_cluster(site.secrets, settings.get(ROLE, site.project.name))
        lines = {} if stays or site.env.secrets or _is_filled(site) else apart(logins)
        write = partial(_patch, site)
    if not bring_over(root, database, logins, partial(run_as_superuser, site, release), lines=lines, write=write):
        return
    if site.on_this_machine:
        site.read_values()
        site.secrets = site.secrets_of_env(release.manifests)
        site.kubectl.apply([secret_object(site.project.name, site.secrets)])
    else:
        site.secrets = read_secret(site.kubectl, site.secret)


def run_as_superuser(site: Site, release: Release, sql: str) -> str:
    """Run `sql` in the database, by a Job from the image that `release` has of PostgreSQL; return its output."""
    image, manifest = store_image(release.manifests, "postgres"), release.objects(["Job"])[0]
    job = superuser_psql(manifest, image, f"rights-{token_hex(3)}")
    return MigrateJob(site.kubectl, job, lambda _: None, "the Job of the roles").do(job, "rights", sql)


def logins_in_cluster(secrets: Mapping[str, str], default: str) -> Logins:
    """Return who logs in according to the Secret; `default` is the overlay's user."""
    user, password, owner = secrets.get(ROLE) or default, secrets.get("POSTGRES_PASSWORD", ""), secrets.get(OWNER, "")
    if owner:
        return Logins(user, password, owner, secrets.get(OWNER_PASSWORD, ""), apart=True)
    return Logins(user, password, user, password, apart=False)


def _needs_owner(site: Site) -> str | None:
    """Return a kept release whose pods log in as the overlay's user, whatever the Secret says; None without one."""
    names = [name for name in site.records.retained(site.project.retain) if site.kept.knows(name)]
    releases = [(name, site.kept.find(name).objects(["Deployment"])) for name in names]
    return next((name for name, deployments in releases if unread_keys([ROLE], deployments, site.secret)), None)


def _is_filled(site: Site) -> bool:
    """Return whether an operator fills the Secret, and would undo a change."""
    [secret] = site.kubectl.get("secret", site.secret) or [{"metadata": {}}]
    metadata = secret["metadata"]
    marks = (*metadata.get("labels", {}), *metadata.get("annotations", {}))
    return bool(metadata.get("ownerReferences")) or any(mark.startswith(VAULT) for mark in marks)


def _patch(site: Site, values: Mapping[str, str]) -> None:
    """Put `values` into the Secret."""
    patch = json.dumps({"stringData": dict(values)})
    site.kubectl.do("patch", "secret", site.secret, "--patch-file=/dev/stdin", given=patch)
