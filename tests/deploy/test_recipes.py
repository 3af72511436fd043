"""docs/12-recipes.md, deployed: a secret that reaches the process, a package more, and a worker beside the requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.machine import wait_until
from tests.deploy.sessions import nox_command
from tests.recipes import RECIPES, Monitor, follow, monitor

pytestmark = pytest.mark.e2e

TOKEN = "a-token-that-the-monitor-knows"
LINE = ".env: PULSE_TOKEN: is missing; `nox -s init` adds its line to .env, for you to fill in"


@pytest.fixture(name="listening")
def _listening() -> Iterator[Monitor]:
    with monitor() as one:
        yield one


def _lock(checkout: Checkout) -> None:
    """Run `nox -s lock`, which asks the index."""
    done = checkout.start_program([*nox_command(), "--session", "lock"]).finish(600)
    assert done.code == 0, str(done)


def _reports(listening: Monitor, count: int = 5) -> None:
    """Wait for `count` more reports; each has the token of `.env`."""
    wanted = len(listening.tokens) + count
    wait_until(lambda: len(listening.tokens) >= wanted, f"no reports: {listening}", 30)
    assert set(listening.tokens) == {f"Bearer {TOKEN}"}


def test_the_four_recipes_ship(checkout: Checkout, listening: Monitor) -> None:
    """From the page to a proved release, back, and forth; each secret that is missing is said in the plan."""
    first = checkout.proved()
    follow(checkout.root, *RECIPES)
    assert checkout.run("settings", "--write").code == 0
    assert checkout.run("init").code == 0
    _lock(checkout)

    # Before anything is built, and what serves stays.
    refused = checkout.deploy()
    assert (refused.code, refused.stdout) == (2, ""), str(refused)
    assert any(line.startswith(LINE) for line in refused.problems()), refused.stderr
    assert checkout.answering() == {first.release}

    checkout.set_env(PULSE_URL=listening.url, PULSE_TOKEN=TOKEN, PULSE_SECONDS="0.2")
    second = checkout.proved()
    assert "changes packages requirements/backend.txt" in second.stderr
    assert TOKEN not in second.stderr + second.stdout
    _reports(listening)
    assert checkout.untidy() == []

    # Two replicas at least, and three while they are exchanged: the lock lets one report at a time.
    listening.seconds = 0.1
    checkout.change("beside a worker that works")
    checkout.proved()
    _reports(listening)
    assert listening.most == 1

    # Without its code the secret is gone, too: what still needs it is not shipped.
    checkout.commit()
    checkout.git("revert", "--no-commit", "HEAD")
    checkout.change("without a worker")
    lines = (checkout.root / ".env").read_text(encoding="utf-8").splitlines(keepends=True)
    checkout.write(".env", "".join(line for line in lines if not line.startswith("PULSE_")))
    without = checkout.proved()
    assert "the release that serves could not be brought back: .env: PULSE_TOKEN: release" in without.stderr
    for arguments in (("rollback",), ("deploy", "--release", second.release)):
        refused = checkout.run(*arguments)
        assert refused.code == 2, str(refused)
        [line] = [line for line in refused.problems() if "PULSE_TOKEN" in line]
        assert "does not start without this secret: backend/settings.py does not declare it any more" in line
    assert checkout.answering() == {without.release}
    assert checkout.untidy() == []
