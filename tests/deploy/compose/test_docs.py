"""The pages' blocks that need Docker and nothing more, in a clone with another name."""

from __future__ import annotations

import secrets

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.test_docs import follow
from tests.pages import PAGES, Block, blocks

pytestmark = pytest.mark.e2e

NOX = Block("README.md", 0, "sh", "pip install --quiet nox", "")
READ = [block for page in PAGES for block in blocks(page) if block.language == "sh" and block.needs == "Docker"]


def test_a_renamed_clone_ships_as_the_page_says(own: ComposeCheckout) -> None:
    """Containers, images and labels carry the new name, the database too."""
    name = f"renamed-{secrets.token_hex(3)}"
    own.environ["PROJECT_NAME"] = name  # as it will be called by itself: what the fixture has to remove
    assert own.run("rename", name).code == 0
    own.commit()
    del own.environ["PROJECT_NAME"]
    try:
        assert READ
        for block in (NOX, *READ):
            done = follow(own, block)
            assert done.code == 0, f"{block}: {done}"
    finally:
        own.environ["PROJECT_NAME"] = name
    [postgres] = own.containers("postgres")
    assert postgres == f"{name}-postgres-1"
    role = f"SELECT usename FROM pg_stat_activity WHERE datname = '{name}' AND usename <> 'postgres' LIMIT 1"
    assert own.sql(role) == f"{name}-app-1"
    image = own.inspect(own.containers("backend")[0])["Image"]
    labels = docker("inspect", "--format", "{{json .Config.Labels}}", image)
    assert f'"org.opencontainers.image.title":"{name}"' in labels
    assert own.untidy() == []
