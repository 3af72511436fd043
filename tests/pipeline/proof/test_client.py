from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.proof.answers import Answer, Call, NoAnswer, RequestFailed, check
from pipeline.proof.client import Client
from tests.pipeline.proof.servers import Reply, Service

GET = Call("GET", "/things")


class TestClient:
    async def test_says_who_answered(self, service: Service) -> None:
        """The release that answered is in `X-Release`, and the token goes with each request."""
        client = Client(service.url, "secret")
        answer = await client.send(GET)
        await client.aclose()
        assert (answer.status, answer.release, answer.json()) == (200, "new", {"items": []})
        assert service.requests[0].headers["authorization"] == "Bearer secret"
        assert service.requests[0].headers["slipway-synthetic"] == "true"

    async def test_keeps_connections_or_opens_fresh_ones(self, service: Service) -> None:
        """Kept-alive requests share eight connections; a fresh one is its own and says that it closes."""
        client = Client(service.url)
        for _ in range(16):
            await client.send(GET)
        for _ in range(3):
            await client.send(GET, fresh=True)
        await client.aclose()
        assert len({request.connection for request in service.requests[:16]}) == 8
        fresh = service.requests[16:]
        assert len({request.connection for request in fresh}) == 3
        assert {request.headers.get("connection") for request in fresh} == {"close"}

    async def test_never_sends_again_what_died_on_a_kept_connection(self, service: Service) -> None:
        """A request whose reused connection dies is a failure that a user would see, so it is seen here."""
        client = Client(service.url)
        for _ in range(8):
            await client.send(GET)
        service.behave = lambda _service, _request: Reply(cut=0)
        with pytest.raises(NoAnswer) as caught:
            await client.send(Call("GET", "/once"))
        await client.aclose()
        assert caught.value.kind == "reset"
        assert [request.path for request in service.requests].count("/once") == 1
        assert service.requests[-1].connection in {request.connection for request in service.requests[:8]}

    @pytest.mark.parametrize("cut", [0, 20, 70])
    @pytest.mark.parametrize("fresh", [True, False])
    async def test_tells_an_answer_that_is_cut_short(self, service: Service, cut: int, fresh: bool) -> None:
        """A connection that ends before, in the head or in the body of an answer is a reset."""
        service.behave = lambda _service, _request: Reply(json={"items": ["x" * 100]}, cut=cut)
        client = Client(service.url)
        with pytest.raises(NoAnswer) as caught:
            await client.send(GET, fresh=fresh)
        await client.aclose()
        assert caught.value.kind == "reset"

    async def test_tells_a_refused_connection(self, tmp_path: Path, service: Service) -> None:
        """Where nobody listens, at a port or at a socket, the connection is refused."""
        service.refuse()
        for base in (service.url, f"unix:{tmp_path / 'none'}"):
            client = Client(base)
            with pytest.raises(NoAnswer) as caught:
                await client.send(GET)
            await client.aclose()
            assert caught.value.kind == "refused"

    async def test_speaks_to_a_unix_socket(self, tmp_path: Path) -> None:
        """One replica is reached through its own socket."""
        service = Service()
        service.start(tmp_path / "socket")
        client = Client(f"unix:{tmp_path / 'socket'}")
        answer = await client.send(GET, fresh=True)
        await client.aclose()
        service.stop()
        assert answer.status == 200

    async def test_keeps_the_path_of_the_address(self, service: Service) -> None:
        """A service may live below a path of its host."""
        client = Client(f"{service.url}/board/")
        await client.send(Call("GET", "/x?a=1"))
        await client.aclose()
        assert service.requests[0].path == "/board/x?a=1"

    async def test_reaches_a_name_of_this_machine(self, service: Service) -> None:
        """It connects to 127.0.0.1, whatever the resolver knows, and the edge is told the name."""
        client = Client(service.url.replace("127.0.0.1", "shop.localhost"))
        await client.send(GET)
        await client.send(GET, fresh=True)
        await client.aclose()
        port = service.url.rpartition(":")[2]
        assert [request.headers["host"] for request in service.requests] == [f"shop.localhost:{port}"] * 2

    def test_refuses_what_is_no_address(self) -> None:
        """A wrong url is said before anything is sent."""
        with pytest.raises(UsageError, match="write it as http://host:port"):
            Client("localhost:8080")


class TestCheck:
    @pytest.mark.parametrize(
        ("answer", "expect", "kind", "says"),
        [
            (Answer(500, None, b"oh"), None, "5xx", "500 oh"),
            (Answer(404, None, b""), None, "status", "404"),
            (Answer(200, None, b"<html>"), {}, "body", "not JSON: 200 <html>"),
            (Answer(200, None, b'{"a": 2}'), {"a": 1}, "body", '`a` is 2, not 1: 200 {"a": 2}'),
        ],
    )
    def test_names_the_kind_of_a_wrong_answer(self, answer: Answer, expect: object, kind: str, says: str) -> None:
        """A wrong answer has a kind for the counters and a line for people."""
        with pytest.raises(RequestFailed) as caught:
            check(answer, 200, expect)
        assert (caught.value.kind, caught.value.detail) == (kind, says)

    def test_wants_no_json_where_none_is_expected(self) -> None:
        """A page is a good answer when nothing is said about its body."""
        assert check(Answer(200, None, b"<html>"), 200, None) is None
