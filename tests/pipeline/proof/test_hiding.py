"""Whether people are shown what the proof wrote: a service on a socket is asked as they ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.config.requests import parse_requests
from pipeline.proof.hiding import look
from pipeline.proof.plan import TrafficPlan
from pipeline.proof.verdict import Limits, judge
from tests.pipeline.proof.servers import HANG, LIST, MAKE, Reply, Request, Service
from tests.pipeline.proof.test_traffic import run

TRACES = {"s-0123456789abcdef", "0f9e8d7c"}


def listing(*items: Any, status: int = 200) -> Reply:
    """An answer with ITEMS in it."""
    return Reply(status, {"items": list(items)})


async def found(service: Service, *specs: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What people are shown, and what could not be seen."""
    return await look(service.url, "t" * 32, parse_requests(list(specs or (LIST, MAKE))), TRACES)


class TestLook:
    async def test_asks_each_list_twice_as_a_person_does(self, service: Service) -> None:
        """No token, and no word of being synthetic; the second answer may come from a cache."""
        assert await found(service, {**LIST, "headers": {"Accept": "text/csv"}}, MAKE) == ((), ())
        assert [(one.method, one.path) for one in service.requests] == [("GET", "/things"), ("GET", "/things")]
        for one in service.requests:
            assert one.headers["accept"] == "text/csv"
            assert not {"slipway-synthetic", "authorization", "idempotency-key"} & one.headers.keys()

    async def test_names_the_route_that_shows_a_row(self, service: Service) -> None:
        """By a text that was sent, or by the id that was answered, on whichever of the two answers."""
        for row in ({"service": "s-0123456789abcdef"}, {"id": "0f9e8d7c"}):
            service.requests.clear()
            service.behave = lambda server, _, row=row: listing(*([row] if len(server.requests) == 2 else []))
            assert await found(service) == (("/things",), ())

    async def test_takes_a_longer_word_for_another_one(self, service: Service) -> None:
        """An id that only begins like one of the proof's is somebody else's."""
        service.behave = lambda _, __: listing({"id": "0f9e8d7c55"}, {"id": "a0f9e8d7c"})
        assert await found(service) == ((), ())

    async def test_uses_the_token_where_reading_is_closed(self, service: Service) -> None:
        """A service for members shows them their rows, and not those of the proof."""

        def members(_: Service, request: Request) -> Reply:
            return listing({"id": "0f9e8d7c"}) if "authorization" in request.headers else Reply(401)

        service.behave = members
        assert await found(service) == (("/things",), ())
        assert all("slipway-synthetic" not in one.headers for one in service.requests)

    async def test_says_what_could_not_be_seen(self, service: Service) -> None:
        """A list that does not answer 200 proves nothing."""
        service.behave = lambda _, __: Reply(503)
        (shown, (why,)) = await found(service)
        assert shown == ()
        assert why.startswith("whether GET /things hides what the proof wrote is unchecked: it answered 503 when")

    async def test_does_not_wait_for_ever(self, service: Service, monkeypatch: Any) -> None:
        """A list that hangs is unchecked."""
        monkeypatch.setattr("pipeline.proof.hiding.LOOK_SECONDS", 0.4)
        service.behave = lambda _, __: HANG
        (_, (why,)) = await found(service)
        assert "did not answer" in why

    async def test_asks_for_the_lists_of_steps_too(self, service: Service) -> None:
        """A list may be in the table as a step alone."""
        step = {"name": "see", "method": "GET", "path": "/things?sort=1"}
        service.behave = lambda _, request: listing({"id": "0f9e8d7c"}) if "sort" in request.path else None
        assert await found(service, LIST, {**MAKE, "then": [step]}) == (("/things?sort=1",), ())

    async def test_leaves_out_what_is_about_one_write(self, service: Service) -> None:
        """What a write was given as its address is its own; a search, and what is meant to be refused, is no list."""
        own = {"name": "own", "method": "GET", "path": "/things/{unique}"}
        search = {"name": "find", "method": "POST", "path": "/find", "body": {}, "writes": False}
        refused = {"name": "none", "method": "GET", "path": "/nothing", "status": 404}
        assert await found(service, own, search, refused) == ((), ())
        assert service.requests == []


def shows(server: Service, request: Request) -> Reply | None:
    """A service that forgets to leave the proof's rows out."""
    return listing(*server.things.values()) if request.path == "/things" and request.method == "GET" else None


class TestTheWholeProof:
    def test_refuses_a_release_that_shows_what_the_proof_wrote(self, plan: TrafficPlan, service: Service) -> None:
        """All requests were answered rightly, and the reason names the route; the rows are removed."""
        service.behave = shows
        result = run(plan)
        assert (result.failed, result.exposed, service.things) == (0, ("/things",), {})
        verdict = judge(result, Limits(), new="new", old=None)
        assert not verdict.ok
        assert verdict.reason.startswith("GET /things shows people what the proof wrote: ")

    def test_does_not_keep_one_from_coming_back(self, plan: TrafficPlan, service: Service) -> None:
        """One that was proved before, or serves again, is better than none."""
        service.behave = shows
        result = run(plan)
        assert judge(result, Limits(known=True), new="new", old=None).ok
        assert judge(result, Limits(), new="new", old=None, rollback=True).ok

    def test_takes_no_look_where_nothing_was_written(self, plan: TrafficPlan, service: Service) -> None:
        """There is nothing to look for."""
        reads = parse_requests([LIST])
        result = run(replace(plan, requests=reads))
        assert all("slipway-synthetic" in one.headers for one in service.requests)
        assert (result.exposed, result.unchecked) == ((), ())
