"""Ways to make what runs ill, and whole again, which each target's `doctor` has to tell."""

from __future__ import annotations

from tests.deploy.checkout import Checkout

__all__ = ["tells_what_is_wrong"]


def tells_what_is_wrong(one: Checkout) -> None:
    """Nothing of what is well; then that an index is broken and that the service's role has its last connection; then
    nothing again.
    """
    well = one.run("doctor")
    assert well.code == 0, str(well)
    role = one.settings()["POSTGRES_USER"]
    one.sql("CREATE INDEX ailing ON releases (version)")
    one.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ailing'::regclass")
    used = int(one.sql(f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"))
    one.sql(f'ALTER ROLE "{role}" CONNECTION LIMIT {used + 1}')  # the last one is for who asks
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
