"""docs/3-migrations.md, "Expand, backfill, contract", followed to the letter on a database with rows."""

from __future__ import annotations

from pathlib import Path

from pipeline.releases.migrations import migration_line, repository_problems
from tests.backend.migrations.conftest import Run, query
from tests.backend.migrations.judging import checked, judged, pending
from tests.contraction import FILL, MISSING, ROWS, Step, page_steps
from tests.services import Services, psql


def test_each_step_is_accepted_when_its_time_has_come(
    root: Path, code: Path, run: Run, services: Services, database: str
) -> None:
    """By the files' judge and by `check`; the last one not before, and not without what it has to say."""
    tables, expand, backfill, stop, contract = page_steps("0001")
    kept: list[str] = []

    def ship(step: Step) -> None:
        step.write(code)
        assert (judged(run), checked(run, *kept)) == ([], [])
        assert run("upgrade").returncode == 0
        kept.append(step.revision)

    ship(tables)
    for statement in FILL:
        psql(services, database, statement)
    ship(expand)
    psql(services, database, "INSERT INTO testing_prices VALUES (8, 800)")
    psql(services, database, "INSERT INTO testing_orders VALUES (8, 800)")  # by the release that writes both places
    assert query(services, database, MISSING) == ROWS
    ship(backfill)
    assert query(services, database, MISSING) == 0
    ship(stop)

    contract.without("contract_after", "destroys").write(code)
    [problem] = repository_problems(root)
    assert 'contract_after = "NNNN"' in problem
    refused = checked(run, *kept)
    assert refused[0] == problem
    assert f"destroys {ROWS + 1} rows: DROP TABLE testing_prices" in refused[1]

    contract.without("destroys").write(code)
    assert repository_problems(root) == []
    [rows, needed] = checked(run, *kept)
    assert f"destroys {ROWS + 1} rows" in rows
    older = ", ".join(f"release-{step.revision}" for step in (tables, expand, backfill))
    assert f"drops what release {older} still needs" in needed

    contract.write(code)
    assert repository_problems(root) == []
    assert len(checked(run, *kept)) == 1
    assert checked(run, stop.revision) == []
    [told] = [migration_line(one) for one in pending(run)]
    assert told.endswith(
        f"; destroys {ROWS + 1} rows (DROP TABLE testing_prices): each price is in testing_orders.cents"
    )
    assert run("upgrade").returncode == 0
    assert query(
        services, database, "SELECT to_regclass('testing_prices') IS NULL AND count(*) = 8 FROM testing_orders"
    )
