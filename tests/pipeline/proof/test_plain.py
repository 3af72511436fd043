"""The client that needs nothing installed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.proof.answers import Call, NoAnswer
from pipeline.proof.plain import PlainClient
from tests.pipeline.proof.servers import Reply, Service

GET = Call("GET", "/things")


@contextlib.asynccontextmanager
async def answering(content: bytes) -> AsyncIterator[str]:
    """Answer each connection with `content`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(content)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class TestPlainClient:
    async def test_asks_as_the_proof_does(self, service: Service) -> None:
        """The token and the mark go with each request, and its own headers win."""
        answer = await PlainClient(service.url, "secret").send(
            Call("POST", "/things", (("Idempotency-Key", "k" * 32), ("Accept", "text/x")), b'{"kind": "k"}')
        )
        assert (answer.status, answer.release, answer.json()) == (201, "new", {"kind": "k", "id": "kkkkkkkk"})
        [seen] = service.requests
        assert seen.headers["authorization"] == "Bearer secret"
        assert (seen.headers["slipway-synthetic"], seen.headers["accept"]) == ("true", "text/x")
        assert (seen.headers["connection"], seen.headers["content-length"]) == ("close", "13")

    async def test_speaks_to_a_unix_socket(self, tmp_path: Path) -> None:
        """One replica is reached through its own socket."""
        service = Service()
        service.start(tmp_path / "socket")
        assert (await PlainClient(f"unix:{tmp_path / 'socket'}").send(GET)).status == 200
        service.stop()

    async def test_puts_chunks_together(self) -> None:
        """A stream has no length."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with answering(head + b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n') as base:
            assert (await PlainClient(base).send(GET)).json() == {"a": 1}

    async def test_wants_no_body_of_a_head(self) -> None:
        """Its answer has the length of what a GET would be answered."""
        async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as base:
            assert (await PlainClient(base).send(Call("HEAD", "/"))).body == b""

    @pytest.mark.parametrize("cut", [0, 20, 70])
    async def test_tells_an_answer_that_is_cut_short(self, service: Service, cut: int) -> None:
        """A connection that ends before, in the head or in the body of an answer is a reset."""
        service.behave = lambda _service, _request: Reply(json={"items": ["x" * 100]}, cut=cut)
        with pytest.raises(NoAnswer) as caught:
            await PlainClient(service.url).send(GET)
        assert caught.value.kind == "reset"

    async def test_tells_a_refused_connection(self, tmp_path: Path, service: Service) -> None:
        """Where nobody listens, at a port or at a socket."""
        service.refuse()
        for base in (service.url, f"unix:{tmp_path / 'none'}"):
            with pytest.raises(NoAnswer) as caught:
                await PlainClient(base).send(GET)
            assert caught.value.kind == "refused"
