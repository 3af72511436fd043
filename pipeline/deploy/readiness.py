"""What `/ready` says of a service that is ready: without what is degraded it works, but worse."""

from __future__ import annotations

from typing import Any

import httpx2

from pipeline.system.ports import dial

__all__ = ["degraded_checks"]

SECONDS = 5.0


def degraded_checks(url: str) -> list[str]:
    """Return a line for each degraded check of the service at `url`; none where it does not answer."""
    address, headers = dial(url)
    try:
        # As the proof does: no proxy.
        answer = httpx2.get(f"{address}/ready", headers=headers, timeout=SECONDS, trust_env=False).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return []
    checks: Any = answer.get("checks") if isinstance(answer, dict) else None
    return [
        f"/ready is degraded: {name}: {check.get('detail') or 'no detail'}"
        for name, check in (checks.items() if isinstance(checks, dict) else ())
        if isinstance(check, dict) and check.get("state") == "degraded"
    ]
