"""Whether the edge has let a replica in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.targets.common.edge import REPLICA_HEADER, wait_admitted
from tests.played import serving


@pytest.fixture
def edge() -> Iterator[str]:
    """The address of an edge that always answers from slot 1."""
    with serving(lambda *_: (200, {REPLICA_HEADER: "/run/edge-1"}, b"")) as port:
        yield f"http://127.0.0.1:{port}"


class TestWaitAdmitted:
    def test_sees_the_replica_that_the_edge_names(self, edge: str) -> None:
        """One answer of the wanted replica is enough."""
        wait_admitted(edge, "edge-1", lambda: None, log="the log")

    def test_goes_through_no_proxy(self, edge: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Behind a company's proxy a deploy failed, and so did its rollback: the proxy was asked for 127.0.0.1."""
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        wait_admitted(edge, "edge-1", lambda: None, log="the log")
