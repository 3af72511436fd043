"""OSV, as it answers pip-audit; it is GitHub's and Google's edge of the world, so it is played."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.played import Answer, serving

__all__ = ["osv_variables", "played_osv"]

ADVISORY = {
    "id": "GHSA-jjg7-2v4v-x38h",
    "aliases": ["CVE-2024-3651"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "idna"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}],
        }
    ],
}


@contextlib.contextmanager
def played_osv() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A service that knows something of idna 3.6: its port, and what it was asked."""
    asked: list[dict[str, Any]] = []

    def answer(_method: str, _target: str, _headers: Mapping[str, str], body: bytes) -> Answer:
        query = json.loads(body)
        asked.append(query)
        known = query == {"package": {"name": "idna", "ecosystem": "PyPI"}, "version": "3.6"}
        return 200, {}, json.dumps({"vulns": [ADVISORY]} if known else {}).encode()

    with serving(answer) as port:
        yield port, asked


def osv_variables(port: int) -> dict[str, str]:
    """What makes pip-audit ask the service on PORT."""
    return {
        "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
        "PIP_AUDIT_OSV_URL": f"http://127.0.0.1:{port}/v1/query",
        "NO_PROXY": "127.0.0.1",
    }
