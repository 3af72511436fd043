"""What callers of the API see of its limits."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from backend.app import create_app
from backend.limits import tarpit
from backend.limits.clients import SERVICE_LIMIT
from backend.logs import configure_logging
from backend.metrics import Metrics
from backend.settings import Settings
from tests.backend.process import serve, wait_until
from tests.conftest import TOKEN, asgi_client
from tests.notes import NOTES

AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://page.example"

pytestmark = pytest.mark.usefixtures("notes")


@pytest.fixture(name="strict")
def _strict(settings: Settings) -> Settings:
    """Settings with a limit that a test reaches."""
    return settings.model_copy(update={"api_rate_limit": 3, "cors_origins": (PAGE,)})


async def test_one_too_many_is_a_429_problem_that_says_when(
    strict: Settings, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Each answer says what is left; then comes a problem with Retry-After. A page may read it, and the log has it."""
    metrics = Metrics("dev")
    app = create_app(strict, metrics=metrics)
    configure_logging(strict)
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        answers = [await client.get(f"{NOTES}?limit=1", headers={"Origin": PAGE}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers] == [
        '"default";r=2', '"default";r=1', '"default";r=0', '"default";r=0'
    ]  # fmt: skip
    last = answers[-1]
    assert last.headers["ratelimit-policy"] == '"default";q=3;w=60'
    assert last.headers["ratelimit"].endswith(f";t={last.headers['retry-after']}")
    assert (last.headers["content-type"], last.json()["type"]) == (
        "application/problem+json", "urn:problem-type:too-many-requests"
    )  # fmt: skip
    assert last.headers["access-control-allow-origin"] == PAGE
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= {
        *last.headers["access-control-expose-headers"].split(", ")
    }
    events = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines() if b'"request"' in line]
    assert [event["status"] for event in events] == [200, 200, 200, 429]
    assert metrics.registry.get_sample_value("http_requests_limited_total", {"client": "address"}) == 1


async def test_probes_and_documents_are_not_limited(strict: Settings) -> None:
    """What an edge, a cluster and a reader of the documents ask stays open, and says nothing of a limit."""
    app = create_app(strict)
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        for path in ("/health", "/ready", "/docs", "/openapi.json"):
            answers = [await client.get(path) for _ in range(5)]
            assert 429 not in {answer.status_code for answer in answers}
            assert not any("ratelimit" in answer.headers for answer in answers)


async def test_the_service_token_has_a_limit_of_its_own(strict: Settings) -> None:
    """With it, a client is not its address; a wrong one is, so that guessing tokens is limited."""
    app = create_app(strict)
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        for _ in range(5):
            answer = await client.get(NOTES, headers=AUTHORIZED)
            assert (answer.status_code, answer.headers["ratelimit-policy"]) == (
                200, f'"service";q={SERVICE_LIMIT};w=60'
            )  # fmt: skip
        wrong = [await client.post(NOTES, headers={"Authorization": f"Bearer guess-{n}"}, json={}) for n in range(4)]
        assert [answer.status_code for answer in wrong] == [401, 401, 401, 429]
        assert (await client.get(NOTES)).status_code == 429


@pytest.mark.parametrize(
    ("addresses", "shared"),
    [
        (("192.0.2.1", "192.0.2.2"), False),
        (("2001:db8:1:2::1", "2001:db8:1:2:ffff::2"), True),
        (("2001:db8:1:2::1", "2001:db8:1:3::1"), False),
        (("::ffff:192.0.2.1", "192.0.2.1"), True),
        (("::ffff:192.0.2.1", "::ffff:192.0.2.2"), False),
    ],
)
async def test_a_client_is_an_ipv4_address_or_an_ipv6_network(
    strict: Settings, addresses: tuple[str, str], *, shared: bool
) -> None:
    """Of IPv6 a customer has a /64, so its addresses share; an IPv4 address written as IPv6 is that IPv4 address."""
    app = create_app(strict)
    async with app.router.lifespan_context(app):
        statuses = []
        for address in addresses:
            transport = httpx2.ASGITransport(app=app, client=(address, 1))
            async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
                statuses += [(await client.get(NOTES)).status_code for _ in range(3)]
    assert statuses == [200] * 3 + [429 if shared else 200] * 3


async def test_three_replicas_give_one_limit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks three instances of the service, as an edge sends it to them, gets its limit about once."""
    monkeypatch.setattr(tarpit, "AT_ONCE", 0)  # to be done within the minute
    limit = 90
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(3):
            app = create_app(settings.model_copy(update={"api_rate_limit": limit}))
            await stack.enter_async_context(app.router.lifespan_context(app))
            clients.append(await stack.enter_async_context(asgi_client(app)))
        given = 0
        for _ in range(limit):
            answers = [await client.get(f"{NOTES}?limit=1") for client in clients]
            given += sum(answer.status_code == 200 for answer in answers)
            await asyncio.sleep(0.02)
        answers = [await client.get(f"{NOTES}?limit=1") for client in clients]
        assert [answer.status_code for answer in answers] == [429] * 3
        assert limit <= given < 2 * limit


def test_the_metric_is_the_sum_of_the_workers(notes_environ: dict[str, str], tmp_path: Path) -> None:
    """Several processes of one replica share the limit, too, and each refusal is counted once."""
    with serve({**notes_environ, "BACKEND_WORKERS": "2", "API_RATE_LIMIT": "5"}, tmp_path) as service:
        statuses: list[int] = []

        def refused() -> bool:
            with service.client() as client:  # a connection of its own, which either worker may accept
                statuses.append(client.get(NOTES).status_code)
            return statuses[-10:] == [429] * 10

        wait_until(refused, "it is never refused")
        assert 5 <= statuses.count(200) <= 10
        assert service.metrics()['http_requests_limited_total{client="address"}'] == statuses.count(429)
