"""Admission to the edge. A deploy asks the edge itself, which then names the replica that answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_network

import httpx2

from pipeline.errors import SlipwayError, UsageError
from pipeline.system.ports import LOOPBACK
from pipeline.system.waiting import attempts

__all__ = [
    "HEALTH_FAILS",
    "HEALTH_INTERVAL_SECONDS",
    "HEALTH_URI",
    "REPLICA_HEADER",
    "SETTLE_SECONDS",
    "SYNTHETIC",
    "settle",
    "trusted_ranges",
    "wait_admitted",
]

# The edge asks only what concerns the replica itself. While the database is down the edge must not answer in the
# service's place: the service's own 503 says what is wrong and when to retry.
HEALTH_URI = "/ready?exclude=database&exclude=schema&exclude=redis"
HEALTH_INTERVAL_SECONDS = 0.2
HEALTH_FAILS = 2  # one slow answer on a busy machine does not take a replica out
# For this long an empty slot may still count as healthy: after a start or a reload of Caddy, and after the end of a
# replica that did not drain.
SETTLE_SECONDS = HEALTH_INTERVAL_SECONDS * (HEALTH_FAILS + 1)
ADMISSION_SECONDS = 30  # on a busy host one check alone may take five
SYNTHETIC = "Slipway-Synthetic"  # `true` asks for the header below
REPLICA_HEADER = "Slipway-Replica"


def trusted_ranges(values: Mapping[str, str]) -> str:
    """Return the proxies that TRUSTED_PROXIES in `values` names as Caddy wants them: networks with spaces between.

    Raise `UsageError` for `*`: behind an edge that trusts everybody, no address is the client's.
    """
    given = (values.get("TRUSTED_PROXIES") or LOOPBACK).replace(",", " ").split()
    if "*" in given:
        raise UsageError("TRUSTED_PROXIES: * names nobody: say the addresses or networks of the proxies in front")
    return " ".join(str(ip_network(one, strict=False)) for one in given)


def settle(since: float) -> None:
    """Wait until the edge must have noticed a change made at `since` (monotonic seconds)."""
    time.sleep(max(0.0, since + SETTLE_SECONDS - time.monotonic()))


def wait_admitted(base: str, wanted: str, watch: Callable[[], None], *, log: str) -> None:
    """Wait until the edge at `base` answers with the replica whose address ends with `wanted`.

    Raise `SlipwayError` after `ADMISSION_SECONDS`; its message points to `log`.
    """
    # The edge is on this machine, so a proxy from the environment (HTTP_PROXY) cannot reach it.
    with httpx2.Client(base_url=base, timeout=5, trust_env=False) as client:
        for _ in attempts(ADMISSION_SECONDS, every=0.02, watch=watch):
            with contextlib.suppress(httpx2.TransportError):
                answer = client.get("/health", headers={SYNTHETIC: "true"})
                if answer.headers.get(REPLICA_HEADER, "").endswith(wanted):
                    return
    raise SlipwayError(
        f"the edge sent no request to the new replica within {ADMISSION_SECONDS} s: its {HEALTH_URI}"
        f" does not answer the edge with 200; see {log}"
    )
