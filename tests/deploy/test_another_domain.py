"""A team keeps the pipeline and replaces the service that comes with it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout

pytestmark = pytest.mark.e2e

DOMAIN = Path(__file__).parent / "domain"
DEPLOYED_BY = ("pipeline", "noxfile.py", "requirements")


def _replace_the_domain(checkout: Checkout) -> None:
    """Replace the release board in `backend/` with a service of two routes and a table of its own."""
    backend = checkout.root / "backend"
    for folder in ("releases", "environments", "migrations/versions"):
        shutil.rmtree(backend / folder)
    (backend / "migrations/versions").mkdir()
    shutil.copy(DOMAIN / "first_migration.py", backend / "migrations/versions/0001_notes.py")
    shutil.copy(DOMAIN / "notes.py", backend / "notes.py")
    app = (backend / "app.py").read_text(encoding="utf-8")
    app = re.sub(r"(?m)^from backend\.(?:releases|environments)\b.*\n", "", app)
    app = re.sub(r"(?m)^ *app\.state\.environments = .*\n", "", app)
    app = re.sub(r"app\.state\.releases = .*", "app.state.notes = Notes(database)", app)
    app = re.sub(r",? ?\b(?:releases|environments)\b(?:\.\w+)?(?=[,)])", "", app)
    app = app.replace(
        "from backend.settings", "from backend.notes import Notes, router as notes\nfrom backend.settings"
    )
    app = app.replace("    openapi.install(app)\n", "    openapi.install(app)\n    app.include_router(notes)\n")
    (backend / "app.py").write_text(app, encoding="utf-8")
    project = (checkout.root / "pyproject.toml").read_text(encoding="utf-8")
    before, _, rest = project.partition("[[tool.slipway.requests]]")
    after = rest[rest.index("\n[tool.ruff]") :]
    checkout.write("pyproject.toml", before + (DOMAIN / "requests.toml").read_text(encoding="utf-8") + after)


def test_another_domain_ships_with_an_unchanged_pipeline(checkout: Checkout) -> None:
    """Two routes, one table and two `[[tool.slipway.requests]]`: deployed, changed, deployed, and no request failed."""
    _replace_the_domain(checkout)
    first = checkout.proved()
    assert first.traffic["writes_acknowledged"] > 0
    assert checkout.request("GET", "/notes/welcome").json() == {"text": "write something"}
    assert checkout.request("PUT", "/notes/mine", token=True, json={"text": "hello"}).status_code == 204
    checkout.patch("backend/notes.py", '"""One note; a welcome', '"""One note, or a welcome')
    second = checkout.proved()
    assert set(second.traffic["by_release"]) == {first.release, second.release}
    answer = checkout.request("GET", "/notes/mine")
    assert (answer.json(), answer.headers["x-release"]) == ({"text": "hello"}, second.release)
    assert checkout.sql("SELECT count(*) FROM notes") == 1, "what the proof wrote was removed"
    assert checkout.git("status", "--porcelain", "--", *DEPLOYED_BY) == ""
