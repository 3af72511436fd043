"""The apps to compare the service with, under its uvicorn settings: `python -m tests.bench.apps NAME PORT`."""

from __future__ import annotations

import asyncio
import gc
import sys

import uvicorn
from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.server import uvicorn_config
from backend.settings import load_settings

__all__ = ["BODY"]

BODY = b'{"status":"ok"}'


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with bare ASGI and nothing else: the floor."""
    if scope["type"] == "lifespan":
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def framework() -> FastAPI:
    """Return a FastAPI app with one endpoint and nothing around it."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.get("/health")
    async def health() -> Response:
        return Response(BODY, media_type="application/json")

    return app


def main() -> None:
    """Serve one of the apps until SIGTERM."""
    name, port = sys.argv[1:]
    app: ASGIApp = bare if name == "bare" else framework()
    config = uvicorn_config(app, load_settings({}))
    config.host, config.port = "127.0.0.1", int(port)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
