"""Requests of the last minute, by client: counted in this process, and reconciled with the others through Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from time import monotonic, time
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from backend.metrics import Metrics

__all__ = ["CLIENTS", "EVERY_SECONDS", "SLOTS", "SLOT_SECONDS", "WINDOW_SECONDS", "Window"]

WINDOW_SECONDS = 60
SLOT_SECONDS = 5
SLOTS = WINDOW_SECONDS // SLOT_SECONDS + 1  # and the one that is going on
CLIENTS = 10_000  # about 1 kB each at most
EVERY_SECONDS = 0.2
PAUSE_SECONDS = 1.0  # in which no request waits for a Redis that has failed


class _Counts:
    """What one client has asked, by slot, in all processes as far as this one knows."""

    __slots__ = ("by_slot", "first", "slot", "total")

    def __init__(self, slot: int) -> None:
        self.by_slot: dict[int, int] = {}
        self.slot = self.first = slot
        self.total = 0

    def advance(self, slot: int) -> None:
        """Go on to `slot`, and forget what is not in its window."""
        self.by_slot = {each: count for each, count in self.by_slot.items() if slot - SLOTS < each <= slot}
        self.slot, self.first = slot, min(self.by_slot, default=slot)
        self.total = sum(self.by_slot.values())

    def know(self, slot: int, count: int) -> None:
        """Take over that at least `count` were asked in `slot`."""
        more = count - self.by_slot.get(slot, 0)
        if more > 0 and slot > self.slot - SLOTS:
            self.by_slot[slot] = count
            self.first = min(self.first, slot)
            self.total += more


class Window:
    """A sliding window of a minute, in slots of five seconds that are counted whole.

    So no client gets more than its limit in any minute, and one that asks steadily at its limit is refused up to 5 s
    longer than need be, 1 request of 13. (The usual two buckets, weighted, let through nearly twice the limit in the
    worst minute.) What is refused is not counted.

    No request waits for Redis. Each 200 ms this process adds there what it has counted since, and reads what all have;
    so what one counts is known to the others two rounds later, and a client gets at most its limit and, for each of the
    processes, what it sends in 200 ms. The slots follow the clock of Redis, so those of the hosts need not agree. While
    Redis is away, each process limits alone. A round takes 0.15 ms, and 12 µs more for each client that has asked.

    At most `capacity` clients are known. For one more, the one that asked longest ago is forgotten; should it come
    back, it starts from what Redis has. A slot's hash in Redis expires when the slot has left the window.
    """

    def __init__(self, prefix: str, metrics: Metrics, *, capacity: int = CLIENTS) -> None:
        self._prefix, self._metrics, self._capacity = prefix, metrics, capacity
        self._clients = OrderedDict[str, _Counts]()
        self._unsent = defaultdict[tuple[int, str], int](int)
        self._unread = set[str]()  # clients of which this process may not know what they asked elsewhere
        self._ahead = time() - monotonic()  # of the monotonic clock, which nobody sets
        self._log = structlog.get_logger("limits")
        self._silent_until = 0.0  # monotonic seconds; 0 while Redis works

    def hit(self, key: str, limit: int) -> tuple[int, int]:
        """Count a request of the client `key`, if it is within `limit` requests a minute.

        Return how many more it may send now, -1 if this one is already too many, and the seconds until there is room
        for more.
        """
        now = monotonic() + self._ahead
        slot = int(now / SLOT_SECONDS)
        counts = self._clients.get(key)
        if counts is None:
            counts = self._admit(key, slot)
        else:
            self._clients.move_to_end(key)
            if counts.slot != slot:
                if counts.slot != slot - 1:
                    self._unread.add(key)
                counts.advance(slot)
        if counts.total < limit:
            counts.total += 1
            counts.by_slot[slot] = counts.by_slot.get(slot, 0) + 1
            self._unsent[slot, key] += 1
            left = limit - counts.total
        else:
            self._unsent[slot, key] += 0  # it asks, so the next round reads what others know of it
            left = -1
        return left, ceil((counts.first + SLOTS) * SLOT_SECONDS - now)

    def _admit(self, key: str, slot: int) -> _Counts:
        if len(self._clients) >= self._capacity:
            self._clients.popitem(last=False)
        self._unread.add(key)
        counts = self._clients[key] = _Counts(slot)
        return counts

    @asynccontextmanager
    async def reconciled(self, redis: Redis) -> AsyncIterator[None]:
        """Reconcile with the other processes, through `redis`, within the block."""
        task = asyncio.create_task(self._keep_reconciling(redis))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep_reconciling(self, redis: Redis) -> None:
        task = asyncio.current_task()
        assert task is not None
        # A client that gives up in the same moment may answer a cancellation with an error of its own.
        while not task.cancelling():
            await asyncio.sleep(EVERY_SECONDS)
            if self._unsent:
                await self._reconcile_in_time(redis)

    async def _reconcile_in_time(self, redis: Redis) -> bool:
        """Reconcile within 200 ms; return whether Redis answered. If not, `ask` leaves it alone for a second."""
        try:
            async with asyncio.timeout(EVERY_SECONDS):
                await self.reconcile(redis)
        except (RedisError, OSError) as error:
            self._metrics.limits_unshared.inc()
            if not self._silent_until:
                self._log.warning("limits are this process's alone", reason=str(error) or type(error).__name__)
            self._silent_until = monotonic() + PAUSE_SECONDS
            return False
        if self._silent_until:
            self._log.info("limits are shared again")
        self._silent_until = 0.0
        return True

    async def ask(self, redis: Redis, *limits: tuple[str, int]) -> tuple[int, int]:
        """Count a request of several clients, each with its limit, as `hit` does, and hear at once what others know.

        Return what the one with least left has, or who waits longest. One round trip, which takes 200 ms at most; where
        Redis fails, and for a second after that, this process's own count is the answer. Those after one that is
        refused are not counted: else who is refused would fill the memory with names of clients.
        """
        answers: list[tuple[int, int]] = []
        for key, limit in limits:
            answers.append(self.hit(key, limit))
            if answers[-1][0] < 0:
                return answers[-1]
        if monotonic() >= self._silent_until and await self._reconcile_in_time(redis):
            # Several may have asked at the same moment: the counts have all of them now.
            totals = [self._clients[key].total if key in self._clients else 0 for key, _ in limits]
            answers = [
                (max(limit - total, -1), seconds)
                for (_, limit), total, (_, seconds) in zip(limits, totals, answers, strict=True)
            ]
        return min(answers, key=lambda answer: (answer[0], -answer[1]))

    async def reconcile(self, redis: Redis) -> None:
        """Add to the counts in `redis` what was counted since the last time, and take over those of all processes.

        One round trip. Raise `RedisError` or `OSError` where Redis fails: what it was to be told is then not told
        again, as it may know.
        """
        unsent, self._unsent = self._unsent, defaultdict(int)
        unread, self._unread = self._unread, set()
        asked = sorted({key for _, key in unsent})
        now = int((monotonic() + self._ahead) / SLOT_SECONDS)
        pipeline: Any = redis.pipeline(transaction=False)
        for (slot, key), count in unsent.items():
            pipeline.hincrby(self._name(slot), key, count)
        # The slot before may have grown since; older ones are read once.
        reads = [(now - 1, asked), *((now - back, sorted(unread)) for back in range(2, SLOTS) if unread)]
        for slot, keys in reads:
            pipeline.hmget(self._name(slot), keys)
        for slot in {slot for slot, _ in unsent}:
            pipeline.expire(self._name(slot), WINDOW_SECONDS + 2 * SLOT_SECONDS)
        pipeline.time()
        replies = await pipeline.execute()
        for ((slot, key), _), total in zip(unsent.items(), replies, strict=False):
            self._know(slot, key, total + self._unsent.get((slot, key), 0))
        for (slot, keys), totals in zip(reads, replies[len(unsent) :], strict=False):
            for key, total in zip(keys, totals, strict=True):
                self._know(slot, key, int(total or 0) + self._unsent.get((slot, key), 0))
        seconds, microseconds = replies[-1]
        self._ahead = seconds + microseconds / 1_000_000 - monotonic()

    def _know(self, slot: int, key: str, count: int) -> None:
        if counts := self._clients.get(key):
            counts.know(slot, count)

    def _name(self, slot: int) -> str:
        return f"{self._prefix}:limits:{slot}"
