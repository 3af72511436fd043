"""What tests ask of Prometheus, Alertmanager and a store of logs that run in the cluster."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from pipeline.engines.kind import CONTEXT
from pipeline.engines.kind_objects import CLUSTER
from tests.containers import docker
from tests.deploy.machine import wait_until

__all__ = ["Watched", "forwarded", "load"]


@contextmanager
def forwarded(namespace: str, what: str, number: int) -> Iterator[str]:
    """The address on this machine that leads to port NUMBER of WHAT (`service/prometheus`) while the block runs."""
    command = ["kubectl", f"--context={CONTEXT}", f"--namespace={namespace}", "port-forward", what, f":{number}"]
    # Not to a pipe: kubectl has a line for each connection, and would stand still once nobody reads the next one.
    with tempfile.TemporaryFile("a+") as told, subprocess.Popen(command, stdout=told) as process:

        def port() -> str | None:
            told.seek(0)
            found = re.search(r"127\.0\.0\.1:(\d+)", told.read())
            return found[1] if found else None

        try:
            yield f"http://127.0.0.1:{wait_until(port, 'the port is forwarded')}"
        finally:
            process.terminate()


def load(*images: str) -> None:
    """Copy those of IMAGES that this machine has to the nodes, which pull the rest."""
    for image in images:
        if "no such" not in docker("image", "inspect", "--format={{.Id}}", image, check=False).lower():
            command = ["kind", "load", "docker-image", "--name", CLUSTER, image]
            subprocess.run(command, check=True, capture_output=True, timeout=300)


class Watched:
    """A Prometheus and its Alertmanager, by their addresses."""

    def __init__(self, prometheus: str, alertmanager: str) -> None:
        self.prometheus, self.alertmanager = prometheus, alertmanager

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that EXPRESSION has now: labels and value."""
        answer = httpx2.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=10)
        assert answer.status_code == 200, answer.text
        found = answer.json()["data"]["result"]
        return [{**one["metric"], "value": float(one["value"][1])} for one in found]

    def targets(self) -> list[tuple[str, str, str]]:
        """Job, address and health of each target; with why it is not up."""
        found = httpx2.get(f"{self.prometheus}/api/v1/targets?state=active", timeout=10).json()["data"]["activeTargets"]
        return [(one["labels"]["job"], one["scrapeUrl"], one["lastError"] or one["health"]) for one in found]

    def alerts(self) -> set[str]:
        """The names of the alerts that Alertmanager has."""
        found = httpx2.get(f"{self.alertmanager}/api/v2/alerts?active=true", timeout=10).json()
        return {one["labels"]["alertname"] for one in found}
