"""README.md and docs/, followed to the letter by a user who renamed the template first."""

from __future__ import annotations

import json
import os
import sys

import pytest
import uv

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.runs import Outcome
from tests.pages import PAGES, Block, blocks
from tests.pipeline.proof.servers import Reply, Service

pytestmark = pytest.mark.e2e

NEW = "my-service"
READ = [block for page in PAGES for block in blocks(page) if block.language == "sh" and not block.needs]
MINUTES = 5
# `nox -s test` in full takes two cores a minute, and `.ci/run` has it twice: here only the tests that read names.
AFFORDABLE = "-k 'rename or manifests or settings or compose_file or releases or test_main or secret'"


@pytest.fixture(name="renamed")
def _renamed(own: Checkout) -> Checkout:
    """Return a clone with its new name, committed."""
    assert own.run("rename", NEW).code == 0
    own.commit()
    return own


def follow(checkout: Checkout, block: Block) -> Outcome:
    """Run `block` in a shell, on the port of `checkout`. A virtual environment stands in for the machine's Python."""
    home = checkout.root.with_name("python")
    if not home.exists():
        command = [uv.find_uv_bin(), "venv", "--quiet", "--seed", "--python", sys.executable, str(home)]
        assert checkout.start_program(command).finish(60).code == 0
    path = f"{home}/bin{os.pathsep}{os.environ['PATH']}"
    text = block.text.replace("localhost:8080", f"localhost:{checkout.port}")
    curl = 'curl() { command curl --fail "$@"; }'  # an answer that says no is a block that fails
    # Its name first: output that begins with JSON would be read as a report, and a block may print more.
    command = ["bash", "-euo", "pipefail", "-c", f"echo {block}\n{curl}\n{text}"]
    return checkout.start_program(command, PATH=path, VIRTUAL_ENV=str(home), PYTEST_ADDOPTS=AFFORDABLE).finish(
        MINUTES * 60
    )


def test_each_block_does_what_the_page_says(renamed: Checkout, add_row: AddRow) -> None:
    """From the first line of the README to a rollback by number: every block that needs nothing, in reading order."""
    readme = [block for block in READ if block.page == "README.md"]
    others = [block for block in READ if block.page != "README.md"]
    assert readme
    assert others
    for block in readme:
        done = follow(renamed, block)
        assert done.code == 0, f"{block}: {done}{done.stdout[-4000:]}"
        add_row("blocks of the pages", f"{block}  {block.text.splitlines()[0]}")
    renamed.change("for the pages")
    _tells_github_and_the_board(renamed)  # and then there is a release to go back from
    for block in others:
        done = follow(renamed, block)
        assert done.code == 0, f"{block}: {done}{done.stdout[-4000:]}"
        add_row("blocks of the pages", f"{block}  {block.text.splitlines()[0]}")
    assert [renamed.settings()[name] for name in ("POSTGRES_USER", "POSTGRES_OWNER")] == [f"{NEW}-app-1", NEW]
    assert renamed.untidy() == []


def _tells_github_and_the_board(checkout: Checkout) -> None:
    """Deploy as in a run of Actions, with a board: docs/1-deploying.md, "Who else is told"."""
    summary, output = checkout.root.with_name("summary.md"), checkout.root.with_name("output")
    board = Service(behave=lambda _, __: Reply(201, {}))
    board.start()
    try:
        told = checkout.proved(
            GITHUB_STEP_SUMMARY=str(summary),
            GITHUB_OUTPUT=str(output),
            RELEASE_BOARD_URL=board.url,
            RELEASE_BOARD_TOKEN="a-token-of-the-board",
        )
    finally:
        board.stop()
    assert f"# Release {told.release} serves local" in summary.read_text()
    assert "```mermaid" in summary.read_text()
    assert output.read_text().startswith(f"verdict=proved\nrelease={told.release}\n")
    [row] = [json.loads(request.body) for request in board.requests]
    assert (row["service"], row["environment"], row["version"]) == (NEW, "local", told.release)
    assert row["status"] == "deployed"
