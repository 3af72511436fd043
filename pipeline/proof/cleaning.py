"""Removing what a proof left: the writes in its journal."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pipeline.proof.client import Client
from pipeline.proof.writes import Ledger

__all__ = ["clean_up"]


def clean_up(journal: Path, base: str, token: str | None, *, seconds: float = 30.0) -> int:
    """Remove the writes in `journal`, left by a killed proof, from the service at `base` within `seconds`.

    Return how many writes are still there; if none is, the journal is deleted. A service that is down raises nothing.
    """
    return asyncio.run(_clean_up(journal, base, token, seconds)) if journal.exists() else 0


async def _clean_up(journal: Path, base: str, token: str | None, seconds: float) -> int:
    ledger, client = Ledger(journal), Client(base, token)
    try:
        await ledger.settle(client, seconds=seconds, read_back=False)
    finally:
        await client.aclose()
        left = ledger.close()
    return left
