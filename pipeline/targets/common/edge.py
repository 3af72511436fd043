"""Whether the edge has let a replica in: asked of the edge itself, which names who answered when a deploy asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import httpx2

from pipeline.errors import SlipwayError

__all__ = [
    "HEALTH_FAILS",
    "HEALTH_INTERVAL_SECONDS",
    "HEALTH_URI",
    "REPLICA_HEADER",
    "SYNTHETIC",
    "settle",
    "wait_admitted",
]

# The edge asks what only the replica can know. A database that is away is no reason to answer for the service:
# its own 503 says what is wrong and when to come back.
HEALTH_URI = "/ready?exclude=database&exclude=schema&exclude=redis"
HEALTH_INTERVAL_SECONDS = 0.2
HEALTH_FAILS = 2  # one slow answer on a busy machine takes nobody out
# Until that many checks a slot counts as healthy, though nobody is in it: after a start or a reload of Caddy, and
# after the end of a replica that did not drain.
SETTLE_SECONDS = HEALTH_INTERVAL_SECONDS * (HEALTH_FAILS + 1)
ADMISSION_SECONDS = 10
SYNTHETIC = "Slipway-Synthetic"  # `true` asks for the header below
REPLICA_HEADER = "Slipway-Replica"


def settle(since: float) -> None:
    """Wait until the edge must have noticed what changed at SINCE (monotonic seconds)."""
    time.sleep(max(0.0, since + SETTLE_SECONDS - time.monotonic()))


def wait_admitted(base: str, wanted: str, watch: Callable[[], None], *, log: str) -> None:
    """Wait until the edge at BASE answers with the replica whose address ends with WANTED.

    Raises `SlipwayError` after 10 s; LOG is where it points to.
    """
    deadline = time.monotonic() + ADMISSION_SECONDS
    # The edge is on this machine: a proxy of the environment (HTTP_PROXY) knows nothing of it.
    with httpx2.Client(base_url=base, timeout=5, trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = client.get("/health", headers={SYNTHETIC: "true"})
                if answer.headers.get(REPLICA_HEADER, "").endswith(wanted):
                    return
            if time.monotonic() > deadline:
                raise SlipwayError(
                    f"the edge sent nothing to the new replica in {ADMISSION_SECONDS} s: its"
                    f" {HEALTH_URI} is not 200 for the edge; see {log}"
                )
            watch()
            time.sleep(0.02)
