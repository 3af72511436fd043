"""What surrounds every request, and errors of every kind."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse

from backend.app import create_app
from backend.logs import configure_logging
from backend.settings import Settings
from tests.conftest import asgi_client
from tests.notes import NOTES

SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
CANARY = "canary-Zq8"
SIGN_IN = {f"/api/v1/auth/{name}" for name in ("login", "refresh", "logout")}

pytestmark = pytest.mark.usefixtures("notes")


class TestHeaders:
    @pytest.mark.parametrize("path", ["/health", "/nowhere", f"{NOTES}?limit=0"])
    async def test_each_answer_says_who_answered(self, client: httpx2.AsyncClient, path: str) -> None:
        """Good answers and problems carry X-Release, a request id and the security headers."""
        headers = (await client.get(path)).headers
        assert headers["x-release"] == "dev"
        assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])
        assert {name: headers[name] for name in SECURITY} == SECURITY

    @pytest.mark.parametrize(
        ("given", "kept"),
        [("abcd-1234.X_y", True), ("x" * 64, True), ("short", False), ("x" * 65, False), ("inject\tme-here", False)],
    )
    async def test_a_good_request_id_is_kept(self, client: httpx2.AsyncClient, given: str, *, kept: bool) -> None:
        """An id that came is answered, and stands in the problem; a malformed one is replaced."""
        answer = await client.get("/nowhere", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.json()["request_id"] == answer.headers["x-request-id"]

    async def test_https_at_the_edge_is_kept_https(self, app: FastAPI) -> None:
        """Over TLS the browser is told to stay there."""
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="https://service") as client:
            assert "max-age=" in (await client.get("/health")).headers["strict-transport-security"]


class TestBodyCap:
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_large_body_is_413(self, writer: httpx2.AsyncClient, settings: Settings, *, chunked: bool) -> None:
        """More than MAX_BODY_BYTES is a 413 problem, whether the length was said or the body came in chunks."""

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(settings.max_body_bytes // 65536 + 1):
                yield b" " * 65536

        content = chunks() if chunked else b" " * (settings.max_body_bytes + 1)
        headers = {"Content-Type": "application/json"}
        answer = await writer.post(NOTES, content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert str(settings.max_body_bytes) in answer.json()["detail"]

    async def test_a_small_chunked_body_passes(self, writer: httpx2.AsyncClient) -> None:
        """Chunks within the limit are a request like any other."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"text":'
            yield b'"a"}'

        headers = {"Content-Type": "application/json"}
        assert (await writer.post(NOTES, content=chunks(), headers=headers)).status_code == 201


class TestSizeCaps:
    async def test_a_long_query_is_414(self, client: httpx2.AsyncClient) -> None:
        """More than 8 KiB of query is a problem; what is as long as that is read."""
        assert (await client.get(f"/health?{'x' * 8192}")).status_code == 200
        answer = await client.get(f"/health?{'x' * 8193}")
        assert (answer.status_code, answer.headers["content-type"]) == (414, "application/problem+json")

    async def test_large_headers_are_431(self, client: httpx2.AsyncClient) -> None:
        """More than 32 KiB of header fields, however many they are, is a problem; half of it is read."""
        for number, status in ((160, 200), (400, 431)):
            answer = await client.get("/health", headers=[(f"x-{each:03}", "y" * 95) for each in range(number)])
            assert answer.status_code == status
        assert answer.json()["title"] == "Request Header Fields Too Large"


class TestErrors:
    async def test_a_bug_is_a_500_problem_and_no_secret_in_the_log(
        self, app: FastAPI, client: httpx2.AsyncClient, capfdbinary: pytest.CaptureFixture[bytes], settings: Settings
    ) -> None:
        """A bug answers with the request id alone; the log has the traceback, without the values of variables."""
        configure_logging(settings)

        @app.get("/bug")
        async def bug() -> None:
            password = CANARY
            raise ZeroDivisionError(len(password))

        answer = await client.get("/bug")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "ZeroDivisionError" not in answer.text
        printed = capfdbinary.readouterr().out.decode()
        assert CANARY not in printed
        (event,) = [json.loads(line) for line in printed.splitlines() if "unhandled error" in line]
        assert event["request_id"] == answer.headers["x-request-id"]
        assert event["exception"][0]["exc_type"] == "ZeroDivisionError"

    async def test_debug_tells_the_error(self, settings: Settings) -> None:
        """DEBUG=true puts the error into the answer."""
        app = create_app(settings.model_copy(update={"debug": True}))

        @app.get("/bug")
        async def bug() -> None:
            raise ZeroDivisionError("tell me")

        async with asgi_client(app) as client:
            assert "tell me" in (await client.get("/bug")).json()["detail"]

    async def test_a_wrong_method_says_which_are_right(self, client: httpx2.AsyncClient) -> None:
        """405 is a problem too, and keeps its Allow header."""
        answer = await client.put("/health")
        assert (answer.status_code, answer.headers["allow"], answer.json()["status"]) == (405, "GET", 405)
        answer = await client.put(NOTES)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
        answer = await client.post(f"{NOTES}/{UUID(int=0)}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, PATCH")

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"text": "\xff"}', "must be UTF-8 text"),
            (b"[" * 100_000, "has a number of too many digits, or is nested too deep"),
            (b'{"text": ' + b"9" * 5000 + b"}", "has a number of too many digits, or is nested too deep"),
        ],
        ids=["bytes", "depth", "digits"],
    )
    async def test_a_body_that_no_parser_reads_is_a_documented_problem(
        self, writer: httpx2.AsyncClient, body: bytes, message: str
    ) -> None:
        """It is as invalid as any other body."""
        answer = await writer.post(NOTES, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["errors"]) == (422, [{"location": "body", "message": message}])

    async def test_a_validation_problem_does_not_quote_the_input(self, writer: httpx2.AsyncClient) -> None:
        """What was sent, a secret perhaps, does not come back."""
        answer = await writer.post(NOTES, json={"text": [CANARY], "password": CANARY})
        assert answer.status_code == 422
        assert CANARY not in answer.text


class TestAccessEvent:
    async def test_one_for_each_request(
        self, client: httpx2.AsyncClient, capfdbinary: pytest.CaptureFixture[bytes], settings: Settings
    ) -> None:
        """Each request is one event: route template, status, bytes, milliseconds; the query is left out."""
        configure_logging(settings.model_copy(update={"log_level": "INFO"}))
        await asyncio.gather(client.get(f"{NOTES}?tag={CANARY}"), client.get("/health"), client.get("/ready"))
        lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
        (event,) = [line for line in lines if line["event"] == "request"]
        assert event.items() >= {"method": "GET", "route": NOTES, "status": 200, "level": "info"}.items()
        assert event["bytes"] > 0
        assert event["ms"] > 0
        assert CANARY not in str(event)


class TestStack:
    def test_no_layer_is_base_http_middleware(self, settings: Settings) -> None:
        """Every layer is plain ASGI: BaseHTTPMiddleware costs 77 µs each and breaks context variables."""
        layer: Any = create_app(
            settings.model_copy(update={"cors_origins": ("https://page.example",)})
        ).build_middleware_stack()
        names = []
        while layer is not None:
            assert not isinstance(layer, BaseHTTPMiddleware)
            names.append(type(layer).__name__)
            layer = getattr(layer, "app", None)
        assert {"Forwarded", "Observation", "CORSMiddleware", "Limits", "LastResort"} <= set(names)

    async def test_cors_admits_exact_origins(self, settings: Settings) -> None:
        """A listed origin may call with credentials, even when the answer is a 500; another gets no leave."""
        app = create_app(settings.model_copy(update={"cors_origins": ("https://page.example",)}))

        @app.get("/bug")
        async def bug() -> None:
            raise ZeroDivisionError

        async with asgi_client(app) as client:
            for origin, allowed in (("https://page.example", "https://page.example"), ("https://evil.example", None)):
                for path in ("/health", "/bug"):
                    answer = await client.get(path, headers={"Origin": origin})
                    assert answer.headers.get("access-control-allow-origin") == allowed
                    assert "x-release" in answer.headers


class TestRequestTimeout:
    async def test_a_long_request_is_a_problem_and_a_long_answer_goes_on(self, settings: Settings) -> None:
        """What has not begun in time gets a 504 that a browser may read; a stream that has begun is not cut."""
        origins = {"cors_origins": ("https://page.example",), "request_timeout_seconds": 0.3}
        app, ended = create_app(settings.model_copy(update=origins)), asyncio.Event()

        @app.get("/slow")
        async def slow() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        @app.get("/own")
        async def own() -> None:
            raise TimeoutError("of the code itself")

        @app.get("/stream")
        async def stream() -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield b"part "
                    await asyncio.sleep(0.2)

            return StreamingResponse(parts())

        async with asgi_client(app) as client:
            answer = await client.get("/slow", headers={"Origin": "https://page.example"})
            assert (answer.status_code, answer.json()["type"]) == (504, "urn:problem-type:request-timeout")
            assert answer.headers["access-control-allow-origin"] == "https://page.example"
            assert ended.is_set()
            assert (await client.get("/own")).status_code == 500
            assert (await client.get("/stream")).text == "part part part "


class TestOpenApi:
    async def test_is_valid_and_every_error_is_a_problem(self, client: httpx2.AsyncClient) -> None:
        """The document is valid OpenAPI; each operation documents its errors, all as problem details."""
        document = (await client.get("/openapi.json")).json()
        OpenAPI.model_validate(document)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                errors = {
                    s: r for s, r in operation["responses"].items() if s >= "400" and (path, s) != ("/ready", "503")
                }
                assert {"422", "500"} <= errors.keys()
                assert all(list(error["content"]) == ["application/problem+json"] for error in errors.values()), path
                if path.startswith("/api/"):
                    assert {"429", "503"} <= errors.keys()
                if method in ("post", "patch", "delete"):
                    assert "401" in errors
                    assert ("security" in operation) == (path not in SIGN_IN), path
        assert document["paths"][NOTES]["post"]["security"] == [{"SERVICE_TOKEN": []}, {"account": []}]
        create = document["paths"][NOTES]["post"]["responses"]
        assert create.keys() == {*("201", "401", "403", "409", "413", "414", "422", "429", "431", "500", "503", "504")}
