"""What is wrong with what runs."""

from __future__ import annotations

import pytest

from pipeline.doctor import certificate_finding, ready_findings

DAY = 86400.0


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


class TestCertificateFinding:
    @pytest.mark.parametrize(("days", "says"), [(3, "ends in 3 days"), (-2, "ended 2 days ago")])
    def test_names_a_certificate_that_nobody_renewed(self, days: int, says: str) -> None:
        """Before it ends, while there is time."""
        assert says in (certificate_finding("shop.example.com", 1000 + days * DAY, 1000) or "")

    def test_is_none_for_a_fresh_one(self) -> None:
        """Issuers renew a month before the end."""
        assert certificate_finding("shop.example.com", 1000 + 30 * DAY, 1000) is None
