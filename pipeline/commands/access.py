"""How a job of GitHub Actions gets into a cluster: a kubeconfig of the context that the environment names.

With KUBERNETES_SERVER (and KUBERNETES_CA, where no public authority vouches for it) the cluster trusts GitHub itself:
each call of kubectl brings a token that GitHub has signed for this job, good for minutes, and there is no secret. Else
KUBECONFIG_CONTENT, a secret, is a kubeconfig that was made by hand.

Run as a program this is kubectl's credential plugin: it prints such a token.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.config.project import Environment
from pipeline.errors import SlipwayError, UsageError
from pipeline.system.files import write_whole

__all__ = ["credential", "write_kubeconfig"]

EXEC = "client.authentication.k8s.io/v1"
TIMEOUT_SECONDS = 10
WHERE = "Settings › Environments › {}"


def write_kubeconfig(env: Environment, environ: Mapping[str, str]) -> str:
    """Write the file that KUBECONFIG names, mode 0600, and say which way it leads. Raises `UsageError`."""
    where, place = WHERE.format(env.name), environ.get("KUBECONFIG", "")
    if env.context is None:
        raise UsageError(f"{env.name} is not on Kubernetes: nothing to get into")
    if not place:
        raise UsageError("KUBECONFIG: not set: the file to write; your own is not touched")
    server, content = environ.get("KUBERNETES_SERVER", ""), environ.get("KUBECONFIG_CONTENT", "")
    if server:
        if "ACTIONS_ID_TOKEN_REQUEST_URL" not in environ:
            raise UsageError("there is no token of GitHub here: the job needs the permission `id-token: write`")
        content = json.dumps(_trusting(env, server, environ.get("KUBERNETES_CA", "")))
        how = f"{server}, as this job of GitHub, by its token"
    elif content:
        how = "with the secret KUBECONFIG"
    else:
        raise UsageError(
            f"nothing says how to get into {env.name}: set the variable KUBERNETES_SERVER (and KUBERNETES_CA), or the"
            f" secret KUBECONFIG, under {where}: see docs/8-github.md"
        )
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{content.rstrip()}\n")
    return f"context {env.context}: {how}"


def _trusting(env: Environment, server: str, authority: str) -> dict[str, Any]:
    ca = {"certificate-authority-data": authority} if authority else {}
    root = str(Path(__file__).parents[2])
    plugin = {
        "apiVersion": EXEC,
        "command": sys.executable,
        "args": ["-m", "pipeline.commands.access", server],
        "env": [{"name": "PYTHONPATH", "value": root}],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": env.name, "cluster": {"server": server, **ca}}],
        "users": [{"name": "github", "user": {"exec": plugin}}],
        "contexts": [{"name": env.context, "context": {"cluster": env.name, "user": "github"}}],
        "current-context": env.context,
    }


def credential(audience: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What kubectl takes: a token of GitHub for AUDIENCE. Raises `SlipwayError`."""
    try:
        url = f"{environ['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={quote(audience, safe='')}"
        headers = {"Authorization": f"Bearer {environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the runner's own address
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            token = json.load(answer)["value"]
    except KeyError as error:
        raise SlipwayError(f"no token of GitHub here ({error.args[0]}): `id-token: write` is missing") from None
    except (OSError, ValueError) as error:
        raise SlipwayError(f"GitHub gave no token: {error}") from None
    return {"apiVersion": EXEC, "kind": "ExecCredential", "status": {"token": token}}


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(credential(sys.argv[1], os.environ)))
    except SlipwayError as error:
        sys.exit(error.problems[0])
