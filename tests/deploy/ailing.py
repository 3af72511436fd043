"""Ways to make a running service ill and well again, which the `doctor` of each target has to report."""

from __future__ import annotations

from tests.deploy.checkout import Checkout
from tests.deploy.machine import wait_until
from tests.deploy.runs import Outcome

__all__ = ["tells_what_is_wrong"]


def tells_what_is_wrong(one: Checkout) -> None:
    """Check that `doctor` reports nothing, then what is broken, then nothing again.

    An index is invalid, and the service's role is down to its last connection.
    """
    well = one.run("doctor")
    assert well.code == 0, str(well)
    role = one.settings()["POSTGRES_USER"]
    one.sql("CREATE INDEX ailing ON testing_notes (text)")
    one.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ailing'::regclass")
    try:
        ill, most = wait_until(lambda: _crowded(one, role), "doctor says both", 120)
    finally:
        one.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT -1')
        one.sql("DROP INDEX ailing")
    assert ill.code == 1, str(ill)
    crowded, broken = ill.report["findings"]
    assert crowded.startswith(f"the role {role} has {most} of {most} connections: lower DATABASE_POOL_SIZE")
    assert broken.startswith("index ailing is not valid")
    well = one.run("doctor")
    assert well.code == 0, str(well)


def _crowded(one: Checkout, role: str) -> tuple[Outcome, int] | None:
    """Leave one connection to `role`, and return what `doctor` says and how many there may be.

    Return None where it says too little: a pool that has just been busy closes connections meanwhile.
    """
    most = 1 + int(one.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"))
    one.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT {most}')  # the last one is for doctor itself
    ill = one.run("doctor", "--json")
    return (ill, most) if len(ill.report["findings"]) > 1 and f"{most} of {most}" in str(ill.report) else None
