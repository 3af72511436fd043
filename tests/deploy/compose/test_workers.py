"""A worker in docker-compose.yml: another process of the release, which is rolled, watched and taken back with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.conftest import AddRow

pytestmark = pytest.mark.e2e

FILE = "docker-compose.yml"
TABLE = "compose: a worker"
WORKER = """
  worker:
    <<: *service
    image: ${BACKEND_IMAGE:-${PROJECT_NAME:-slipway}-backend:dev}
    entrypoint: ["python", "-m", "backend.worker"]
    environment: *settings
    secrets: [POSTGRES_PASSWORD]
    networks: [backend]
    healthcheck: { disable: true }
    stop_grace_period: 10s

  mail:
    image: redis:8-trixie
    networks: [backend]

networks:
"""
CODE = '''"""A worker that works."""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
{}
while True:
    time.sleep(0.2)
'''


@pytest.fixture(scope="module")
def working(deployed: ComposeCheckout) -> ComposeCheckout:
    """The module's clone, with a worker that is proved."""
    path = deployed.root / FILE
    path.write_text(path.read_text().replace("\nnetworks:\n", WORKER, 1))
    (deployed.root / "backend/worker.py").write_text(CODE.format(""))
    deployed.commit()
    deployed.proved()
    return deployed


@pytest.fixture
def tree(working: ComposeCheckout) -> Iterator[ComposeCheckout]:
    """Its files are as committed before and after."""
    yield working
    working.restore()


def worker(one: ComposeCheckout) -> tuple[str, str]:
    """Its container's ID, and the release that it is of."""
    [name] = one.containers("worker")
    facts = one.inspect(name)
    return facts["Id"], facts["Config"]["Labels"]["slipway.release"]


def test_it_is_rolled_with_the_release(tree: ComposeCheckout) -> None:
    """It runs the image that answers; status shows it; a service of another image is left alone, and said."""
    old, release = worker(tree)
    assert {release} == tree.answering()
    tree.change("a new release")
    outcome = tree.proved()
    new, release = worker(tree)
    assert (release, new != old) == (outcome.release, True)
    assert "`mail` does not run the release's image, so a deploy leaves it alone" in outcome.stderr
    assert tree.containers("mail") == []
    [shown] = json.loads(tree.run("status", "--json").stdout)["workers"]
    assert (shown["release"], shown["ready"]) == (release, True)
    tree.commit()
    tree.proved()


CRASHES = {
    "ends at once": "raise RuntimeError('no queue')",
    "ends while it is proved": "time.sleep(6)\nraise OSError('no queue')",
}


@pytest.mark.parametrize("name", CRASHES)
def test_one_that_crashes_takes_the_release_back(name: str, tree: ComposeCheckout, add_row: AddRow) -> None:
    """The old worker runs again, and the reason is its last words."""
    _, release = worker(tree)
    tree.configure(bake_seconds=8)
    (tree.root / "backend/worker.py").write_text(CODE.format(CRASHES[name]))
    outcome = tree.deploy()
    tree.configure(bake_seconds=3)
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "no queue" in outcome.reason, str(outcome)
    assert worker(tree)[1] == release
    assert tree.untidy() == []
    add_row(TABLE, f"{name:35} undone in {outcome.seconds:4.1f} s: {outcome.reason[:90]}")


def test_one_that_is_gone_is_found_and_started(tree: ComposeCheckout) -> None:
    """`doctor` names it, and the next deploy of the same release mends it."""
    docker("rm", "--force", worker(tree)[0])
    said = tree.run("doctor")
    assert (said.code, "worker" in said.stderr) == (1, True), said.stderr
    outcome = tree.deploy()
    assert outcome.code == 0, str(outcome)
    assert worker(tree)[1] in tree.answering()


def test_one_that_the_release_has_no_more_is_removed(tree: ComposeCheckout) -> None:
    """And comes back with the release that has it."""
    path = tree.root / FILE
    text = path.read_text()
    path.write_text(text[: text.index("  worker:\n")] + text[text.index("  mail:\n") :])
    tree.change("no worker")
    tree.proved()
    assert tree.containers("worker") == []
    path.write_text(text)
    tree.restore()
    tree.proved()
    assert worker(tree)[1] in tree.answering()
