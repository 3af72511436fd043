"""What users see of a swap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.config.requests import RequestSpec
from pipeline.restore.window import Asked, Window, ask_over_http, judge_window

LIST = RequestSpec(name="list", method="GET", path="/list")


def asked(began: float, ended: float, *, refused: bool = False, wrong: str = "", path: str = "/list") -> Asked:
    """Return a request of these times."""
    return Asked(path, began, ended, refused, wrong)


def refused(began: float, ended: float) -> Asked:
    """Return one that was turned away, with Retry-After."""
    return asked(began, ended, refused=True, wrong="503")


class TestJudgeWindow:
    def test_measures_from_the_first_refusal_to_the_last(self) -> None:
        """A request is over when its answer is there, and counts from when it was sent."""
        seen = judge_window([asked(0, 0.1), refused(1.9, 2.2), refused(3, 3.4), asked(3.5, 3.6)], touched=2.0)
        assert (seen.sent, seen.refused, seen.seconds, seen.failed) == (3, 2, 1.5, 0)

    def test_keeps_apart_what_was_refused_before_the_swap(self) -> None:
        """Where something is changed long before, users are told how long the swap alone turned them away."""
        early = [refused(2, 2.1), asked(3, 3.1), asked(3.2, 3.3, wrong="500")]
        swap = [refused(60, 60.4), asked(61, 61.1)]
        seen = judge_window([asked(0, 0.1), *early, *swap], touched=1.0, swapped=60.0)
        assert (seen.sent, seen.refused, seen.seconds) == (2, 1, 0.4)
        assert (seen.before, seen.early, seen.failed) == ((0, 1), (1, 3), 1)

    def test_forgives_nothing_but_a_refusal(self) -> None:
        """A 500, or a 503 that does not say when to come back."""
        seen = judge_window([asked(0, 0.1), asked(2, 2.1, wrong="500 x"), asked(2, 2.1, wrong="503 y")], touched=1.0)
        assert (seen.failed, seen.failures, seen.seconds) == (2, ("GET /list: 500 x", "GET /list: 503 y"), 0.0)

    def test_does_not_hold_against_a_swap_what_failed_before(self) -> None:
        """That is what it is there to mend; another path that fails now is held against it."""
        broken = asked(0, 0.1, wrong="500 no such table", path="/broken")
        later = asked(2, 2.1, wrong="500 no such table", path="/broken")
        seen = judge_window([broken, asked(0, 0.1), later, asked(2, 2.1, wrong="500")], touched=1.0)
        assert (seen.before, seen.failed) == ((1, 2), 1)


class TestWindow:
    def test_is_settled_when_everybody_is_answered_again(self) -> None:
        """Not while one of the last answers is a refusal."""
        down = threading.Event()
        calls: list[str] = []

        def ask(spec: RequestSpec) -> tuple[bool, str]:
            calls.append(spec.path)
            return (True, "503") if down.is_set() else (False, "")

        writes = RequestSpec(name="write", method="POST", path="/write", writes=True)
        with Window([LIST, writes], ask) as window:
            wait(window, settled=True)
            window.touch()
            down.set()
            wait(window, settled=False)
            down.clear()
            wait(window, settled=True)
            seen = window.judged()
        assert seen.refused >= 1
        assert seen.failed == 0
        assert {*calls} == {"/list"}

    def test_asks_something_where_nothing_reads(self) -> None:
        """Each service has that."""
        calls: list[str] = []

        def ask(spec: RequestSpec) -> tuple[bool, str]:
            calls.append(spec.path)
            return False, ""

        with Window([], ask) as window:
            wait(window, settled=True)
        assert {*calls} == {"/health"}


def wait(window: Window, *, settled: bool) -> None:
    """Wait until the window is, or is not."""
    for _ in range(500):
        if window.settled() is settled:
            return
        threading.Event().wait(0.01)
    raise AssertionError(window.judged())


@pytest.fixture(name="place")
def _place() -> Iterator[str]:
    """A service that answers as its path says; below /later it says when to come back."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, status = self.path.split("/")
            self.send_response(int(status))
            if kind == "later":
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class TestAskOverHttp:
    @pytest.mark.parametrize(
        ("path", "answer"),
        [
            ("/now/200", (False, "")),
            ("/later/503", (True, "503")),
            ("/now/503", (False, "503")),
            ("/later/500", (False, "500")),
        ],
    )
    def test_tells_a_refusal_from_a_failure(self, place: str, path: str, answer: tuple[bool, str]) -> None:
        """By the status and the header, both."""
        assert ask_over_http(place, None)(RequestSpec(name="x", method="GET", path=path)) == answer

    def test_says_why_nobody_answered(self) -> None:
        """That is no refusal."""
        refused, wrong = ask_over_http("http://127.0.0.1:1", None)(LIST)
        assert not refused
        assert "refused" in wrong.lower()
