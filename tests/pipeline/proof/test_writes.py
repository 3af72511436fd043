from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from pipeline.config.requests import RequestSpec, parse_requests
from pipeline.proof.cleaning import clean_up
from pipeline.proof.client import Client
from pipeline.proof.exchange import Exchange
from pipeline.proof.smoke import smoke
from pipeline.proof.writes import AT_ONCE, TRIES, Ledger
from tests.pipeline.proof.servers import LIST, MAKE, MAKE_AND_MARK, Reply, Service


async def wrote(journal: Path, service: Service, spec: RequestSpec, count: int) -> None:
    """A proof that wrote and was killed."""
    ledger, client = Ledger(journal), Client(service.url, "token")
    for _ in range(count):
        exchange = Exchange.new(spec)
        ledger.begin(exchange, "bake")
        await client.send(exchange.call())
    await client.aclose()
    assert ledger._file
    ledger._file.close()


class TestCleanUp:
    def test_does_nothing_without_a_journal(self, tmp_path: Path) -> None:
        """Most deploys find nothing to clean up."""
        assert clean_up(tmp_path / "none", "http://127.0.0.1:1", None) == 0

    async def test_keeps_the_journal_while_the_service_is_down(
        self, tmp_path: Path, service: Service, specs: tuple[RequestSpec, ...]
    ) -> None:
        """What cannot be removed now is removed later, by whoever has the same journal."""
        journal = tmp_path / "journal"
        await wrote(journal, service, specs[1], 3)
        service.behave = lambda _, __: Reply(503)
        ledger, client = Ledger(journal), Client(service.url, "token")
        await ledger.settle(client, seconds=5, read_back=False)
        assert ledger.close() == 3
        service.behave = None
        ledger = Ledger(journal)
        await ledger.settle(client, seconds=5, read_back=False)
        await client.aclose()
        assert (ledger.close(), service.things, journal.exists()) == (0, {}, False)

    async def test_gives_up_on_a_service_that_is_away(
        self, tmp_path: Path, service: Service, specs: tuple[RequestSpec, ...]
    ) -> None:
        """A proof leaves hundreds of writes: it asks for a few of them, and keeps them all."""
        journal = tmp_path / "journal"
        await wrote(journal, service, specs[1], 60)
        service.behave = lambda _, __: Reply(503)
        before = len(service.requests)
        ledger, client = Ledger(journal), Client(service.url, "token")
        begun = time.monotonic()
        await ledger.settle(client, seconds=30, read_back=False)
        await client.aclose()
        assert time.monotonic() - begun < 10
        assert len(service.requests) - before <= 2 * AT_ONCE * TRIES
        assert ledger.close() == 60

    async def test_asks_no_answer_where_the_path_is_known(self, tmp_path: Path, service: Service) -> None:
        """A write below a name of its own is removed without being sent again."""
        (spec,) = parse_requests(
            [{**MAKE, "readback": {"path": "/things/{unique}"}, "remove": {"path": "/things/{unique}"}}]
        )
        await wrote(tmp_path / "journal", service, spec, 2)
        ledger, client = Ledger(tmp_path / "journal"), Client(service.url, "token")
        await ledger.settle(client, seconds=5, read_back=False)
        await client.aclose()
        ledger.close()
        assert [request.method for request in service.requests] == ["POST", "POST", "DELETE", "DELETE"]

    async def test_reads_a_journal_that_was_cut_short(
        self, tmp_path: Path, service: Service, specs: tuple[RequestSpec, ...]
    ) -> None:
        """`kill -9` may cut the last line."""
        journal = tmp_path / "journal"
        await wrote(journal, service, specs[1], 2)
        with journal.open("a") as file:
            file.write('{"sent": "abc", "sp')
        ledger = Ledger(journal)
        assert ledger.close() == 2


class TestByCommand:
    """Writes without a DELETE: the deploy has a command remove them, which is given their ids."""

    async def test_tells_the_ids_and_writes_no_journal(self, tmp_path: Path, service: Service) -> None:
        """The ids are in the paths of the readbacks; those of a killed proof the command finds by their age."""
        (spec,) = parse_requests([{**MAKE, "remove": "command"}])
        ledger, client = Ledger(tmp_path / "journal"), Client(service.url, "token")
        for _ in range(3):
            exchange = Exchange.new(spec)
            write = ledger.begin(exchange, "bake")
            ledger.answered(write, await client.send(exchange.call()), None)
        assert (tmp_path / "journal").read_text() == ""
        await ledger.settle(client, seconds=5, read_back=True)
        await client.aclose()
        assert sorted(ledger.ids) == sorted(service.things)
        assert (ledger.close(), ledger.unplaced, ledger.lost) == (0, 0, [])
        assert {request.method for request in service.requests} == {"POST", "GET"}

    async def test_asks_for_an_id_that_was_not_answered(self, tmp_path: Path, service: Service) -> None:
        """With the same Idempotency-Key; where the service is silent, it says how many are not known."""
        (spec,) = parse_requests([{**MAKE, "remove": "command"}])
        ledger, client = Ledger(None), Client(service.url, "token")
        for _ in range(2):
            exchange = Exchange.new(spec)
            ledger.begin(exchange, "bake")
            await client.send(exchange.call())
        service.behave = lambda _, request: Reply(503) if request.method == "POST" else None
        await ledger.settle(client, seconds=5, read_back=False)
        assert (ledger.ids, ledger.unplaced, ledger.close()) == ([], 2, 0)
        service.behave = None
        await ledger.settle(client, seconds=5, read_back=False)
        await client.aclose()
        assert (sorted(ledger.ids), ledger.unplaced) == (sorted(service.things), 0)

    def test_knows_a_write_by_the_part_of_the_path_that_differs(self) -> None:
        """A name of the service's own, or a unique text of the proof's."""
        for path, identity in (
            ("/things/{response.no}/details?full=1", "7"),
            ("/notes/n-{unique}", "n-0123456789abcdef"),
            ("/{response.no}", "7"),
        ):
            (spec,) = parse_requests([{**MAKE, "remove": "command", "readback": {"path": path}}])
            exchange = Exchange.new(spec, "0123456789abcdef" * 2)
            assert exchange.identity({"no": 7}) == identity


class TestSmoke:
    def test_asks_everything_once_and_leaves_nothing(self, service: Service, specs: tuple[RequestSpec, ...]) -> None:
        """A good replica passes, and what was written is gone."""
        assert not smoke(specs, service.url, "token").failures
        assert [request.method for request in service.requests] == ["GET", "POST", "GET", "DELETE"]
        assert service.things == {}

    def test_sends_steps_too(self, service: Service) -> None:
        """In order, and none after one that failed."""
        specs = parse_requests([MAKE_AND_MARK])
        assert not smoke(specs, service.url, "token").failures
        assert [request.method for request in service.requests] == ["POST", "PATCH", "GET", "GET", "DELETE"]
        service.requests.clear()
        service.behave = lambda _, request: Reply(500) if request.method == "PATCH" else None
        (failure,) = smoke(specs, service.url, "token").failures
        assert (failure.request, failure.status) == ("mark", 500)
        # A step that may have been carried out is asked again, so that it is over before its write is removed.
        assert [request.method for request in service.requests] == ["POST", *["PATCH"] * 4, "GET", "DELETE"]

    def test_reads_back_what_no_step_changes(self, service: Service) -> None:
        """A step may set the very field that the write set."""
        step = {"name": "rename", "method": "PATCH", "path": "/things/{response.id}", "body": {"service": "other"}}
        specs = parse_requests([{**MAKE, "body": {"service": "s-{unique}", "kind": "k"}, "then": [step]}])
        assert not smoke(specs, service.url, "token").failures
        service.behave = lambda _, request: (
            Reply(json={"kind": "x", "service": "other"}) if request.method == "GET" else None
        )
        (failure,) = smoke(specs, service.url, "token").failures
        assert failure.detail.startswith('read back: `kind` is "x", not "k"')

    def test_says_what_failed(self, service: Service, specs: tuple[RequestSpec, ...]) -> None:
        """Each failure is one example with its detail."""
        service.behave = lambda _, request: Reply(500) if request.method == "POST" else Reply(json={"items": None})
        body, write = smoke(specs, service.url, "token").failures
        assert (body.kind, body.request, body.detail) == (
            "body",
            "list",
            '`items` is null, not []: 200 {"items": null}',
        )
        assert (write.kind, write.status, write.release) == ("5xx", 500, "new")

    def test_reads_back_what_was_written(self, service: Service, specs: tuple[RequestSpec, ...]) -> None:
        """A write that is not there, or not what was sent, fails though it was acknowledged."""
        service.behave = lambda server, request: (
            Reply(json={"service": "other"})
            if request.method == "GET" and request.path != "/things"
            else server.answer(request)
        )
        (failure,) = smoke(specs, service.url, "token").failures
        assert failure.kind == "lost"
        assert failure.detail.startswith('read back: `service` is "other", not "s-')

    def test_wants_a_readback_to_hold_something_of_what_was_sent(
        self, service: Service, specs: tuple[RequestSpec, ...]
    ) -> None:
        """An answer in an envelope would pass unread; so `expect` must say where the values are."""
        service.behave = lambda server, request: (
            replace(server.answer(request), json={"data": {}}) if request.path not in ("/things",) else None
        )
        (failure,) = smoke(specs, service.url, "token").failures
        assert "contains none of the values that were sent (or declare `readback.expect`)" in failure.detail
        told = parse_requests([{**MAKE, "readback": {"path": "/things/{response.id}", "expect": {"data": {}}}}])
        assert not smoke(told, service.url, "token").failures

    def test_fails_a_write_that_does_not_say_where_it_is(self, service: Service) -> None:
        """Without the value that `readback` needs, nobody could find the write."""
        specs = parse_requests([LIST, {**MAKE, "readback": {"path": "/things/{response.key}"}}])
        (failure,) = smoke(specs, service.url, "token").failures
        assert failure.kind == "body"
        assert failure.detail.startswith("the answer holds no `key`, which `readback` or `remove` needs")

    def test_waits_no_longer_than_told(self, specs: tuple[RequestSpec, ...]) -> None:
        """A replica that is not there fails each request."""
        assert [failure.kind for failure in smoke(specs, "http://127.0.0.1:1", None, timeout=1).failures] == [
            "refused",
            "refused",
        ]
