"""Traffic out of rates: what counts as an error, and the 95th percentile of buckets."""

from __future__ import annotations

import pytest

from pipeline.metrics.rates import Rates, Traffic


def bucket(le: str, rate: float, **labels: str) -> tuple[dict[str, str], float]:
    return {"le": le, **labels}, rate


class TestRates:
    def test_adds_up_routes_and_releases(self) -> None:
        """Errors are those with 5xx; of the traffic, some is synthetic; a release alone has its own."""
        requests = (
            ({"release": "a", "traffic": "user", "status": "200"}, 6.0),
            ({"release": "a", "traffic": "synthetic", "status": "404"}, 2.0),
            ({"release": "b", "traffic": "synthetic", "status": "503"}, 1.0),
        )
        rates = Rates(requests, (bucket("0.1", 4.0, release="a"), bucket("+Inf", 4.0, release="a")), 10)
        assert rates.releases == ("a", "b")
        assert rates.traffic() == Traffic(requests=9.0, synthetic=3.0, errors=1.0, p95=rates.traffic("a").p95)
        assert rates.traffic("a").p95 == pytest.approx(0.095)
        assert rates.traffic("b") == Traffic(requests=1.0, synthetic=1.0, errors=1.0, p95=None)

    def test_knows_no_releases_where_metrics_name_none(self) -> None:
        """An older service has neither `release` nor `traffic`."""
        rates = Rates((({"status": "200"}, 3.0),), (), 10)
        assert (rates.releases, rates.traffic()) == ((), Traffic(3.0, 0, 0, None))

    @pytest.mark.parametrize(
        ("buckets", "p95"),
        [
            ((), None),
            ((bucket("0.1", 0.0), bucket("+Inf", 0.0)), None),
            ((bucket("+Inf", 5.0), bucket("0.1", 0.0), bucket("0.2", 5.0)), 0.195),
            ((bucket("0.1", 90.0), bucket("0.5", 100.0), bucket("+Inf", 100.0)), 0.3),
            ((bucket("0.1", 50.0), bucket("10.0", 60.0), bucket("+Inf", 100.0)), 10.0),
        ],
    )
    def test_finds_the_95th_percentile_as_prometheus_does(
        self, buckets: tuple[tuple[dict[str, str], float], ...], p95: float | None
    ) -> None:
        """By a straight line within a bucket; beyond the last bound, that bound."""
        assert Rates((), buckets, 1).traffic().p95 == (None if p95 is None else pytest.approx(p95))
