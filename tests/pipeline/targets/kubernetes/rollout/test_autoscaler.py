"""What the autoscaler does, by what the API server says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.targets.kubernetes.rollout.autoscaler import Reading, moved, overwhelmed, reading_of, scaling_findings

CALM = Reading("backend", replicas=2, most=4, used=40, wanted=70)
FULL = replace(CALM, replicas=4, used=160)
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def autoscaler(replicas: int = 2, used: int | None = 40, *conditions: dict[str, str]) -> dict[str, Any]:
    """One as kubectl 1.37 shows it."""
    cpu = {"name": "cpu", "current": {"averageUtilization": used, "averageValue": "40m"}}
    aim = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    metrics = [{"type": "Resource", "resource": cpu}] if used is not None else [{"type": ""}]
    return {
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "backend"},
        "spec": {"maxReplicas": 4, "metrics": [{"type": "Resource", "resource": aim}]},
        "status": {"currentReplicas": replicas, "currentMetrics": metrics, "conditions": list(conditions)},
    }


def blind(since: str, reason: str = "FailedGetResourceMetric") -> dict[str, str]:
    message = "the HPA was unable to compute the replica count: failed to get cpu utilization"
    return {"type": "ScalingActive", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": since}  # fmt: skip


class TestReadingOf:
    def test_reads_replicas_and_cpu(self) -> None:
        """In percent of the requests, as the autoscaler reckons."""
        assert reading_of(autoscaler()) == CALM

    @pytest.mark.parametrize("status", [{}, {"currentMetrics": None}, {"currentMetrics": [{"type": ""}]}])
    def test_has_no_figure_of_a_new_one(self, status: dict[str, Any]) -> None:
        """It has not looked yet, or could not."""
        found = reading_of({**autoscaler(), "status": status})
        assert (found.used, found.at_its_end) == (None, False)


class TestMoved:
    def test_tells_that_it_went_up(self) -> None:
        """With the figure that made it."""
        assert moved(CALM, replace(CALM, replicas=3, used=95)) == (
            "the autoscaler backend went from 2 to 3 replicas (of 4; CPU at 95 % against a target of 70 %)"
        )

    def test_says_nothing_of_a_rest_or_a_way_down(self) -> None:
        """A proof is never what takes replicas away."""
        assert moved(CALM, CALM) is None
        assert moved(FULL, CALM) is None


class TestOverwhelmed:
    def test_judges_a_release_that_needs_more_than_there_may_be(self) -> None:
        """All its pods are long since started, and before the rollout it was not so."""
        said = overwhelmed(CALM, FULL, 60) or ""
        assert said.startswith("it cannot carry the load: the autoscaler backend is at its maximum of 4 replicas")
        assert "and was at 2 before" in said

    @pytest.mark.parametrize(
        ("before", "now", "seconds"),
        [
            (CALM, FULL, 20),  # what starts burns CPU
            (FULL, FULL, 60),  # the load's doing
            (CALM, replace(FULL, used=60), 60),  # enough
            (CALM, replace(FULL, replicas=3), 60),  # it still helps itself
            (CALM, replace(FULL, used=None), 60),
        ],
    )
    def test_does_not_judge_what_is_no_fault_of_the_release(
        self, before: Reading, now: Reading, seconds: float
    ) -> None:
        """A good release must not be undone for the figures of its start, or of its users."""
        assert overwhelmed(before, now, seconds) is None


class TestScalingFindings:
    def test_says_that_it_sees_nothing(self) -> None:
        """With the API server's own word, and the fix."""
        [line] = scaling_findings(autoscaler(2, None, blind("2027-01-15T07:50:00Z")), NOW)
        assert line.startswith("the autoscaler backend does not scale (FailedGetResourceMetric): the HPA was unable")
        assert line.endswith("check that metrics-server runs and that requests are set (`kubectl top pods`)")

    def test_is_patient_after_a_rollout(self) -> None:
        """Pods that are all new have no figures yet."""
        assert scaling_findings(autoscaler(2, None, blind("2027-01-15T07:59:30Z")), NOW) == []

    def test_knows_a_deployment_of_none(self) -> None:
        """Somebody scaled it to 0, which switches the autoscaler off."""
        [line] = scaling_findings(autoscaler(0, None, blind("2027-01-15T07:50:00Z", "ScalingDisabled")), NOW)
        assert "its Deployment has 0 replicas" in line

    def test_says_that_it_is_at_its_end(self) -> None:
        """The next peak has nothing left."""
        limited = {"type": "ScalingLimited", "status": "True", "reason": "TooManyReplicas"}
        since = {"lastTransitionTime": "2027-01-15T07:50:00Z"}
        [line] = scaling_findings(autoscaler(4, 160, limited | since), NOW)
        assert "is at its maximum of 4 replicas with CPU at 160 % against a target of 70 %: raise maxReplicas" in line
        assert scaling_findings(autoscaler(4, 60, limited | since), NOW) == []
        lately = {"lastTransitionTime": "2027-01-15T07:59:30Z"}
        assert scaling_findings(autoscaler(4, 160, limited | lately), NOW) == []
