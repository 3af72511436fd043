"""docs/3-migrations.md, "Expand, backfill, contract": each of its steps is deployed, on a table with rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.contraction import FILL, MISSING, ROWS, Step, page_steps
from tests.deploy.checkout import Checkout
from tests.deploy.runs import Outcome

pytestmark = pytest.mark.e2e

# What reads the service's own migrations in `nox -s test`; the first of it is the judge.
JUDGE = "tests/backend/migrations/test_judge.py::test_the_migrations_of_the_service_are_such_as_a_deploy_accepts"
READERS = (
    "tests/backend/migrations",
    "tests/backend/health",
    "tests/pipeline/releases",
    "tests/pipeline/targets/common",
)


def versions(checkout: Checkout) -> Path:
    """Return the folder of its migrations."""
    return checkout.root / "backend/migrations/versions"


def lint(checkout: Checkout) -> Outcome:
    """Judge the migrations as `nox -s lint` does."""
    return checkout.run("migrations")


def judge_with(checkout: Checkout, *tests: str) -> Outcome:
    """Run some of what `nox -s test` runs."""
    quiet = ("-q", "-p", "no:cacheprovider", "--no-header")
    command = [sys.executable, "-m", "pytest", *quiet, *tests]
    return checkout.start_program(command, SLIPWAY_TEST_SERVICES="embedded", PYTEST_ADDOPTS="").finish(300)


def ship(checkout: Checkout, step: Step) -> Outcome:
    """Add the migration, which lint and test accept, and deploy it; return what came of it."""
    step.write(versions(checkout))
    assert lint(checkout).code == 0
    judged = judge_with(checkout, JUDGE)
    assert judged.code == 0, judged.stdout
    outcome = checkout.proved()
    assert checkout.revision() == step.revision
    checkout.commit()
    return outcome


def refused(checkout: Checkout, *words: str) -> None:
    """Deploy; it must end in `check`, each of `words` in one of its lines, and the schema be as it was."""
    revision, answering = checkout.revision(), checkout.answering()
    outcome = checkout.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert [stage["name"] for stage in outcome.report["stages"] if stage["outcome"] == "failed"] == ["check"]
    for said in words:
        assert [line for line in outcome.problems() if said in line], f"{said}: {outcome}"
    assert (checkout.revision(), checkout.answering()) == (revision, answering)


def test_what_the_page_says_is_deployed_step_by_step(checkout: Checkout) -> None:
    """Lint and test are green at each; the last is refused until it says what it does, and nobody needs the table."""
    checkout.patch("pyproject.toml", "retain = 5", "retain = 2")
    newest = max(path.name[:4] for path in versions(checkout).glob("[0-9]*.py"))
    tables, expand, backfill, stop, contract = page_steps(newest)
    ship(checkout, tables)
    for statement in FILL:
        checkout.sql(statement)
    ship(checkout, expand)
    assert checkout.sql(MISSING) == ROWS
    filled = ship(checkout, backfill)
    assert checkout.sql(MISSING) == 0
    ship(checkout, stop)

    path = contract.without("contract_after", "destroys").write(versions(checkout))
    said = f"migration {contract.revision} ({contract.name}) takes away"
    for judged in (lint(checkout), judge_with(checkout, JUDGE)):
        assert judged.code == 1, str(judged)
        assert said in judged.stdout + judged.stderr
    refused(checkout, said, f"destroys {ROWS} rows: DROP TABLE testing_prices")

    contract.without("destroys").write(versions(checkout))
    assert (lint(checkout).code, judge_with(checkout, JUDGE).code) == (0, 0)
    refused(checkout, f"destroys {ROWS} rows", f"drops what release {filled.release} still needs")
    contract.write(versions(checkout))
    refused(checkout, f"drops what release {filled.release} still needs")

    path.unlink()
    checkout.change("another change")
    checkout.proved()
    checkout.commit()
    dropped = ship(checkout, contract)
    [told] = [line for line in dropped.stderr.splitlines() if f"migration {contract.revision}: " in line]
    assert told.endswith(f"; destroys {ROWS} rows (DROP TABLE testing_prices): each price is in testing_orders.cents")
    assert checkout.sql("SELECT to_regclass('testing_prices') IS NULL") is True
    assert (checkout.sql("SELECT count(*) FROM testing_orders"), checkout.sql(MISSING)) == (ROWS, 0)
    assert checkout.untidy() == []
    done = judge_with(checkout, *READERS)
    assert done.code == 0, done.stdout


def test_a_migration_with_a_number_that_is_taken_is_refused_everywhere(checkout: Checkout) -> None:
    """By lint, test and deploy, which name both files and the command that renumbers one; then all three accept it."""
    first = min(versions(checkout).glob("[0-9]*.py"))
    tables, *_ = page_steps(f"{int(first.name[:4]) - 1:04}")
    own = tables.write(versions(checkout))
    checkout.patch(str(own.relative_to(checkout.root)), 'down_revision = "0000"', "down_revision = None")
    for done in (lint(checkout), judge_with(checkout, JUDGE), checkout.deploy()):
        assert done.code in (1, 2), str(done)
        for words in (own.name, first.name, f"nox -s migration -- --renumber {max(own, first).name}"):
            assert words in done.stdout + done.stderr, str(done)
    assert checkout.run("migrations", "--renumber", own.name).code == 0
    assert (lint(checkout).code, judge_with(checkout, JUDGE).code) == (0, 0)
    checkout.proved()
