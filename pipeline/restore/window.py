"""The window of a swap as users see it: light traffic that only reads, and how long it was turned away."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self

import httpx2

from pipeline.config.requests import READS, RequestSpec
from pipeline.proof.answers import headers_of, usual_headers
from pipeline.proof.exchange import HEALTH, Exchange
from pipeline.system.ports import dial
from pipeline.system.waiting import attempts

__all__ = ["Ask", "Asked", "Seen", "Window", "ask_over_http", "judge_window"]

THREADS, PAUSE_SECONDS = 4, 0.2  # 20 requests a second, as long as answers are quick
ANSWER_SECONDS = 10.0
EXAMPLES = 5


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent and over (seconds of the monotonic clock), and what is wrong with its answer.

    `refused` is a 503 that says when to come back; `wrong` is "" for an answer as it should be.
    """

    path: str
    began: float
    ended: float
    refused: bool
    wrong: str


class Ask(Protocol):
    """What sends one request, and says what came of it."""

    def __call__(self, spec: RequestSpec) -> tuple[bool, str]:
        """Return `refused` and `wrong`, as `Asked` has them."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a swap: requests `sent`, those `refused`, the `seconds` from the first to the last of these.

    `early` are those refused before it, while something was changed already, of how many. `failures` are those that
    nobody may see in a swap, the first ones in words; `failed` is their number. `before` are requests that failed
    already when nothing had been touched, of how many; `broken` are their paths.
    """

    sent: int = 0
    refused: int = 0
    seconds: float = 0.0
    failed: int = 0
    failures: tuple[str, ...] = ()
    before: tuple[int, int] = (0, 0)
    early: tuple[int, int] = (0, 0)
    broken: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the values for `report.json`."""
        return asdict(self)


class Window:
    """Sends what `requests` have of reads, again and again, until the block ends. `ask` sends one.

    The paths that are `broken` are so before anything is touched; without them, those that fail until then.
    """

    def __init__(self, requests: Sequence[RequestSpec], ask: Ask, broken: Sequence[str] | None = None) -> None:
        self._known = broken
        self._requests = [spec for spec in requests if spec.method in READS and not spec.writes] or [HEALTH]
        self._ask = ask
        self._asked: list[Asked] = []
        self._over = threading.Event()
        self._touched: float | None = None
        self._swapped: float | None = None
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(THREADS)]

    def touch(self) -> None:
        """Note that from now on something is changed; before, see that each thread had an answer."""
        for _ in attempts(ANSWER_SECONDS, every=0.01):
            if len(self._asked) >= THREADS:
                break
        self._touched = time.monotonic()

    def swap(self) -> None:
        """Note that the swap begins; without this, it begins with the first change."""
        self._swapped = time.monotonic()

    def settled(self) -> bool:
        """Return whether each of the threads had its last answer as it should be, or as it was before all."""
        seen = self._seen()
        broken = self.judged().broken
        last = sorted(seen, key=lambda one: one.began)[-THREADS:]
        return len(last) == THREADS and all(not one.wrong or (one.path in broken and not one.refused) for one in last)

    def judged(self) -> Seen:
        """Return what was seen so far."""
        return judge_window(self._seen(), self._touched, self._known, self._swapped)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        turn = number
        self._over.wait(number * PAUSE_SECONDS / THREADS)
        while not self._over.is_set():
            spec = self._requests[turn % len(self._requests)]
            turn += 1
            began = time.monotonic()
            refused, wrong = self._ask(spec)
            self._asked.append(Asked(spec.path, began, time.monotonic(), refused, wrong))
            self._over.wait(PAUSE_SECONDS)

    def _seen(self) -> list[Asked]:
        return list(self._asked)  # a list may grow meanwhile; what it has does not change


def judge_window(
    asked: Sequence[Asked], touched: float | None, broken: Sequence[str] | None = None, swapped: float | None = None
) -> Seen:
    """Return what the requests `asked` say of what was `touched` and `swapped` then: each is counted where it ended.

    See `Window` for `broken`.
    """
    before = [one for one in asked if touched is None or one.ended < touched]
    during = [one for one in asked if one not in before]
    early = [one for one in during if swapped is not None and one.ended < swapped]
    refused = [one for one in during if one.refused and one not in early]
    if broken is None:
        broken = sorted({one.path for one in before if one.wrong})
    # What was broken before, by what a restore is there to mend, may be broken until the swap.
    failed = [one for one in during if one.wrong and not one.refused and one.path not in broken]
    return Seen(
        sent=len(during) - len(early),
        refused=len(refused),
        seconds=round(max(one.ended for one in refused) - min(one.began for one in refused), 2) if refused else 0.0,
        failed=len(failed),
        failures=tuple(f"GET {one.path}: {one.wrong}" for one in failed[:EXAMPLES]),
        before=(sum(bool(one.wrong) for one in before), len(before)),
        early=(sum(one.refused for one in early), len(early)),
        broken=tuple(broken),
    )


def ask_over_http(url: str, token: str | None) -> Ask:
    """Return what asks the service at `url`, each time by a connection of its own."""
    address, host = dial(url)
    usual = [*usual_headers(token), *host.items(), ("Connection", "close")]

    def ask(spec: RequestSpec) -> tuple[bool, str]:
        call = Exchange.new(spec).call()
        headers = headers_of(call, usual)
        try:
            # As the proof does: no proxy.
            answer = httpx2.request(
                call.method, f"{address}{call.path}", headers=headers, timeout=ANSWER_SECONDS, trust_env=False
            )
        except httpx2.TransportError as error:
            return False, str(error) or type(error).__name__
        if answer.status_code == spec.status:
            return False, ""
        refused = answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" in answer.headers
        return refused, f"{answer.status_code} {answer.text[:120]}".strip()

    return ask
