"""`nox -s cluster`: a Kubernetes cluster on this machine."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

from pipeline.commands import Verbs
from pipeline.config.project import Project
from pipeline.engines.kind import CONTEXT, EDGE_PORT, REGISTRY, Cluster
from pipeline.errors import UsageError
from pipeline.releases.lock import hold_lock
from pipeline.system.progress import Progress

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)


def add_parsers(verbs: Verbs) -> None:
    add = verbs.add("cluster", cluster, "create or remove a Kubernetes cluster on this machine, with kind").add_argument
    add("action", nargs="?", choices=("up", "down"), default="up", help="up by default")
    add("--all", action="store_true", help="with `down`: even if another service is in it")
    add("--monitoring", action="store_true", help="with `up`: Prometheus and Alertmanager, too")
    add("--gateway-api", type=Path, metavar="FILE", help="the Gateway API's manifest, if GitHub cannot be reached")


def cluster(project: Project, options: Namespace, progress: Progress) -> None:
    """Set up a kind cluster and a registry, ready for `deploy -- kind`, or remove all of it.

    Services of this template share one: it is removed only where no other is in it, or with `--all`.
    """
    if options.monitoring and options.action == "down":
        raise UsageError("--monitoring goes with `up`: `down` removes it with the cluster")
    kind = Cluster(project.root, project.name, progress, monitoring=options.monitoring)
    # Not the project's lock: another project may be at the same cluster.
    with hold_lock(Path.home() / ".kube" / f"{CONTEXT}.lock"):
        if options.action == "down":
            log.info("removed all of it" if kind.down(everything=options.all) else "there was nothing to remove")
            return
        changed = kind.up(options.gateway_api)
    log.info(
        f"{'ready' if changed else 'already up to date'}: context {CONTEXT}, registry {REGISTRY},"
        f" edge 127.0.0.1:{EDGE_PORT}"
    )
    log.info("next: nox -s deploy -- kind")
