"""A service of parcels, in the place of the example's domain: parcels change after they were written, and stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.deploy.checkout import Checkout

__all__ = ["DOMAIN", "PARCELS", "REQUESTS", "SYNTHETIC", "replace_the_domain", "set_requests"]

PARCELS = Path(__file__).parent
REQUESTS = PARCELS / "requests.toml"
DOMAIN = "backend/domain.py"
REMOVED = ("[[tool.slipway.requests", "[tool.slipway.bench", "[[tool.slipway.bench")
SYNTHETIC = "SELECT count(*) FROM parcels WHERE synthetic"


def replace_the_domain(checkout: Checkout) -> None:
    """Put the service of parcels into a clone: its routes, its migration, its requests."""
    versions = checkout.root / "backend/migrations/versions"
    for path in versions.glob("[0-9]*.py"):
        path.unlink()
    shutil.copy(PARCELS / "first_migration.py", versions / "0001_parcels.py")
    shutil.copy(PARCELS / "domain.py", checkout.root / DOMAIN)
    set_requests(checkout, REQUESTS.read_text(encoding="utf-8"))


def set_requests(checkout: Checkout, table: str) -> None:
    """Replace the table of requests in pyproject.toml."""
    kept, others = [], True
    for line in (checkout.root / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        others = not line.startswith(REMOVED) if line.startswith("[") else others
        kept += [line] if others else []
    checkout.write("pyproject.toml", "\n".join([*kept, table]))
