"""A little traffic that shows what users see while something breaks."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import httpx2

from pipeline.system.ports import dial
from tests.deploy.machine import wait_until
from tests.deploy.threads import Working

__all__ = ["Callers", "Visit", "Visitors"]

PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Visit:
    """One request: when it was sent and answered (monotonic seconds), the status (0: no answer) and the answer."""

    path: str
    at: float
    seconds: float
    status: int
    content_type: str
    body: bytes
    release: str | None

    def json(self) -> Any:
        """Return the parsed body, which must declare that it is JSON."""
        assert self.content_type.startswith("application/"), (self.content_type, self.body)
        return json.loads(self.body)


class Visitors(Working):
    """One visitor per path, who sends requests until the block ends, each over a new connection."""

    def __init__(self, base: str, *paths: str) -> None:
        self.visits: list[Visit] = []
        super().__init__(*(partial(self._ask, path) for path in paths))
        self._base, self._headers = dial(base)

    def of(self, path: str, *, since: float = 0) -> list[Visit]:
        """Return the visits of `path` from monotonic second `since` on."""
        return [visit for visit in list(self.visits) if visit.path == path and visit.at >= since]

    def wait_for(self, path: str, status: int, *, times: int = 1, since: float, seconds: float = 20) -> float:
        """Wait for `times` answers with `status` in a row; return the seconds from `since` to the first of them."""

        def found() -> float | None:
            visits = self.of(path, since=since)
            if len(visits) < times or any(visit.status != status for visit in visits[-times:]):
                return None
            return visits[-times].at - since or 1e-9

        return wait_until(found, f"{path} did not answer {status} {times} times in a row", seconds)

    def __enter__(self) -> Self:
        super().__enter__()
        wait_until(lambda: len(self.visits) >= len(self._works) or None, "the first visits")
        return self

    def _ask(self, path: str) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            at = time.monotonic()
            try:
                answer = httpx2.get(self._base + path, headers=self._headers, timeout=10)
            except httpx2.TransportError as error:
                self.visits.append(Visit(path, at, time.monotonic() - at, 0, "", repr(error).encode(), None))
            else:
                seconds, kind = time.monotonic() - at, answer.headers.get("content-type", "")
                release = answer.headers.get("x-release")
                self.visits.append(Visit(path, at, seconds, answer.status_code, kind, answer.content, release))


class Callers(Working):
    """So many callers, each of whom asks for `path` so many times a second over a connection that it keeps."""

    def __init__(self, base: str, path: str, *, rate: float, callers: int = 1) -> None:
        self.seconds: list[float] = []  # that each answer took
        self.failed: list[str] = []
        super().__init__(*[self._call] * callers)
        self._base, self._headers = dial(base)
        self._path, self._rate = path, rate

    def percentile(self, share: float) -> float:
        """Return the milliseconds within which this `share` of the requests was answered."""
        times = sorted(self.seconds)
        return 1000 * times[min(len(times) - 1, int(share * len(times)))]

    def _call(self) -> None:
        with httpx2.Client(headers=self._headers, timeout=20, verify=False, trust_env=False) as client:
            following = time.monotonic()
            while not self._over.wait(following - time.monotonic()):
                began = time.monotonic()
                following = max(following + 1 / self._rate, began)
                try:
                    answer = client.get(self._base + self._path)
                except httpx2.TransportError as error:
                    self.failed.append(repr(error))
                else:
                    self.seconds.append(time.monotonic() - began)
                    self.failed += [f"{answer.status_code} {answer.text[:200]}"] if answer.status_code != 200 else []
