"""What a server of another major beside the one that serves needs: its claim, and Jobs for its roles and its data."""

from __future__ import annotations

import json

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.engines.kubectl import Object, name_of
from pipeline.targets.kubernetes.job import add_secret, job_of, with_image
from pipeline.targets.kubernetes.moves import COPY_OF
from pipeline.targets.kubernetes.store import NAME, Store

__all__ = ["claim_of", "emptying", "image_of", "roles_copy", "template_of"]

EMPTY_SECONDS = 600  # a large copy takes a while to go
# What is dumped stays in this pod: it has hashes of passwords, and others keep its log. A role that is there, as the
# superuser is, fails to be made, and is set up as all others are.
ROLES = f"""\
export PGPASSWORD="$(cat /run/secrets/{SUPERUSER_PASSWORD})" PGUSER=postgres PGPORT="${{POSTGRES_PORT:-5432}}"
dumped="$(pg_dumpall --roles-only --host="$POSTGRES_HOST")"
new="psql --no-psqlrc --quiet --set=VERBOSITY=terse --host=$1 --dbname=postgres"
printf '%s\\n' "$dumped" | grep '^CREATE ROLE ' | $new >/dev/null 2>&1 || true
printf '%s\\n' "$dumped" | grep -v '^CREATE ROLE ' | $new --set=ON_ERROR_STOP=1 >/dev/null
"""
# Not `lost+found`, which is root's.
EMPTY = "find /data -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +"


def image_of(store: Object) -> str:
    """Return the image of PostgreSQL that a StatefulSet runs."""
    return Store.of(store).image


def template_of(store: Object) -> Object | None:
    """Return the template of the claim that has the data of a StatefulSet; None where it is no template's."""
    claim = Store.of(store).claim
    templates = store["spec"].get("volumeClaimTemplates") or ()
    return next((one for one in templates if f"{name_of(one)}-{name_of(store)}-0" == claim), None)


def claim_of(store: Object, origin: str) -> Object:
    """Return the claim that the StatefulSet `store` would make for its data, marked as a copy of the claim `origin`."""
    template = template_of(store)
    assert template is not None
    metadata = {
        "name": Store.of(store).claim,
        # As the StatefulSet gives them: by these, `down --volumes` and `doctor` find it.
        "labels": {**template["metadata"].get("labels", {}), **store["spec"]["selector"]["matchLabels"]},
        "annotations": {COPY_OF: origin},
    }
    spec = json.loads(json.dumps(template["spec"]))
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def emptying(store: Object, name: str) -> Object:
    """Return the Job `name` that removes what is in the claim of `store`, with the rights of that one's pod."""
    template: Object = json.loads(json.dumps(store["spec"]["template"]))
    spec = template["spec"]
    server = next((one for one in spec["containers"] if one["name"] == NAME), spec["containers"][0])
    labels = {
        **store["metadata"].get("labels", {}),
        "app.kubernetes.io/name": "empty-postgres",
        "app.kubernetes.io/component": "try",  # which nobody reaches, and reaches nobody
    }
    container = {
        "name": "empty",
        "image": server["image"],
        "imagePullPolicy": server.get("imagePullPolicy", "IfNotPresent"),
        "command": ["sh", "-ec", EMPTY],
        "securityContext": server.get("securityContext", {}),
        "resources": server.get("resources", {}),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spec |= {
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": Store.of(store).claim}}],
        "restartPolicy": "Never",
    }
    spec.pop("initContainers", None)
    template["metadata"] = {"labels": labels}
    job = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": EMPTY_SECONDS,
        "ttlSecondsAfterFinished": 60,
        "template": template,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": job}


def roles_copy(manifest: Object, image: str, name: str, host: str) -> Object:
    """Return the migrations' `manifest` as the Job `name`: it copies the roles to the server at `host`."""
    job = with_image(job_of(manifest, name, "sh", host), image)
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-ec", ROLES]
    add_secret(job, SUPERUSER_PASSWORD)
    return job
