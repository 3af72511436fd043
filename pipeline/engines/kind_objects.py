"""What the administrator of the kind cluster applies: by which command line, and only where something differs."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from pathlib import Path

from pipeline.errors import SlipwayError
from pipeline.system.run import CommandFailed, run
from pipeline.system.text import shorten

__all__ = ["CLUSTER", "CONTEXT", "apply", "apply_command", "differs", "essence", "kubectl_command", "rendered"]

log = logging.getLogger(__name__)

CLUSTER = "slipway"
CONTEXT = f"kind-{CLUSTER}"
APPLY_SECONDS = 180


def kubectl_command(*arguments: str) -> list[str]:
    """Return the command line of kubectl for this cluster, whatever the current context is."""
    return ["kubectl", f"--context={CONTEXT}", *arguments]


def apply_command(verb: str) -> list[str]:
    """Return the command line of a server-side `verb` (`apply` or `diff`) for what comes on standard input.

    Hand edits are taken over.
    """
    # Client-side apply copies an object into an annotation, and a CRD of the Gateway API is too large for one.
    server_side = ("--server-side", "--force-conflicts", "--field-manager=slipway-cluster")
    return kubectl_command(verb, *server_side, "--filename=-")


def rendered(folder: Path) -> str:
    """Return what the kustomization in `folder` renders to, which may take files from above it."""
    try:
        command = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
        return run(command, level=logging.DEBUG, timeout=APPLY_SECONDS)
    except CommandFailed as error:
        raise SlipwayError(f"{folder}: {essence(error.output)}") from error


def differs(manifest: str) -> bool:
    """Return whether the cluster lacks something of `manifest`."""
    environ = {**os.environ, "KUBECTL_EXTERNAL_DIFF": "diff -q"}
    # 1 is a difference. It also exits with more for an object whose namespace does not exist yet.
    return bool(_given(apply_command("diff"), manifest, environ).returncode)


def apply(manifest: str, what: str) -> None:
    """Apply `manifest`, of `what`. Raise `SlipwayError` with what the API server says against it."""
    log.info(f"$ {' '.join(apply_command('apply'))}  # {what}")
    done = _given(apply_command("apply"), manifest, dict(os.environ))
    if done.returncode:
        raise SlipwayError(f"{what} could not be applied: {essence(done.stderr)}")


def _given(command: list[str], manifest: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=manifest, env=environ, capture_output=True, text=True, check=False, timeout=APPLY_SECONDS
    )


def essence(said: str) -> str:
    """Return the line that says why: kind and kubectl put it after `ERROR:` or `error:`."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.lower().startswith("error")]
    return shorten(re.sub(r"^error: ", "", (telling or lines or ["it said nothing"])[0], flags=re.IGNORECASE))
