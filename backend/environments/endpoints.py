"""`/api/v1/environments`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from backend.auth import sees_synthetic
from backend.database import DatabaseUnavailable
from backend.environments.schemas import Environments
from backend.environments.service import EnvironmentService
from backend.problems import responses
from backend.routing import HotRoute

__all__ = ["hot"]

hot = APIRouter(prefix="/api/v1/environments", tags=["environments"], route_class=HotRoute)


@hot.get("", response_model=Environments, responses=responses(DatabaseUnavailable))
async def list_environments(request: Request) -> Response:
    """List what is running where."""
    environments: EnvironmentService = request.app.state.environments
    return Response(await environments.running(synthetic=sees_synthetic(request)), media_type="application/json")
