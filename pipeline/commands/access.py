"""`nox -s access`: a kubeconfig for a job of GitHub Actions, for the context that the environment names.

With KUBERNETES_SERVER (and KUBERNETES_CA, unless a public authority vouches for it) the cluster trusts GitHub itself:
each call of kubectl brings a token that GitHub signed for this job and that is good for minutes, so there is no secret.
Otherwise KUBECONFIG_CONTENT, a secret, is a kubeconfig that was made by hand.

Run as a program, this module is kubectl's credential plugin: it prints such a token.
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import json
import logging
import os
import sys
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline.commands import Verbs
from pipeline.errors import SlipwayError, UsageError
from pipeline.system.files import write_whole

if TYPE_CHECKING:  # kubectl starts this module with each call: only what that needs is imported
    from pipeline.config.project import Project
    from pipeline.system.progress import Progress

__all__ = ["add_parsers", "write_kubeconfig"]

log = logging.getLogger(__name__)

EXEC = "client.authentication.k8s.io/v1"
TIMEOUT_SECONDS = 10


def add_parsers(verbs: Verbs) -> None:
    verbs.add("access", access, "write a kubeconfig for an environment, in a job of GitHub Actions", env=True)


def access(project: Project, options: Namespace, _: Progress) -> None:
    """Write the kubeconfig of an environment from what the GitHub job is given."""
    # The models of pyproject.toml load slowly, and kubectl runs this module for each call.
    from pipeline.config.project import KubernetesEnvironment

    env = project.environment(options.env)
    if not isinstance(env, KubernetesEnvironment):
        raise UsageError(f"{env.name} is not on Kubernetes: it needs no kubeconfig")
    log.info(write_kubeconfig(env.name, env.context, os.environ))


def write_kubeconfig(name: str, context: str, environ: Mapping[str, str]) -> str:
    """Write the file that KUBECONFIG names, mode 0600, and return one line: the `context`, and how it gets access.

    `name` is the environment's. Raise `UsageError` where `environ` lacks what is needed; nothing is written then.
    """
    place = environ.get("KUBECONFIG", "")
    if not place:
        raise UsageError("KUBECONFIG: not set: name the file to write; your own is not touched")
    server, content = environ.get("KUBERNETES_SERVER", ""), environ.get("KUBECONFIG_CONTENT", "")
    if server:
        if "ACTIONS_ID_TOKEN_REQUEST_URL" not in environ:
            raise UsageError("GitHub offers no token here: the job needs the permission `id-token: write`")
        content = json.dumps(_trusting(name, context, server, environ.get("KUBERNETES_CA", "")))
        how = f"{server}, as this GitHub job, with its token"
    elif content:
        how = "with the secret KUBECONFIG"
    else:
        raise UsageError(
            f"no access to {name} is configured: set the variable KUBERNETES_SERVER (and KUBERNETES_CA), or the"
            f" secret KUBECONFIG, under Settings › Environments › {name}: see docs/8-github.md"
        )
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{content.rstrip()}\n")
    return f"context {context}: {how}"


def _trusting(name: str, context: str, server: str, authority: str) -> dict[str, Any]:
    ca = {"certificate-authority-data": authority} if authority else {}
    plugin = {
        "apiVersion": EXEC,
        "command": sys.executable,
        "args": ["-m", "pipeline.commands.access", server],
        "env": [{"name": "PYTHONPATH", "value": str(Path(__file__).parents[2])}],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, **ca}}],
        "users": [{"name": "github", "user": {"exec": plugin}}],
        "contexts": [{"name": context, "context": {"cluster": name, "user": "github"}}],
        "current-context": context,
    }


def _credential(audience: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the `ExecCredential` that kubectl expects, with a token of GitHub for `audience`.

    Raise `SlipwayError` where GitHub gives none.
    """
    try:
        url = f"{environ['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={quote(audience, safe='')}"
        headers = {"Authorization": f"Bearer {environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the runner's own address
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            token = json.load(answer)["value"]
    except KeyError as error:
        raise SlipwayError(
            f"GitHub offers no token here (no {error.args[0]}): the job needs `id-token: write`"
        ) from None
    except (OSError, ValueError) as error:
        raise SlipwayError(f"GitHub did not issue a token: {error}") from None
    return {"apiVersion": EXEC, "kind": "ExecCredential", "status": {"token": token}}


if __name__ == "__main__":
    try:
        if not sys.argv[1:]:
            raise UsageError("usage: python -m pipeline.commands.access SERVER; kubectl runs it, see docs/8-github.md")
        sys.stdout.write(json.dumps(_credential(sys.argv[1], os.environ)))
    except SlipwayError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
