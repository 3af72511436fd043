"""The rates of the last seconds, from the replicas' own `/metrics`, where this machine reaches them."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import httpx2

from pipeline.metrics.rates import DURATIONS, PROBED, REQUESTS, Rates

__all__ = ["WINDOW_SECONDS", "Scraper"]

WINDOW_SECONDS = 10.0
LONGEST_SECONDS = 60.0  # between two looks that are compared: what was longer ago is not now
TIMEOUT = 1.0  # seconds: a replica that hangs must not hold up what the others say
SAMPLE = re.compile(rf"^({REQUESTS}|{DURATIONS})\{{(.*)\}} (\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Page = dict[tuple[str, tuple[tuple[str, str], ...]], float]  # by name and labels


class Scraper:
    """Reads the pages again and again; `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # No proxy leads to this machine; and a replica that drains is not to wait for a connection of ours.
        alone = httpx2.Limits(max_keepalive_connections=0)
        self._client = httpx2.Client(timeout=TIMEOUT, trust_env=False, limits=alone)
        self._pages: dict[str, Page] = {}
        self._steps: deque[tuple[float, float, Page]] = deque()  # from when to when, and what was counted meanwhile
        self._at = clock()

    def look(self, replicas: Mapping[str, str]) -> tuple[Rates | None, list[str]]:
        """Read the pages of `replicas` (addresses, each with its release); return the rates, and who did not answer.

        There are no rates before the second look. A replica counts from the second look at it on.
        """
        before, since, self._pages, self._at = self._pages, self._at, {}, self._clock()
        silent = []
        for address, release in replicas.items():
            try:
                answer = self._client.get(address)
                self._pages[address] = _read(answer.raise_for_status().text, release)
            except httpx2.HTTPError:
                silent.append(address)
        known = [(before[address], page) for address, page in self._pages.items() if address in before]
        if known and self._at - since < LONGEST_SECONDS:
            self._steps.append((since, self._at, _counted(known)))
        while self._steps and self._at - self._steps[0][1] >= WINDOW_SECONDS:
            self._steps.popleft()
        return self._rates(), silent

    def _rates(self) -> Rates | None:
        if not self._steps:
            return None
        total: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        for _, _, counted in self._steps:
            total.update(counted)
        seconds = sum(until - since for since, until, _ in self._steps)
        found = {
            name: tuple((dict(labels), count / seconds) for (one, labels), count in total.items() if one == name)
            for name in (REQUESTS, DURATIONS)
        }
        return Rates(found[REQUESTS], found[DURATIONS], seconds)


def _read(text: str, release: str) -> Page:
    """Return the samples of the page `text` that count requests; those without a release get `release`."""
    page: Page = {}
    for name, labels, value in SAMPLE.findall(text):
        found = {"release": release, **dict(LABEL.findall(labels))}
        if found.get("route") not in PROBED:
            page[name, tuple(sorted(found.items()))] = float(value)
    return page


def _counted(pages: list[tuple[Page, Page]]) -> Page:
    """Return the sum of what the `pages`, each a former and a present one, counted in between."""
    total: Page = {}
    for before, now in pages:
        for series, value in now.items():
            former = before.get(series, 0.0)
            grown = value - former if value >= former else value  # a process that was restarted counts from 0
            total[series] = total.get(series, 0.0) + grown
    return total
