"""The roles of a target's own database: an installation of before is brought over; what rehearsals refuse."""

from __future__ import annotations

from tests.deploy.breaking import add_migration
from tests.deploy.checkout import Checkout
from tests.notes import NOTES
from tests.project import NAME

__all__ = ["as_before", "brings_over", "refuses_a_right_that_is_gone", "serves_what_a_migration_makes"]

LOGIN = f"{NAME}-app-1"
WHO_SERVES = ("SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity"
              " WHERE application_name LIKE '%-backend'")  # fmt: skip
OWNERS = "SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE schemaname = 'public'"
NEW = {
    "labels": "CREATE TABLE labels (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
    "numbers": "CREATE SEQUENCE label_numbers",
    "a function": "CREATE FUNCTION label() RETURNS int LANGUAGE sql RETURN 1",
}
MAY_USE_THEM = f"""
    SELECT has_table_privilege('{LOGIN}', 'labels', 'INSERT') AND has_table_privilege('{LOGIN}', 'labels', 'DELETE')
    AND has_sequence_privilege('{LOGIN}', 'label_numbers', 'USAGE')
    AND has_function_privilege('{LOGIN}', 'label()', 'EXECUTE')
"""


def as_before(one: Checkout) -> None:
    """Deploy the clone as an installation of before: the owner serves, and `.env` names nobody else."""
    one.set_env()
    owners = one.settings()["POSTGRES_OWNER_PASSWORD"]
    one.set_env(POSTGRES_USER=NAME, POSTGRES_PASSWORD=owners, POSTGRES_OWNER="", POSTGRES_OWNER_PASSWORD="")
    one.proved(POSTGRES_USER=NAME)  # where a shell names the user, `.env` is not changed
    assert one.sql(WHO_SERVES) == NAME


def brings_over(one: Checkout) -> None:
    """Bring an installation of before over by a deploy, and back to its release: no request fails, no row is lost."""
    before, written = one.settings(), one.write_note("of before")
    one.change("with least rights")
    outcome = one.proved()
    after = one.settings()
    assert (after["POSTGRES_USER"], after["POSTGRES_OWNER"]) == (LOGIN, NAME)
    assert after["POSTGRES_OWNER_PASSWORD"] == before["POSTGRES_PASSWORD"]
    assert after["POSTGRES_PASSWORD"] not in (before["POSTGRES_PASSWORD"], "")
    assert not [name for name in ("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD") if after[name] in str(outcome)]
    assert one.sql(WHO_SERVES) == LOGIN
    assert one.deploy().verdict == "unchanged"
    back = one.run("rollback")
    assert (back.code, back.traffic["failed"], back.traffic["writes_lost"]) == (0, 0, 0), str(back)
    assert one.sql(WHO_SERVES) == LOGIN
    assert one.request("GET", f"{NOTES}/{written['id']}").json() == written
    assert one.run("doctor").code == 0
    assert one.settings() == after
    assert one.sql(OWNERS) == NAME
    one.proved()
    one.commit()


def serves_what_a_migration_makes(one: Checkout) -> None:
    """Let the service use a table, a sequence and a function that a migration makes without a GRANT."""
    [*_, revision] = [add_migration(one, *new) for new in NEW.items()]
    one.proved()
    assert one.revision() == revision
    assert one.sql(MAY_USE_THEM)
    one.commit()


def refuses_a_right_that_is_gone(one: Checkout) -> None:
    """Refuse in the rehearsal what the owner, or a superuser, would not notice: the service lost a right."""
    serving = one.answering()
    add_migration(one, "closed", f'REVOKE INSERT ON testing_notes FROM \\"{NAME}-app\\"')
    refused = one.deploy()
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert "cannot live with the new schema: " in refused.reason
    assert one.answering() == serving
    one.restore()
