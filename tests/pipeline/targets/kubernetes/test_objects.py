"""What the plan refuses of an overlay."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.targets.kubernetes.objects import grace_problems


def _overlay(grace: int | None, **settings: str) -> list[dict[str, Any]]:
    spec = {} if grace is None else {"terminationGracePeriodSeconds": grace}
    return [
        {"kind": "ConfigMap", "metadata": {"name": "settings-1"}, "data": settings},
        {"kind": "Deployment", "metadata": {"name": "frontend"}, "spec": {"template": {"spec": {}}}},
        {"kind": "Deployment", "metadata": {"name": "backend"}, "spec": {"template": {"spec": spec}}},
    ]


@pytest.mark.parametrize(
    ("grace", "settings", "needed"),
    [
        (60, {"DRAIN_SECONDS": "15"}, None),
        (45, {"DRAIN_SECONDS": "60"}, 100),
        (60, {"DRAIN_SECONDS": "5", "REQUEST_TIMEOUT_SECONDS": "50"}, 65),
        (None, {"DRAIN_SECONDS": "5"}, 45),
    ],
)
def test_a_pod_that_would_be_killed_before_it_has_left(
    grace: int | None, settings: dict[str, str], needed: int | None
) -> None:
    """Kubernetes sends SIGKILL after the grace period, and nobody would say so."""
    found = grace_problems(_overlay(grace, **settings), "k8s/overlays/x")
    assert len(found) == (needed is not None)
    if needed:
        given = 30 if grace is None else grace
        assert f"of Deployment backend is {given}, and its pods need {needed} " in found[0]
