"""Ways to make a running service ill and well again, which the `doctor` of each target has to report."""

from __future__ import annotations

from tests.deploy.checkout import Checkout

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
    used = int(one.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"))
    one.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT {used + 1}')  # the last one is for doctor itself
    try:
        ill = one.run("doctor", "--json")
    finally:
        one.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT -1')
        one.sql("DROP INDEX ailing")
    assert ill.code == 1, str(ill)
    crowded, broken = ill.report["findings"]
    assert crowded.startswith(f"the role {role} has {used + 1} of {used + 1} connections: lower DATABASE_POOL_SIZE")
    assert broken.startswith("index ailing is not valid")
    well = one.run("doctor")
    assert well.code == 0, str(well)
