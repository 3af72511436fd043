"""What the programs share that run beside the service, near its database, for a deploy or a person who waits."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncpg

from backend.postgres import Connector, connect_once
from backend.settings import Settings

__all__ = ["BAD_USAGE", "CONNECT_SECONDS", "FAILED", "stoppable", "transaction"]

T = TypeVar("T")

FAILED, BAD_USAGE = 1, 2  # exit codes
SECONDS = 50.0  # for all of it: whoever asks waits for a minute
CONNECT_SECONDS = 10.0  # a resolver whose first question was lost asks again after 5 s
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


async def stoppable(work: Awaitable[T], on_sigterm: Callable[[], object] | None = None) -> T:
    """Do the `work` and return what it does; SIGTERM cancels it, or calls `on_sigterm` instead."""
    # Without a handler, process 1 of a container takes no SIGTERM.
    task = asyncio.current_task()
    assert task is not None
    with suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread, not on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm or task.cancel)
    return await work
