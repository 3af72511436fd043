"""What the programs share that run beside the service, near its database, for a deploy or a person who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from backend.postgres import Connector, connect_once
from backend.settings import Settings

__all__ = ["BAD_USAGE", "FAILED", "transaction"]

FAILED, BAD_USAGE = 1, 2  # exit codes
SECONDS = 50.0  # for all of it: whoever asks waits for a minute
CONNECT_SECONDS = 10.0
# A person's request must not wait behind it for longer. In the transaction, as a pooler lets nothing else through.
LIMITS = "SET LOCAL statement_timeout = '40s'; SET LOCAL lock_timeout = '10s'"


@asynccontextmanager
async def transaction(settings: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Yield a connection to the database of `settings` in a transaction, which has `SECONDS` with all that is in it.

    Raise `SettingsError` where these settings will never give one, `TimeoutError`, and what asyncpg raises.
    """
    async with asyncio.timeout(SECONDS):
        connection = await connect_once(Connector(settings, {}, seconds=CONNECT_SECONDS))
        try:
            async with connection.transaction():
                await connection.execute(LIMITS)
                yield connection
        finally:
            await connection.close(timeout=1)
