"""The OpenAPI document: FastAPI's, with errors as `application/problem+json`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backend.auth import ACCOUNT_SCHEME, SERVICE_SCHEME, Unauthorized, is_open
from backend.limits.middleware import LIMITED, TooManyRequests
from backend.problems import MEDIA_TYPE, responses

__all__ = ["install"]

PROBLEM = {"$ref": "#/components/schemas/ProblemDetails"}
TOO_MANY = {
    "description": TooManyRequests.__doc__,
    "headers": {"Retry-After": {"description": "Seconds until there is room again.", "schema": {"type": "integer"}}},
    "content": {MEDIA_TYPE: {"schema": PROBLEM}},
}


def install(app: FastAPI, *, closed: bool = False) -> None:
    """Make `app` describe itself. The document is built on the first request for it, then kept.

    Where it is `closed` to strangers, each route that they may not read says so.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    if closed and not is_open(path):
                        _close(operation)
                    _mark_problems(operation["responses"])
                    if path.startswith(LIMITED):
                        operation["responses"].setdefault("429", TOO_MANY)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to extend the document


def _close(operation: dict[str, Any]) -> None:
    """Document that `operation` takes credentials; the layer that asks for them is not known to FastAPI."""
    operation.setdefault("security", [{scheme.scheme_name: []} for scheme in (SERVICE_SCHEME, ACCOUNT_SCHEME)])
    status = Unauthorized.status
    description = responses(Unauthorized)[status]["description"]
    operation["responses"].setdefault(
        str(status), {"description": description, "content": {"application/json": {"schema": PROBLEM}}}
    )


def _mark_problems(responses: dict[str, Any]) -> None:
    """Move problems to their own media type; FastAPI documents every model under that of the route."""
    for response in responses.values():
        content = response.get("content", {})
        if content.get("application/json", {}).get("schema") == PROBLEM:
            content[MEDIA_TYPE] = content.pop("application/json")
