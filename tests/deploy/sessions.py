"""Sessions of nox in a clone, with the environments that are installed here."""

from __future__ import annotations

import shutil

import uv

from tests.deploy.checkout import ROOT, Checkout
from tests.deploy.runs import Outcome

__all__ = ["nox_command", "run_apart", "run_session"]

MINUTES = 20


def nox_command() -> list[str]:
    """Return the command that is nox: the one on the PATH, else one that uv fetches."""
    found = shutil.which("nox")
    return [found] if found else [uv.find_uv_bin(), "tool", "run", "--quiet", "nox"]


def run_session(checkout: Checkout, *arguments: str) -> Outcome:
    """Run `nox --session ARGUMENTS` in the clone."""
    if not (checkout.root / ".nox").exists():
        (ROOT / ".nox").mkdir(exist_ok=True)
        with (checkout.root / ".git/info/exclude").open("a", encoding="utf-8") as exclude:
            exclude.write(".nox\n")
        (checkout.root / ".nox").symlink_to(ROOT / ".nox")
    return run_apart(checkout, *nox_command(), "--session", *arguments)


def run_apart(checkout: Checkout, *command: str) -> Outcome:
    """Run `command` in the clone, without what its deploys are told in their environment."""
    plain = ["env", *(word for name in checkout.environ for word in ("-u", name))]
    return checkout.start_program([*plain, *command]).finish(MINUTES * 60)
