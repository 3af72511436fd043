"""PostgreSQL and Valkey of the local target."""

from __future__ import annotations

import pytest

from pipeline.config.logins import Logins
from pipeline.targets.local.stores import SUPERUSER, role_problems


def _served_by_the_owner(user: str) -> Logins:
    return Logins(user, "", user, "", apart=False)


class TestRoleProblems:
    def test_has_nothing_against_usual_names(self) -> None:
        """The names of the template, and names that need quotes."""
        assert role_problems(_served_by_the_owner("slipway"), "slipway") == []
        assert role_problems(_served_by_the_owner("my team"), "Shop-1") == []

    @pytest.mark.parametrize(
        ("user", "database", "variable"),
        [
            (SUPERUSER, "slipway", "POSTGRES_USER"),
            ("pg_shop", "slipway", "POSTGRES_USER"),
            ("s" * 64, "slipway", "POSTGRES_USER"),
            ("slipway", "postgres", "POSTGRES_DB"),
            ("slipway", "template1", "POSTGRES_DB"),
            ("slipway", "ü" * 32, "POSTGRES_DB"),
        ],
    )
    def test_names_what_would_take_over_or_never_be_found(self, user: str, database: str, variable: str) -> None:
        """The superuser would lose its rights as the service's role; a name too long is another one in PostgreSQL."""
        (problem,) = role_problems(_served_by_the_owner(user), database)
        assert problem.startswith(f".env: {variable}: ")
