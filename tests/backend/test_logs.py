"""The log: one shape whoever logs, no secret, no more of a client than LOG_CLIENT allows, the caller's trace."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from backend.app import create_app
from backend.logs import configure_logging
from backend.settings import Settings
from tests.conftest import TOKEN, asgi_client
from tests.notes import NOTES

SHAPE = {"timestamp", "level", "event", "release"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
PASSWORD, THEIRS = "p@ssword-of-the-database", "their-password"
DATABASE = f"postgresql://app:{quote(PASSWORD)}@db.example/board"
AWKWARD = 'a "quoted" p@ss/word\\of umläuts'

Events = Callable[[], AbstractContextManager[list[dict[str, Any]]]]
pytestmark = pytest.mark.usefixtures("notes")


@pytest.fixture(name="events")
def _events(settings: Settings, capfdbinary: pytest.CaptureFixture[bytes]) -> Events:
    """Return what returns the events that a block has logged: `with events() as logged`."""

    @contextmanager
    def events() -> Iterator[list[dict[str, Any]]]:
        logged: list[dict[str, Any]] = []
        capfdbinary.readouterr()
        configure_logging(settings)  # not sooner: before the test itself, the output is another one
        yield logged
        logged += [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    return events


@pytest.fixture(name="failing")
def _failing(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    return app


class TestShape:
    @pytest.mark.parametrize("name", ["uvicorn.error", "alembic.runtime.migration", "asyncio"])
    def test_is_the_same_for_libraries(self, events: Events, name: str) -> None:
        """A library's event, with an exception and a newline in it, is one line with the same fields as ours."""
        with events() as logged:
            structlog.get_logger("app").warning("ours")
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                logging.getLogger(name).warning("of a %s\nin two lines", "library", exc_info=error)
        ours, theirs = logged
        assert ours.keys() == SHAPE
        assert theirs.keys() == SHAPE | {"logger", "exception"}
        assert (theirs["event"], theirs["logger"]) == ("of a library\nin two lines", name)
        assert theirs["exception"][0]["exc_type"] == "ZeroDivisionError"


class TestSecrets:
    @pytest.mark.parametrize("log_format", ["json", "console"])
    def test_are_in_no_line(
        self, settings: Settings, capfdbinary: pytest.CaptureFixture[bytes], log_format: str
    ) -> None:
        """Those of the settings, however they are written, and a password in any URL, in a text or an exception."""
        own = {
            "log_format": log_format,
            "database_url": SecretStr(DATABASE),
            "redis_password": SecretStr(AWKWARD),
            "redis_url": None,
        }
        configure_logging(settings.model_copy(update=own))
        texts = [
            f"refused {TOKEN}",
            f"no route to {DATABASE}",
            f"wrong: {PASSWORD}",
            f"wrong: {AWKWARD}",
            f"cannot reach https://someone:{THEIRS}@hooks.example/x, https://hooks.example:8443/a@b is fine",
        ]
        for text in texts:
            try:
                raise ConnectionError(text)
            except ConnectionError as error:
                structlog.get_logger("app").exception("unhandled error", reason=text)
                logging.getLogger("uvicorn.error").error(text, exc_info=error)
        printed = capfdbinary.readouterr().out.decode()
        assert printed.count("***") >= 4 * len(texts)
        for secret in (TOKEN, "ssword-of-the-database", "quoted", "umläuts", THEIRS):
            assert secret not in printed
        assert printed.count("https://hooks.example:8443/a@b is fine") >= 4

    def test_what_is_short_takes_no_word_away(
        self, settings: Settings, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        """In development a password may be `board`, and the log may still say so."""
        configure_logging(settings.model_copy(update={"postgres_password": SecretStr("board")}))
        structlog.get_logger("app").info("started", environment="board")
        assert json.loads(capfdbinary.readouterr().out)["environment"] == "board"


class TestClient:
    @pytest.mark.parametrize(
        ("address", "truncated"),
        [
            ("203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1234:5678::9", "2001:db8:1234::/48"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ],
    )
    async def test_is_whole_or_truncated(
        self, settings: Settings, events: Events, address: str, truncated: str
    ) -> None:
        """LOG_CLIENT decides what the access event has of the address; no other field has it."""
        for log_client in ("full", "truncated"):
            app = create_app(settings.model_copy(update={"log_client": log_client}))
            with events() as logged:
                async with asgi_client(app) as client:
                    await client.get("/nowhere", headers={"X-Forwarded-For": address})
            (event,) = [each for each in logged if each["event"] == "request"]
            assert event["client"] == (truncated if log_client == "truncated" else address.removeprefix("::ffff:"))

    async def test_what_is_no_address_is_left_out(self, settings: Settings, events: Events) -> None:
        """Nobody knows what it would be, truncated."""
        app = create_app(settings.model_copy(update={"log_client": "truncated"}))
        transport = httpx2.ASGITransport(app=app, client=("host.of.a.person", 1))
        with events() as logged:
            async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
                await client.get("/nowhere")
        assert [each["client"] for each in logged if each["event"] == "request"] == [None]


class TestTrace:
    async def test_is_in_each_line_of_its_request_and_of_no_other(self, failing: FastAPI, events: Events) -> None:
        """The trace id of the caller's `traceparent` is in what the request logs, and ends with it."""
        with events() as logged:
            async with asgi_client(failing) as client:
                await client.get("/bug", headers={"traceparent": PARENT})
                await client.get("/bug")
        first, access, *others = [each for each in logged if each["event"] in ("unhandled error", "request")]
        assert (first["event"], access["event"]) == ("unhandled error", "request")
        assert first["trace_id"] == access["trace_id"] == TRACE
        assert first["request_id"] == access["request_id"]
        assert len(others) == 2
        assert not any("trace_id" in event for event in others)

    @pytest.mark.parametrize(
        ("parent", "good"),
        [
            (PARENT, True),
            (f"cc{PARENT[2:]}", True),  # a version to come
            (f"cc{PARENT[2:]}-what-comes-then", True),
            (f"{PARENT}-more", False),
            (f"cc{PARENT[2:]}more", False),
            (f"ff{PARENT[2:]}", False),
            (PARENT.upper(), False),
            (PARENT[:-1], False),
            (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
            (f"00-{TRACE}-{'0' * 16}-01", False),
            ("", False),
            ("-" * 8000, False),
            ("00-" + "x" * 52, False),
        ],
    )
    async def test_garbage_is_ignored(self, app: FastAPI, events: Events, parent: str, *, good: bool) -> None:
        """What W3C's Trace Context does not allow is no trace, and the request is answered as any."""
        with events() as logged:
            async with asgi_client(app) as client:
                answer = await client.get(NOTES, headers={"traceparent": parent})
        assert answer.status_code == 200
        (access,) = [each for each in logged if each["event"] == "request"]
        assert access.get("trace_id") == (TRACE if good else None)
