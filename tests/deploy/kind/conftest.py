"""One kind cluster for all tests below; where it cannot be had there is nothing to test, and the tests say so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines.kind import CLUSTER
from tests.containers import docker
from tests.deploy.checkout import ROOT
from tests.deploy.kind.stack import KindCheckout
from tests.tools import need

GATEWAY_API = "SLIPWAY_TEST_GATEWAY_API"  # a manifest of it, for machines that do not reach GitHub
KEEP = "SLIPWAY_TEST_CLUSTER"  # `keep`: use the cluster that is there, and leave it: for whoever writes a test


def cluster(*arguments: str) -> tuple[int, str]:
    """The exit code of `cluster`, and what it said."""
    file = ["--gateway-api", os.environ[GATEWAY_API]] if GATEWAY_API in os.environ and "down" not in arguments else []
    done = subprocess.run([sys.executable, "-m", "pipeline", "cluster", *arguments, *file],
                          cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(scope="session", name="made")
def _made() -> Iterator[str]:
    """A cluster for the session: what `nox -s cluster` said."""
    need("kind")
    there = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout.split()
    keep = os.environ.get(KEEP) == "keep"
    assert keep or CLUSTER not in there, "there is a cluster, and it may be dear to somebody: `nox -s cluster -- down`"
    code, output = cluster()
    assert code == 0, output
    yield output
    if not keep:
        code, output = cluster("down")
        assert code == 0, output
        left = docker("ps", "--all", "--quiet", "--filter", f"name=^{CLUSTER}-(registry|control-plane|worker)")
        assert left == ""


@pytest.fixture(scope="session")
def deployed(made: str, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindCheckout]:
    """A clone whose first release is proved and serves; all tests share it: a first deploy takes a minute."""
    assert made
    one = KindCheckout.make(template, tmp_path_factory.mktemp("kind") / "clone")
    one.proved()
    yield one
    one.remove(set())
    shutil.rmtree(one.root)


@pytest.fixture
def sound(deployed: KindCheckout) -> Iterator[KindCheckout]:
    """The clone, with the source and the manifests of the release that serves before and after."""
    yield deployed
    deployed.restore()
