"""A deploy that listens to a Prometheus that only the target reaches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.errors import Interrupted, SlipwayError
from pipeline.metrics.prometheus import Alert
from tests.pipeline.deploy.hearing import deploy
from tests.pipeline.deploy.world import World


class TestFromInside:
    """A Prometheus that the target asks."""

    @pytest.fixture(name="inside")
    def _inside(self, heard: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What the target did for it; it knows what the fake is told, which `away` keeps from being asked."""
        heard.far, noted = True, []

        def answer(question: str) -> tuple[int, bytes]:
            if heard.prometheus.away:
                raise SlipwayError(heard.prometheus.away)
            if "query" in question:
                data: dict[str, Any] = {"result": [{"metric": {}, "value": [1, f"{heard.prometheus.counted}"]}]}
            else:
                data = {"alerts": [_written(one) for one in heard.prometheus.firing]}
            return 200, json.dumps({"data": data}).encode()

        @contextmanager
        def asking(address: str, questions: Sequence[str], release: str) -> Iterator[Callable[[str], Any]]:
            noted.append(f"asks {address} beside {release}")
            assert questions[0] == "/api/v1/alerts"
            assert "release%3D%22b%22" in questions[1]
            try:
                yield answer
            finally:
                noted.append("is over")

        monkeypatch.setattr(heard.target.fleet, "asking", asking)
        return noted

    def test_is_a_reason_as_any_other(self, heard: World, inside: list[str]) -> None:
        """And is asked no more afterwards."""
        heard.prometheus.meanwhile[130] = heard.prometheus.fire
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["alert"]) == (1, "rolled_back", "ReleaseFailing")
        assert report["watch"]["requests"] == 600
        assert inside == ["asks http://127.0.0.1:9 beside b", "is over"]

    def test_is_over_with_ctrl_c(self, heard: World, inside: list[str]) -> None:
        """Nothing is left."""

        def interrupt() -> None:
            raise Interrupted("stopped by SIGINT")

        heard.prometheus.meanwhile[60] = interrupt
        assert deploy(heard)[1]["watch"]["outcome"] == "left"
        assert inside[-1] == "is over"

    def test_that_cannot_be_asked_is_no_verdict(self, heard: World, inside: list[str]) -> None:
        """It is said, once, and nothing is rolled back."""
        heard.prometheus.away = "cannot be asked: Job watch-1 does not run: no image"
        code, report = deploy(heard)
        line = f"prometheus: http://127.0.0.1:9 {heard.prometheus.away}"
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "nothing")
        assert report["watch"]["said"] == f"nothing was watched: {line}"
        assert heard.said.count(f"! {line}") == 1
        assert inside[-1] == "is over"

    def test_that_no_target_asks_is_no_verdict(self, heard: World) -> None:
        """Others than Kubernetes ask nobody."""
        heard.far = True
        code, report = deploy(heard)
        said = "nothing was watched: prometheus: http://127.0.0.1:9 cannot be asked from here"
        assert (code, report["watch"]["said"]) == (0, said)


def _written(alert: Alert) -> dict[str, Any]:
    """Return `alert` as Prometheus writes it."""
    labels = {"alertname": alert.name, "severity": alert.severity, "rollback": "true", "release": alert.release}
    return {"labels": labels, "annotations": {"summary": alert.summary}, "state": alert.state, "activeAt": alert.since}
