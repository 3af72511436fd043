"""The layer that refuses what is too much, and says in each answer of the API how much is left."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.limits.clients import Clients
from backend.limits.window import WINDOW_SECONDS, Window
from backend.metrics import Metrics
from backend.problems import Problem, problem_response

__all__ = ["LIMITED", "Limits", "TooManyRequests"]

LIMITED = "/api/"  # probes, documents and the page's files are not limited


class TooManyRequests(Problem):
    """The client has sent as many requests as a minute may have; try again after `Retry-After` seconds."""

    status = 429
    kind = "urn:problem-type:too-many-requests"


class Limits:
    """The layer that limits each of `clients` below `/api/`, as `window` counts them.

    `RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10.
    """

    # 4 µs a request, RateLimit's header included.

    def __init__(self, app: ASGIApp, *, clients: Clients, window: Window, metrics: Metrics) -> None:
        self.app = app
        self._clients, self._window, self._metrics = clients, window, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self.app(scope, receive, send)
            return
        client = self._clients(scope)
        left, seconds = self._window.hit(client.key, client.limit)
        state = f'"{client.policy}";r={max(left, 0)};t={seconds}'.encode()
        policy = f'"{client.policy}";q={client.limit};w={WINDOW_SECONDS}'.encode()

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()), (b"ratelimit-policy", policy), (b"ratelimit", state)
                ]  # fmt: skip
            await send(message)

        app = self.app
        if left < 0:
            self._metrics.limited.labels(client.kind).inc()
            app = problem_response(
                TooManyRequests(
                    f"At most {client.limit} requests a minute; there is room again in {seconds} s.",
                    headers={"Retry-After": str(seconds)},
                )
            )
        await app(scope, receive, respond)
