"""What is wrong with what runs."""

from __future__ import annotations

from pipeline.commands.doctor import ready_findings


class TestReadyFindings:
    def test_are_what_is_not_ok(self) -> None:
        """A degraded Redis is worth a line, a check that was not asked for is not."""
        checks = {
            "database": {"state": "failed", "detail": "no connection in time"},
            "redis": {"state": "degraded", "detail": "Redis does not answer; nothing is cached"},
            "schema": {"state": "excluded"},
            "draining": {"state": "ok"},
        }
        assert ready_findings({"checks": checks}) == [
            "/ready: database: no connection in time",
            "/ready: redis: Redis does not answer; nothing is cached",
        ]
