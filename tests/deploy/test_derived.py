"""The tests of the pipeline in a repository that a team made of the template: other code, the same tests."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.runs import Outcome
from tests.deploy.sessions import run_apart
from tests.tools import need

pytestmark = pytest.mark.e2e

DERIVED = Path(__file__).parent / "derived"
NEW = "parcel-desk"
SECRET = """
    carrier_key: SecretStr = _setting("secrets", "Key of the carrier.", ...)

    build_target: str = _setting("""
# In this process and as processes, on a database of their own.
CORE = ("tests/backend/test_middleware.py", "tests/backend/test_outages.py", "tests/backend/test_server.py",
        "tests/backend/test_workers.py", "tests/backend/test_settings.py", "tests/pipeline/config")  # fmt: skip


@pytest.fixture(name="derived")
def _derived(own: Checkout) -> Checkout:
    """Return a clone with another name, a secret that is required, and a text of its own in app.py."""
    own.patch("backend/settings.py", "\n    build_target: str = _setting(", SECRET)
    shutil.copy(DERIVED / "app.py", own.root / "backend/app.py")
    assert own.run("settings", "--write").code == 0
    own.commit()
    assert own.run("rename", NEW).code == 0
    own.commit()
    return own


def run_tests(derived: Checkout, *arguments: str) -> Outcome:
    """Run tests of the clone in the clone."""
    return run_apart(derived, sys.executable, "-m", "pytest", "-q", *arguments)


def test_the_tests_of_the_core_pass(derived: Checkout) -> None:
    """The settings, the middleware and the lifespan are the team's; the domain is the tests' own."""
    done = run_tests(derived, "-n", "2", *CORE)
    assert done.code == 0, done.stdout + done.stderr


def test_the_gate_passes_on_local(derived: Checkout) -> None:
    """Among it the story of the team's own service, with its secret, and a broken release that is undone."""
    done = run_tests(derived, "-m", "e2e and gate", "tests/deploy", "--ignore=tests/deploy/compose",
                     "--ignore=tests/deploy/kind")  # fmt: skip
    assert done.code == 0, done.stdout + done.stderr


def test_the_story_passes_on_compose(derived: Checkout) -> None:
    """In containers, where a secret is a file that is mounted."""
    need("docker compose")
    done = run_tests(derived, "-m", "own or gate", "tests/deploy/compose/test_own_service.py",
                     "tests/deploy/compose/test_story.py")  # fmt: skip
    assert done.code == 0, done.stdout + done.stderr
