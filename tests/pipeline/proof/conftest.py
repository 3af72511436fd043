from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.requests import RequestSpec, parse_requests
from pipeline.proof.plan import TrafficPlan
from tests.pipeline.proof.servers import LIST, MAKE, Service


@pytest.fixture
def service() -> Iterator[Service]:
    """A good service; set its `behave` to change that."""
    service = Service()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def specs() -> tuple[RequestSpec, ...]:
    """Three reads for one write."""
    return parse_requests([LIST, MAKE])


@pytest.fixture
def plan(service: Service, specs: tuple[RequestSpec, ...], tmp_path: Path) -> TrafficPlan:
    """Three hundred requests a second to the service, of the new release alone."""
    return TrafficPlan(
        base=service.url,
        rate=300,
        requests=specs,
        journal=tmp_path / "writes.jsonl",
        phase="bake",
        timeout=10,
        token="t" * 32,
    )
