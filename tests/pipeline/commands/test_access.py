"""How a job of GitHub Actions gets into a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.commands.access import write_kubeconfig
from pipeline.errors import UsageError
from tests.played import Answer, serving

STAGING = ("staging", "mine")
SERVER = "https://cluster.example.com:6443"


def test_a_cluster_that_trusts_github_gets_a_token_of_this_job(tmp_path: Path) -> None:
    """Kubectl is sent to a program that asks GitHub for one, for this cluster; nothing secret is in the file."""
    asked = []

    def answer(_method: str, target: str, headers: Mapping[str, str], _body: bytes) -> Answer:
        asked.append((target, headers["Authorization"]))
        return 200, {}, json.dumps({"value": "a.signed.token"}).encode()

    with serving(answer) as port:
        given = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{port}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-runner",
        }
        path = tmp_path / "folder/kubeconfig"
        said = write_kubeconfig(*STAGING, {**given, "KUBECONFIG": str(path), "KUBERNETES_SERVER": SERVER})
        assert said == f"context mine: {SERVER}, as this GitHub job, with its token"
        assert path.stat().st_mode & 0o777 == 0o600
        assert "of-the-runner" not in path.read_text()
        config = json.loads(path.read_text())
        assert (config["current-context"], config["clusters"][0]["cluster"]) == ("mine", {"server": SERVER})
        plugin = config["users"][0]["user"]["exec"]
        environ = {"PATH": os.environ["PATH"], **given, **{one["name"]: one["value"] for one in plugin["env"]}}
        done = subprocess.run([plugin["command"], *plugin["args"]], env=environ, cwd=tmp_path, capture_output=True,
                              text=True, check=True)  # fmt: skip
    assert json.loads(done.stdout)["status"] == {"token": "a.signed.token"}
    [(place, authorization)] = asked
    assert place.endswith("&audience=https%3A%2F%2Fcluster.example.com%3A6443")
    assert authorization == "Bearer of-the-runner"


def test_a_secret_is_the_second_choice(tmp_path: Path) -> None:
    """A kubeconfig that was made by hand, written as it is, for nobody else to read."""
    path = tmp_path / "kubeconfig"
    write_kubeconfig(*STAGING, {"KUBECONFIG": str(path), "KUBECONFIG_CONTENT": "kind: Config"})
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("kind: Config\n", 0o600)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"KUBECONFIG": "x"}, "set the variable KUBERNETES_SERVER .* under Settings › Environments › staging"),
        ({"KUBECONFIG": "x", "KUBERNETES_SERVER": SERVER}, "the job needs the permission `id-token: write`"),
        ({"KUBERNETES_SERVER": SERVER}, "KUBECONFIG: not set: .* your own is not touched"),
    ],
)
def test_what_is_missing_is_named_with_where_to_set_it(environ: dict[str, str], says: str) -> None:
    """Nothing is written."""
    with pytest.raises(UsageError, match=says):
        write_kubeconfig(*STAGING, environ)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([SERVER], 1, "GitHub offers no token here (no ACTIONS_ID_TOKEN_REQUEST_URL): the job needs `id-token: write`"),
        ([], 2, "usage: python -m pipeline.commands.access SERVER; kubectl runs it, see docs/8-github.md"),
    ],
)
def test_without_a_token_kubectl_is_told_why(arguments: list[str], code: int, says: str) -> None:
    """One line, and no traceback."""
    command = [sys.executable, "-m", "pipeline.commands.access", *arguments]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"{says}\n")
