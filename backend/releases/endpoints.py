"""`/api/v1/releases`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from backend import auth, idempotency
from backend.auth import WRITERS_ONLY, SeesSynthetic, WritingCaller
from backend.database import DatabaseUnavailable
from backend.problems import BodyTooLarge, responses
from backend.releases.schemas import Environment, NewRelease, Page, Release, ReleaseChange, ReleaseStatus, Service
from backend.releases.service import CREATED, ReleaseNotFound, ReleaseService
from backend.routing import HotRoute

__all__ = ["hot", "router"]

LIMIT = 100
NO_CONTENT = 204

hot = APIRouter(prefix="/api/v1/releases", tags=["releases"], route_class=HotRoute)
router = APIRouter(prefix="/api/v1/releases", tags=["releases"])
WRITING = (*auth.WRITING, DatabaseUnavailable)


async def _releases(request: Request) -> ReleaseService:
    service: ReleaseService = request.app.state.releases
    return service


Releases = Annotated[ReleaseService, Depends(_releases)]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$", description="Makes a retry safe for 24 hours"),
]


@hot.get("/{release_id}", response_model=Release, responses=responses(ReleaseNotFound, DatabaseUnavailable))
async def read_release(request: Request, release_id: UUID) -> Response:
    """Return one release."""
    releases: ReleaseService = request.app.state.releases
    return Response(await releases.get(release_id), media_type="application/json")


@router.get("", responses=responses(DatabaseUnavailable))
async def list_releases(
    *,
    releases: Releases,
    synthetic: SeesSynthetic,
    service: Annotated[Service | None, Query()] = None,
    environment: Annotated[Environment | None, Query()] = None,
    status: ReleaseStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT)] = 50,
    cursor: Annotated[
        str | None, Query(pattern=r"^([A-Za-z0-9_-]{22})?$", description="next_cursor of the previous page")
    ] = None,
) -> Page:
    """List releases, newest first, in pages."""
    wanted = {"service": service, "environment": environment, "status": status}
    filters = {column: value for column, value in wanted.items() if value is not None}
    return await releases.page(filters, cursor=cursor, limit=limit, synthetic=synthetic)


@router.post(
    "",
    status_code=CREATED,
    response_model=Release,
    responses=responses(*WRITING, BodyTooLarge, idempotency.IdempotencyConflict, idempotency.IdempotencyKeyReused),
)
async def create_release(
    release: NewRelease,
    caller: WritingCaller,
    releases: Releases,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Record a release."""
    key = None
    if idempotency_key is not None:
        # Only what was sent: the next release may know more fields, and must know the request again.
        body = f"{caller.synthetic} {release.model_dump_json(exclude_unset=True)}".encode()
        key = idempotency.Request.of(request.method, request.url.path, idempotency_key, body, owner=caller.owner)
    answer = await releases.create(release, synthetic=caller.synthetic, request=key)
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers=headers, media_type="application/json")


@router.patch(
    "/{release_id}", dependencies=[WRITERS_ONLY], responses=responses(*WRITING, ReleaseNotFound, BodyTooLarge)
)
async def change_release(release_id: UUID, change: ReleaseChange, releases: Releases) -> Release:
    """Update what became of a release."""
    return await releases.change(release_id, change)


@router.delete(
    "/{release_id}", status_code=NO_CONTENT, dependencies=[WRITERS_ONLY], responses=responses(*WRITING, ReleaseNotFound)
)
async def delete_release(release_id: UUID, releases: Releases) -> None:
    """Remove a release from the board."""
    await releases.delete(release_id)
