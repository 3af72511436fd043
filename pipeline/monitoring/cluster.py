"""The exporter of a Kubernetes environment: what its deploys, backups and drills left in the cluster, as metrics.

`python -m pipeline.monitoring.cluster`, in a pod that has Python and what this imports. Its account may read two
ConfigMaps, and Jobs and pods of its namespace. A deploy leaves its facts in a ConfigMap, as does a backup on demand.
What the clock starts has no account, and leaves its Job, and what it found as the termination message of its pod.
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.monitoring.exposition import exposition
from pipeline.monitoring.http_exporter import serve

__all__ = ["BACKUP_FACTS", "DEPLOY_FACTS", "FACTS", "asked", "scrape", "stories"]

DEPLOY_FACTS, BACKUP_FACTS, FACTS = "deploy-facts", "backup-facts", "facts.json"  # the ConfigMaps, and their key
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
COMPONENT, JOB = "app.kubernetes.io/component", "batch.kubernetes.io/job-name"
SELECTOR = f"?labelSelector={COMPONENT}+in+(backup,drill)"
ANSWER_SECONDS = 4
Json = dict[str, Any]
Ask = Callable[[str], Json | None]


def asked(path: str) -> Json | None:
    """Return what the API server has at `path` of this pod's namespace; None where it has nothing."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    group, _, name = path.partition(":")
    space = (ACCOUNT / "namespace").read_text(encoding="utf-8")
    token = (ACCOUNT / "token").read_text(encoding="utf-8")  # the kubelet renews it
    address = f"https://{f'[{host}]' if ':' in host else host}:{port}/{group}/namespaces/{space}/{name}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=trusted) as answer:  # noqa: S310
            found: Json = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        if error.code == 404:  # noqa: PLR2004
            return None
        raise


def scrape(ask: Ask) -> str:
    """Return the metrics of now; nothing before the first deploy."""
    told = _facts(ask, DEPLOY_FACTS)
    if told is None:
        return ""
    jobs, pods = ask(f"apis/batch/v1:jobs{SELECTOR}") or {}, ask(f"api/v1:pods{SELECTOR}") or {}
    known = list(stories(jobs.get("items", ()), pods.get("items", ())))
    on_demand = _facts(ask, BACKUP_FACTS)
    return exposition(**told, stories=[*known, *([on_demand] if on_demand else ())])


def _facts(ask: Ask, name: str) -> Json | None:
    found = ask(f"api/v1:configmaps/{name}")
    facts: Json | None = json.loads(found["data"][FACTS]) if found else None
    return facts


def stories(jobs: Iterable[Json], pods: Iterable[Json]) -> Iterator[Json]:
    """Yield how each of the `jobs` that made a backup or was a drill ended, as a report would say it.

    What they found is the termination message of one of `pods`; a pod may be gone, its Job still says how it ended.
    """
    said = {pod["metadata"].get("labels", {}).get(JOB): pod for pod in pods}
    for job in jobs:
        kind = job["metadata"]["labels"][COMPONENT]
        ends = {one["type"]: one for one in job.get("status", {}).get("conditions", ()) if one["status"] == "True"}
        end = ends.get("Complete") or ends.get("Failed")
        container = job["spec"]["template"]["spec"]["containers"][0]
        if end is None or (kind == "backup" and container.get("args") != ["backup"]):  # a list, a restore …
            continue
        story = {
            "kind": kind,
            "started": job["status"]["startTime"],
            "finished": end["lastTransitionTime"],
            "verdict": {"backup": "done", "drill": "proved"}[kind] if "Complete" in ends else "failed",
        }
        found = _found(said.get(job["metadata"]["name"], {}))
        if kind == "drill":
            yield {**story, "rto_seconds": found.get("seconds"), "backup": found if "bytes" in found else None}
        else:  # without a message, of a pod that is gone, at least the time is known
            whole = {"snapshot": story["started"], **found} if story["verdict"] == "done" else None
            yield {**story, "backup": whole}


def _found(pod: Mapping[str, Any]) -> Json:
    """Return what the containers of `pod` left: of a backup its size and time, of a drill what was restored."""
    status = pod.get("status", {})
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        try:
            left = json.loads(one.get("state", {}).get("terminated", {}).get("message", ""))
        except ValueError:
            continue
        if isinstance(left, dict) and (found := left.get("drilled") or left.get("backup")):
            return dict(found)
    return {}


if __name__ == "__main__":
    serve(partial(scrape, asked))
