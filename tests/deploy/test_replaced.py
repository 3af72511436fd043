"""A team puts its own service in the example's place, as docs/2-your-own-service.md says, and everything is green."""

from __future__ import annotations

import shutil

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.parcels import DOMAIN, PARCELS, REQUESTS
from tests.deploy.sessions import run_session
from tests.notes import replace_requests
from tests.tools import need

pytestmark = pytest.mark.e2e

NEW = "parcel-desk"
EXAMPLE = ("backend/releases", "backend/environments", "tests/backend/releases", "tests/backend/environments")
TEST = '''"""Parcels from outside."""

from __future__ import annotations

import httpx2


async def test_a_parcel_is_handed_in_and_sent(writer: httpx2.AsyncClient) -> None:
    """It has a status from the start, and keeps its id."""
    handed_in = await writer.post("/parcels", json={"number": "AB123456789CD"})
    assert handed_in.status_code == 201
    sent = await writer.patch(f"/parcels/{handed_in.json()['id']}", json={"status": "sent"})
    assert sent.json() == {**handed_in.json(), "status": "sent"}
'''


def replace_the_example(checkout: Checkout) -> None:
    """Follow the steps of the page."""
    shutil.copy(PARCELS / "domain.py", checkout.root / DOMAIN)
    migration = (PARCELS / "first_migration.py").read_text(encoding="utf-8")
    migration = migration.replace('revision = "0001"', 'revision = "0003"')
    migration = migration.replace("down_revision = None", 'down_revision = "0002"')
    checkout.write("backend/migrations/versions/0003_parcels.py", migration)
    replace_requests(
        checkout.root, f'{REQUESTS.read_text(encoding="utf-8")}\n[tool.slipway.bench]\n"list parcels" = 0.01\n'
    )
    for folder in EXAMPLE:
        shutil.rmtree(checkout.root / folder)
    (checkout.root / "tests/page/test_board.py").unlink()
    shutil.rmtree(checkout.root / "bare")
    checkout.write("tests/backend/parcels/__init__.py", "")
    checkout.write("tests/backend/parcels/test_parcels.py", TEST)
    for folder in EXAMPLE:
        checkout.patch("pyproject.toml", f'    "{folder}",\n', "")
    checkout.patch(
        "pyproject.toml", '    "backend/domain.py",\n', '    "backend/domain.py",\n    "tests/backend/parcels",\n'
    )


def test_a_replaced_domain_is_green(own: Checkout, add_row: AddRow) -> None:
    """Lint, test, the story on `local` and Compose, the image and the benchmark; no other test was edited."""
    need("docker compose")
    assert own.run("rename", NEW).code == 0
    own.commit()
    replace_the_example(own)
    own.commit()
    for session in (("lint",), ("test",), ("e2e", "--", "own"), ("image",), ("bench", "--", "--rounds", "1")):
        done = run_session(own, *session)
        assert done.code == 0, f"{session}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        add_row("a replaced domain", f"nox -s {' '.join(session):24} {done.seconds:5.0f} s")
    edited = own.git("diff", "--name-only", "--diff-filter=M", "HEAD~1", "--", "tests").split()
    assert edited == []
