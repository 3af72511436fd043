"""The limits of a migration, each inside of the next."""

from __future__ import annotations

from backend.migrations.connection import LOCK_SECONDS, LOCK_TIMEOUT, STATEMENT_TIMEOUT
from backend.migrations.runner import LIMIT_SECONDS
from pipeline.config.project import LocalEnvironment
from pipeline.targets.common import migrating
from pipeline.targets.common.migrating import BRIEF, limits


def environment(seconds: float = 1800.0) -> LocalEnvironment:
    return LocalEnvironment(name="local", target="local", url="http://localhost:8080", migration_timeout=seconds)


class TestLimits:
    def test_nest(self) -> None:
        """A lock < a statement < the migrations < what the pipeline waits, which begins before they have their lock."""
        given = limits(environment(), "upgrade", "--expect", "0001")
        own = float(given.environment["MIGRATION_TIMEOUT_SECONDS"])
        assert seconds(LOCK_TIMEOUT) < seconds(STATEMENT_TIMEOUT) < own < own + LOCK_SECONDS < given.seconds
        assert own == LIMIT_SECONDS == LocalEnvironment.model_fields["migration_timeout"].default
        assert migrating.LOCK_SECONDS == LOCK_SECONDS

    def test_follow_the_setting(self) -> None:
        """`migration_timeout` of the environment, for a build that takes hours."""
        given = limits(environment(7200.0), "upgrade")
        assert given.environment == {"MIGRATION_TIMEOUT_SECONDS": "7200"}
        assert given.seconds > 7200

    def test_are_none_of_a_question(self) -> None:
        """It changes nothing: one that does not end is given up as ever."""
        assert limits(environment(7200.0), "status", "--kept", "0001") == BRIEF


def seconds(interval: str) -> float:
    return float(interval.removesuffix("s"))
