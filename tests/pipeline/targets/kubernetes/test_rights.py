"""Who logs in according to a cluster's Secret."""

from __future__ import annotations

from pipeline.config.logins import Logins, apart
from pipeline.targets.kubernetes.rights import logins_in_cluster

OLD = {"POSTGRES_PASSWORD": "of-before-0123456789"}


def test_a_secret_of_before_names_the_owner_alone() -> None:
    """The overlay says who that is, or a rotation of before did."""
    assert logins_in_cluster(OLD, "shop") == Logins(
        "shop", OLD["POSTGRES_PASSWORD"], "shop", OLD["POSTGRES_PASSWORD"], apart=False
    )
    assert logins_in_cluster({**OLD, "POSTGRES_USER": "shop-other"}, "shop").login == "shop-other"


def test_one_that_was_brought_over_names_both() -> None:
    """Whoever reads it then does nothing more."""
    lines = apart(logins_in_cluster(OLD, "shop"))
    assert set(lines) == {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_OWNER", "POSTGRES_OWNER_PASSWORD"}
    found = logins_in_cluster({**OLD, **lines}, "shop")
    assert (found.user, found.login, found.owner_password, found.apart) == (
        "shop-app-1", "shop", OLD["POSTGRES_PASSWORD"], True)  # fmt: skip
    assert apart(found) == {}


def test_one_without_a_password_is_left_alone() -> None:
    """Its database is elsewhere."""
    assert apart(logins_in_cluster({}, "shop")) == {}
