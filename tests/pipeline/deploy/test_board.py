"""What a release board learns of a deploy: a stub that takes what the board takes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import pytest

from pipeline.deploy import board
from pipeline.proof.report import Report, Rollback
from pipeline.system.ports import free_port
from tests.logs import logged
from tests.pipeline.deploy.hearing import deploy
from tests.pipeline.deploy.world import World
from tests.pipeline.proof.servers import Reply, Request, Service
from tests.pipeline.proof.test_report import FACTS, INTERRUPTED, NEW, NO_BUILD, STUCK, UNCHANGED, UNDONE

CUT_SHORT = replace(INTERRUPTED, rollback=Rollback(release="77c0de4410aa", verdict="proved", reason=None))
TOKEN = "a-service-token-of-a-board"
RUN = {"GITHUB_RUN_ID": "7", "GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "acme/shop"}


def behave(service: Service, request: Request) -> Reply | None:
    """Answer as a board does that has TOKEN: what is posted with it is kept, once for each key; listed; and changed."""
    place, _, query = request.path.partition("?")
    path, _, identity = place.removeprefix("/api/v1/").partition("/")
    if path != "releases":
        return Reply(404)
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        return Reply(401)
    if request.method == "GET":
        wanted = dict(parse_qsl(query)).items()
        newest = reversed(service.things.values())
        return Reply(200, {"items": [one for one in newest if wanted <= one.items()]})
    if request.method == "PATCH" and identity in service.things:
        service.things[identity].update(json.loads(request.body))
        return Reply(200, service.things[identity])
    return None if (request.method, identity) == ("POST", "") else Reply(404)


@pytest.fixture(name="running")
def _running() -> Iterator[Service]:
    service = Service(behave=behave)
    service.start()
    yield service
    service.stop()


def told(report: Report, **environ: str) -> list[str]:
    """The lines that a deploy with REPORT says about the board."""
    with logged() as warned:
        board.tell("shop", report, environ)
    return warned


def on_board(service: Service) -> list[dict[str, Any]]:
    """What it keeps, oldest first."""
    return list(service.things.values())


class TestTell:
    def test_records_what_became_of_each_deploy(self, running: Service) -> None:
        """Each verdict in the board's own words, with the commit and the sentence; nothing of what shipped nothing."""
        place = {"RELEASE_BOARD_URL": f"{running.url}/", "RELEASE_BOARD_TOKEN": f"{TOKEN}\n"}
        for number, facts in enumerate((FACTS, UNDONE, NO_BUILD, STUCK, CUT_SHORT, INTERRUPTED, UNCHANGED)):
            assert told(replace(facts, number=number), **place, **RUN) == []
        seen = on_board(running)
        assert {one["service"] for one in seen} == {"shop"}
        assert [one["status"] for one in seen] == [
            "deployed", "rolled_back", "failed", "failed", "rolled_back", "failed",
        ]  # fmt: skip
        assert seen[0].items() >= {
            "environment": "local", "version": NEW, "commit": "abc1234",
            "url": "https://github.example/acme/shop/actions/runs/7",
            "notes": f"Release {NEW} serves local: 252 requests, 12 failed",
        }.items()  # fmt: skip
        assert seen[2]["version"] == "abc1234"

    def test_records_the_same_deploy_once(self, running: Service) -> None:
        """What is sent again after a lost answer is the same release; the next deploy of it is another."""
        place = {"RELEASE_BOARD_URL": running.url, "RELEASE_BOARD_TOKEN": TOKEN}
        for facts in (FACTS, FACTS, replace(FACTS, number=13)):
            assert told(facts, **place) == []
        assert len(on_board(running)) == 2

    def test_says_what_is_wrong_with_the_token(self, running: Service) -> None:
        """One line, which does not hold it; nor what the address hides."""
        address = running.url.replace("http://", "http://user:hidden@")
        [line] = told(FACTS, RELEASE_BOARD_URL=address, RELEASE_BOARD_TOKEN="not-the-right-token")
        assert line.endswith(f"{running.url} answers 401: RELEASE_BOARD_TOKEN is not the board's SERVICE_TOKEN")

    @pytest.mark.parametrize(
        ("environ", "problem"),
        [
            ({"RELEASE_BOARD_URL": "http://board"}, "RELEASE_BOARD_TOKEN: not set"),
            ({"RELEASE_BOARD_URL": "board", "RELEASE_BOARD_TOKEN": "secret"}, "RELEASE_BOARD_URL: must be an http or"),
            (
                {"RELEASE_BOARD_URL": "ftp://x", "RELEASE_BOARD_TOKEN": "secret"},
                "RELEASE_BOARD_URL: must be an http or",
            ),
            (
                {"RELEASE_BOARD_URL": "http://127.0.0.1:9", "RELEASE_BOARD_TOKEN": "sécret"},
                "RELEASE_BOARD_TOKEN: contains",
            ),
            ({"RELEASE_BOARD_URL": "http://127.0.0.1:9", "RELEASE_BOARD_TOKEN": "sec\nret"}, "does not answer"),
        ],
    )
    def test_says_what_is_wrong_with_its_variables(self, environ: dict[str, str], problem: str) -> None:
        """One line each."""
        [line] = told(FACTS, **environ)
        assert problem in line
        assert "ret" not in line.replace("secret of", "")

    def test_is_silent_where_no_board_is_named(self) -> None:
        """Most have none."""
        assert told(FACTS) == told(FACTS, RELEASE_BOARD_URL="") == []

    def test_does_not_wait_for_a_board_that_is_away(self) -> None:
        """A dead address at once; one that never answers for as long as two tries may take."""
        [line] = told(FACTS, RELEASE_BOARD_URL=f"http://127.0.0.1:{free_port()}", RELEASE_BOARD_TOKEN="t")
        assert "does not answer (ConnectError)" in line

    def test_gives_up_on_a_silent_board(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever accepts and says nothing is left alone."""
        monkeypatch.setattr(board, "TIMEOUT", httpx2.Timeout(0.2))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = time.monotonic()
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            [line] = told(FACTS, RELEASE_BOARD_URL=address, RELEASE_BOARD_TOKEN="t")
        assert "does not answer (ReadTimeout)" in line
        assert time.monotonic() - started < 3


class TestRetell:
    """What a watch has to say afterwards."""

    @pytest.fixture(name="known")
    def _known(self, running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
        """A board that each deploy is told to."""
        monkeypatch.setenv("RELEASE_BOARD_URL", running.url)
        monkeypatch.setenv("RELEASE_BOARD_TOKEN", TOKEN)
        return running

    def test_says_that_a_release_was_taken_back(self, heard: World, known: Service) -> None:
        """The one before is what runs, and the older deploy of it stays as it was."""
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        assert deploy(heard)[1]["verdict"] == "rolled_back"
        seen = [(one["version"], one["status"]) for one in on_board(known)]
        assert seen == [("b", "rolled_back"), ("a", "deployed")]
        assert on_board(known)[0]["notes"].startswith("Release b was undone on here: ReleaseFailing fired 60 s after")

    def test_says_of_one_that_stays_that_it_should_not(self, heard: World, known: Service) -> None:
        """It is what runs still: only the words change."""

        def fire() -> None:
            heard.prometheus.fire()
            heard.target.wrong = ["the disk is full"]

        heard.prometheus.meanwhile[60] = fire
        assert deploy(heard)[1]["verdict"] == "failed"
        [one] = on_board(known)
        assert (one["status"], "THE ROLLBACK FAILED, TOO" in one["notes"]) == ("deployed", True)

    def test_changes_the_newest_of_a_release(self, running: Service) -> None:
        """One that was deployed twice, and of another environment."""
        place = {"RELEASE_BOARD_URL": running.url, "RELEASE_BOARD_TOKEN": TOKEN}
        for number, environment in ((1, "local"), (2, "local"), (3, "elsewhere")):
            assert told(replace(FACTS, number=number, environment=environment), **place) == []
        with logged() as warned:
            board.retell("shop", replace(UNDONE, release=FACTS.release), place)
        assert warned == []
        assert [one["status"] for one in on_board(running)] == ["deployed", "rolled_back", "deployed"]

    def test_says_what_the_board_does_not_know(self, running: Service) -> None:
        """In a line; a board of another kind, too."""
        place = {"RELEASE_BOARD_URL": running.url, "RELEASE_BOARD_TOKEN": TOKEN}
        lines: list[str] = []
        for behaviour in (behave, lambda *_: Reply(200, ["no"])):
            running.behave = behaviour
            with logged() as warned:
                board.retell("shop", replace(UNDONE, release=FACTS.release), place)
            lines += warned
        assert lines == [
            f"could not notify the release board: it has no release {NEW} of local that is deployed",
            "could not notify the release board: it answers, but not as a release board does",
        ]
