"""cd.yml with the cluster that it makes: nothing but GitHub's own services is played."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cluster import CLUSTER, CONTEXT, REGISTRY, cluster_problems
from pipeline.registry import resolve
from tests.conftest import AddRow
from tests.workflows.act import Checkout
from tests.workflows.conftest import Place
from tests.workflows.test_cd import ATTEST, TABLE, UPLOAD, attested

pytestmark = pytest.mark.e2e

GATEWAY_API = "SLIPWAY_TEST_GATEWAY_API"  # a manifest of it, for machines that do not reach GitHub


@pytest.fixture(name="with_cluster")
def _with_cluster(template: Path, tmp_path: Path) -> Iterator[Checkout]:
    """A clone whose run makes a cluster, which goes afterwards. Skips where kind is missing, or somebody's is there."""
    problems = cluster_problems()
    if problems:
        pytest.skip(problems[0])
    there = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout.split()
    if CLUSTER in there:
        pytest.skip("there is a cluster, and it may be dear to somebody: `nox -s cluster -- down`")
    one = Checkout.make(template, tmp_path, cluster=True, gateway_api=os.environ.get(GATEWAY_API))
    try:
        yield one
    finally:
        down = [sys.executable, "-m", "pipeline", "cluster", "down"]
        subprocess.run(down, cwd=one.root, env={**os.environ, "HOME": str(one.home)}, check=True, timeout=300)


def test_a_push_is_proved_in_a_cluster_of_the_runner(with_cluster: Checkout, place: Place, add_row: AddRow) -> None:
    """On a fresh clone with nothing configured: the pods run the digest that was pushed and signed."""
    done = place.run(with_cluster)
    assert done.code == 0, str(done)
    assert done.jobs["kind"] == "success"
    digest = attested(done)
    image = f"{REGISTRY}/slipway@{digest}"
    assert resolve(image).digest == digest
    asked = ["kubectl", f"--context={CONTEXT}", "--namespace=slipway", "get", "pods",
             "--selector=app.kubernetes.io/component=backend", "--output=jsonpath={..imageID}"]  # fmt: skip
    kept = {**os.environ, "HOME": str(with_cluster.home)}
    ran = subprocess.run(asked, env=kept, capture_output=True, text=True, check=True).stdout.split()
    assert set(ran) == {image}
    assert "0 failed" in done.summary or "none failed" in done.summary, done.summary
    assert (done.played("kind")[UPLOAD], done.played("kind")[ATTEST]) == (1, 1)
    add_row(TABLE, f"cd, a push, with a cluster  green in {done.seconds:3.0f} s: {digest[:19]}… is every pod's imageID")
