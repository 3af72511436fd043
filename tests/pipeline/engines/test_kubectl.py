"""The kubectl command line: which errors may heal, and which are the user's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipeline.engines.kubectl import Kubectl, Refused, Unreachable

# What kubectl 1.37 printed.
AWAY = (
    "The connection to the server 127.0.0.1:38513 was refused - did you specify the right host or port?",
    "Unable to connect to the server: net/http: TLS handshake timeout",
    'E1124 16:41:57 memcache.go:265] couldn\'t get current server API group list: Get "https://127.0.0.1:1/api": EOF',
    "Error from server: etcdserver: request timed out",
    'error: error validating "STDIN": error validating data: unknown; if you choose to ignore these errors, …',
    "error: You must be logged in to the server (Unauthorized)",
)
FORBIDDEN = (
    'Error from server (Forbidden): pods is forbidden: User "system:serviceaccount:slipway:deployer" cannot list'
    ' resource "pods" in API group "" in the namespace "other"'
)


def kubectl(folder: Path, said: str, code: int) -> Kubectl:
    """A kubectl that says SAID on standard error and ends with CODE: the cluster is the outside world here."""
    path = folder / "kubectl"
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Kubectl("kind-slipway", "slipway")


class TestAsk:
    @pytest.mark.parametrize("said", AWAY)
    def test_knows_an_api_server_that_is_away(self, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same call may succeed in a second."""
        one = kubectl(tmp_path, said, 1)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(Unreachable, match="cannot be reached"):
            one.ask("get", "pods")

    def test_gives_the_reason_of_a_refusal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Waiting does not help: the line says why."""
        one = kubectl(tmp_path, FORBIDDEN, 1)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(Refused, match=r"kubectl get: .*deployer.* cannot list") as caught:
            one.ask("get", "pods")
        assert caught.value.said.strip() == FORBIDDEN


class TestCommand:
    def test_names_context_and_namespace_always(self) -> None:
        """Whatever the user's current context is."""
        command = Kubectl("production", "shop").command("get", "pods")
        assert command == ["kubectl", "--context=production", "--namespace=shop", "get", "pods"]


class TestItems:
    @pytest.mark.parametrize(
        ("said", "count"), [("", 0), ('{"kind": "Pod"}', 1), ('{"kind": "PodList", "items": []}', 0)]
    )
    def test_are_a_list_whatever_kubectl_says(self, said: str, count: int) -> None:
        """Nothing, one object, a list of them."""
        assert len(Kubectl.items(said)) == count
