"""Names and addresses of this machine, by the standard library alone: who checks manifests has no more."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is this machine's by its nature."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
