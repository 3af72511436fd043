"""A service of parcels, in the place of the example's domain: parcels change after they were written, and stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.deploy.checkout import Checkout
from tests.notes import replace_requests

__all__ = ["DOMAIN", "PARCELS", "REQUESTS", "SYNTHETIC", "replace_the_domain"]

PARCELS = Path(__file__).parent
REQUESTS = PARCELS / "requests.toml"
DOMAIN = "backend/domain.py"
SYNTHETIC = "SELECT count(*) FROM parcels WHERE synthetic"


def replace_the_domain(checkout: Checkout) -> None:
    """Put the service of parcels into a clone: its routes, its migration, its requests."""
    versions = checkout.root / "backend/migrations/versions"
    for path in versions.glob("[0-9]*.py"):
        path.unlink()
    shutil.copy(PARCELS / "first_migration.py", versions / "0001_parcels.py")
    shutil.copy(PARCELS / "domain.py", checkout.root / DOMAIN)
    replace_requests(checkout.root, REQUESTS.read_text(encoding="utf-8"))
