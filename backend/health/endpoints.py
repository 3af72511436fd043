"""`/health` and `/ready`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from backend.health.schemas import Excludable, Health, Readiness
from backend.health.service import HealthService
from backend.problems import responses
from backend.routing import HotRoute

__all__ = ["hot", "router"]

UNAVAILABLE = 503
ALIVE = Health().model_dump_json().encode()
NOT_READY: dict[int | str, dict[str, Any]] = {
    UNAVAILABLE: {"model": Readiness, "description": "Not ready; `checks` says why."}
}

hot = APIRouter(tags=["health"], route_class=HotRoute)
router = APIRouter(tags=["health"])


@hot.get("/health", response_model=Health, responses=responses())
async def health(request: Request) -> Response:  # noqa: ARG001 - HotRoute passes it
    """Report that the process is alive; nothing else is touched."""
    return Response(ALIVE, media_type="application/json")


@router.get("/ready", response_model=Readiness, responses={**responses(), **NOT_READY})
async def ready(request: Request, exclude: Annotated[list[Excludable], Query()] = []) -> Response:  # noqa: B006 - FastAPI copies it
    """Report whether to send traffic here. `?exclude=NAME`, repeatable, leaves a check out of the verdict.

    `?exclude=writes` asks for reads alone: a database that takes no writes is then degraded.
    """
    service: HealthService = request.app.state.health
    readiness = await service.readiness(exclude)
    status = 200 if readiness.ready else UNAVAILABLE
    return Response(readiness.model_dump_json(), status, media_type="application/json")
