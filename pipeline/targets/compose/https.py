"""HTTPS by the edge: whether its certificate holds."""

from __future__ import annotations

from pipeline.system.certificates import handshake_finding
from pipeline.system.ports import LOOPBACK

__all__ = ["HTTPS_PORTS", "certificate_problem"]

HTTPS_PORTS = (80, 443)  # of the host, as docker/compose.https.yml opens them


def certificate_problem(domain: str, *, logs: str) -> str | None:
    """Return why a browser would not trust https://`domain` of this host, in one line with its fix; None if it would.

    `logs`: the command that shows what the edge says.
    """
    fix = (
        "the edge keeps asking for one: the name must lead to this host, and ports 80 and 443 must be open to the"
        f" internet; `{logs}` shows what the authority says"
    )
    try:
        finding = handshake_finding(domain, HTTPS_PORTS[1], address=LOOPBACK, fix=fix)  # wherever the name leads to
    except OSError as error:  # Caddy ends a handshake for which it has no certificate
        finding = f"the edge has no certificate of {domain} yet ({error}): {fix}"
    return f"EDGE_DOMAIN: {finding}" if finding else None
