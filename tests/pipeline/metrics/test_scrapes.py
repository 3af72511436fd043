"""Rates from the pages of the replicas themselves, which come and go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from backend.metrics import Metrics, metrics_app
from pipeline.metrics.scrapes import WINDOW_SECONDS, Scraper
from pipeline.system.ports import free_port
from tests.played import serving


class Clock:
    """Seconds that pass when they are told to."""

    at = 0.0

    def __call__(self) -> float:
        return self.at


class Pages:
    """The pages of replicas, by number, and what their clock says."""

    def __init__(self, port: int) -> None:
        self.port, self.clock, self.text = port, Clock(), dict[str, str]()
        self.scraper = Scraper(self.clock)

    def look(self, after: float = 2.0, **releases: str) -> Any:
        """Look at `releases`, by replica; return requests, errors and p95, None where nothing is known."""
        self.clock.at += after
        addresses = {f"http://127.0.0.1:{self.port}/{name}": release for name, release in releases.items()}
        rates, self.silent = self.scraper.look(addresses)
        traffic = rates.traffic() if rates else None
        self.releases = rates.releases if rates else ()
        return (traffic.requests, traffic.errors, traffic.p95) if traffic else None


def page(good: int, bad: int = 0, labels: str = "") -> str:
    counts = "".join(
        f'http_requests_total{{method="GET",route="/a\\"}}b",status="{status}"{labels}}} {count}\n'
        for status, count in (("200", good), ("500", bad))
        if count
    )
    buckets = "".join(
        f'http_request_duration_seconds_bucket{{le="{le}",method="GET",route="/a"{labels}}} {good + bad}.0\n'
        for le in ("0.1", "+Inf")
    )
    probes = f'http_requests_total{{method="GET",route="/ready",status="503"{labels}}} {good * 1000}\n'
    return f"# HELP http_requests_total Requests.\n{counts}{buckets}{probes}other_total 3\n"


@pytest.fixture(name="pages")
def _pages() -> Iterator[Pages]:
    with contextlib.ExitStack() as stack:
        known: dict[str, str] = {}
        port = stack.enter_context(
            serving(lambda _, path, *__: (200, {}, known[path[1:]].encode()) if path[1:] in known else (500, {}, b""))
        )
        pages = Pages(port)
        pages.text = known
        yield pages


class TestScraper:
    def test_needs_two_looks(self, pages: Pages) -> None:
        """What was counted before the first is nobody's rate; health checks are none at all."""
        pages.text["one"] = page(1000)
        assert pages.look(one="a") is None
        pages.text["one"] = page(1020, 4)
        assert pages.look(one="a") == (12.0, 2.0, pytest.approx(0.095))
        assert pages.releases == ("a",)

    def test_takes_the_release_that_the_metrics_name(self, pages: Pages) -> None:
        """It is the one that counted, whatever runs at this address by now."""
        for count in (0, 10):
            pages.text["one"] = page(count + 1, labels=',release="b",traffic="user"')
            pages.look(one="a")
        assert pages.releases == ("b",)

    def test_sums_over_replicas_that_are_exchanged(self, pages: Pages) -> None:
        """One that comes counts from its second look on, one that went has counted until its last; others go on."""
        pages.text |= {"one": page(100), "two": page(100)}
        pages.look(one="a", two="a")
        pages.text |= {"one": page(110), "three": page(7000)}
        del pages.text["two"]
        assert pages.look(one="a", two="a", three="b") == (5.0, 0.0, pytest.approx(0.095))
        assert [address.rpartition("/")[2] for address in pages.silent] == ["two"]
        pages.text |= {"one": page(110), "three": page(7030)}
        assert pages.look(one="a", three="b") == (10.0, 0.0, pytest.approx(0.095))
        assert (pages.releases, pages.silent) == (("a", "b"), [])

    def test_takes_a_counter_that_fell_for_a_new_process(self, pages: Pages) -> None:
        """It counts from 0."""
        for count in (100, 6):
            pages.text["one"] = page(count)
            seen = pages.look(one="a")
        assert seen == (3.0, 0.0, pytest.approx(0.095))

    def test_forgets_what_is_older_than_its_window(self, pages: Pages) -> None:
        """A burst is over when the window is."""
        for count in (0, 100, 100, 100):
            pages.text["one"] = page(count + 1)
            seen = pages.look(after=WINDOW_SECONDS / 2, one="a")
        assert seen == (0.0, 0.0, None)

    def test_does_not_compare_with_long_ago(self, pages: Pages) -> None:
        """After an hour in which nobody looked, it begins anew."""
        pages.text["one"] = page(1)
        pages.look(one="a")
        assert pages.look(after=3600, one="a") is None
        pages.text["one"] = page(3)
        assert pages.look(one="a") == (1.0, 0.0, pytest.approx(0.095))

    def test_goes_on_without_replicas(self, pages: Pages) -> None:
        """Nothing is known for a moment, and then again."""
        pages.text["one"] = page(1)
        pages.look(one="a")
        assert pages.look() is None
        rates, silent = pages.scraper.look({f"http://127.0.0.1:{free_port()}/metrics": "a"})
        assert (rates, len(silent)) == (None, 1)


async def test_reads_the_page_of_the_service() -> None:
    """The names and labels that the service has, as it writes them."""
    metrics, sent = Metrics(release="a"), list[bytes]()

    async def check() -> None:
        """Whether it is ready is no part of this."""

    app = metrics_app(metrics, check)

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sent.append(body)

    with serving(lambda *_: (200, {}, sent[-1])) as port:
        scraper = Scraper()
        for _ in range(2):
            metrics.observe("GET", "/api/v1/notes/{id}", 200, 0.03, synthetic=False)
            metrics.observe("GET", "/ready", 200, 0.03, synthetic=False)
            metrics.observe("POST", "/api/v1/notes", 503, 0.03, synthetic=True)
            await app({"type": "http", "path": "/metrics"}, None, send)  # type: ignore[arg-type]
            rates, _ = scraper.look({f"http://127.0.0.1:{port}": "a"})
    assert rates
    traffic = rates.traffic("a")
    assert traffic.requests / traffic.errors == traffic.requests / traffic.synthetic == 2.0
    assert traffic.p95 == pytest.approx(0.04875)
