"""Names and addresses of this machine, by the standard library alone: who checks manifests has no more."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["is_loopback", "leads_here"]


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is this machine's by its nature."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def leads_here(address: str) -> bool:
    """Return whether the URL `address` leads to this machine."""
    return is_loopback(urlsplit(address).hostname or "")
