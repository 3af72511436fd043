"""Errors as the caller sees them: RFC 9457 problem details, everywhere, and documented in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from backend.logs import request_id

__all__ = [
    "MEDIA_TYPE",
    "PROBLEM",
    "FieldError",
    "Problem",
    "ProblemDetails",
    "install",
    "problem_response",
    "responses",
]

MEDIA_TYPE = "application/problem+json"
PROBLEM = {"$ref": "#/components/schemas/ProblemDetails"}  # `backend.openapi` has what it refers to
UNREADABLE = "There was an error parsing the body"  # of FastAPI's own 400, which no route documents
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")  # RFC 9110 9.3, RFC 5789


class FieldError(BaseModel):
    """One invalid field: where it is in the request, and why it is invalid."""

    location: str = Field(examples=["body.version"])
    message: str = Field(examples=["String should have at least 1 character"])


class ProblemDetails(BaseModel):
    """RFC 9457 problem details. `type` is stable, for programs; `detail` is for people."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is nothing with this id."])
    request_id: str = Field(examples=["5f0c2a7be1d94c38"])
    errors: list[FieldError] | None = None


class Problem(HTTPException):
    """A typed error. A subclass sets `status` and `kind`; its docstring describes it in OpenAPI."""

    # Starlette's HTTPException, because FastAPI turns any other error while it reads a body into a 400.
    status: ClassVar[int] = 500
    kind: ClassVar[str] = "about:blank"

    def __init__(
        self, detail: str, *, headers: Mapping[str, str] | None = None, errors: Sequence[FieldError] = ()
    ) -> None:
        super().__init__(self.status, detail, dict(headers or {}))
        self.errors = errors


class InvalidRequest(Problem):
    """A field, a parameter or a header is invalid; `errors` says which and why."""

    status = 422


class BodyTooLarge(Problem):
    """The body is larger than MAX_BODY_BYTES."""

    status = 413


class QueryTooLong(Problem):
    """The query is longer than 8 KiB."""

    status = 414


class HeadersTooLarge(Problem):
    """The header fields have more than 32 KiB together."""

    status = 431


class RequestTimeout(Problem):
    """The answer did not begin within REQUEST_TIMEOUT_SECONDS; what the request did may or may not be done."""

    status = 504
    kind = "urn:problem-type:request-timeout"


class InternalError(Problem):
    """A bug in the service; search its logs for the request id."""

    status = 500


def problem_response(error: HTTPException) -> Response:
    """Return `error` as `application/problem+json`, with the id of the request in whose context it is called."""
    details: dict[str, Any] = {
        "type": getattr(error, "kind", "about:blank"),
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
        "request_id": request_id.get(),
    }
    errors: Sequence[FieldError] = getattr(error, "errors", ())
    if errors:
        details["errors"] = [entry.model_dump() for entry in errors]
    return Response(orjson.dumps(details), error.status_code, headers=error.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with problem details."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)


def responses(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a route that may answer with `problems`, for OpenAPI."""
    documented: dict[int | str, dict[str, Any]] = {}
    everywhere: tuple[type[Problem], ...] = (
        QueryTooLong,
        InvalidRequest,
        HeadersTooLarge,
        InternalError,
        RequestTimeout,
    )
    for problem in everywhere + problems:
        sentence = (problem.__doc__ or "").partition("\n")[0]
        earlier = documented.get(problem.status)
        documented[problem.status] = {
            "description": f"{earlier['description']} Or: {sentence}" if earlier else sentence,
            # Not as `model`: FastAPI would make a validator for each status of each route, 40 ms of each start.
            "content": {MEDIA_TYPE: {"schema": PROBLEM}},
        }
    return documented


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.detail == UNREADABLE:
        text = isinstance(error.__cause__, UnicodeDecodeError)
        message = "must be UTF-8 text" if text else "has a number of too many digits, or is nested too deep"
        fields = [FieldError(location="body", message=message)]
        return problem_response(InvalidRequest("The request is not valid; see errors.", errors=fields))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route with this path, and each of ours has one method.
        error.headers = {"Allow": ", ".join(_methods(request))}
    return problem_response(error)


def _methods(request: Request) -> list[str]:
    """Return the methods that some route takes for the path of `request`."""
    # Each route is asked, whatever its kind: an included router does not list its own.
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    routes = request.app.routes
    return [name for name, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _on_invalid_request(_: Request, error: Exception) -> Response:
    """Answer an invalid request with its errors, without the input."""
    # Pydantic's errors quote the input, and it may hold a secret.
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldError(location=".".join(str(part) for part in entry["loc"]), message=str(entry["msg"]))
        for entry in error.errors()
    ]
    return problem_response(InvalidRequest("The request is not valid; see errors.", errors=errors))
