"""The OpenAPI document: FastAPI's, with errors as `application/problem+json`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backend.auth import ACCOUNT_SCHEME, SERVICE_SCHEME, Unauthorized, is_open
from backend.limits.middleware import LIMITED, TooManyRequests
from backend.problems import MEDIA_TYPE, PROBLEM, ProblemDetails, responses

__all__ = ["install"]

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
                    if path.startswith(LIMITED):
                        operation["responses"].setdefault("429", TOO_MANY)
            _add_problem(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way to extend the document


def _close(operation: dict[str, Any]) -> None:
    """Document that `operation` takes credentials; the layer that asks for them is not known to FastAPI."""
    operation.setdefault("security", [{scheme.scheme_name: []} for scheme in (SERVICE_SCHEME, ACCOUNT_SCHEME)])
    status = Unauthorized.status
    description = responses(Unauthorized)[status]["description"]
    operation["responses"].setdefault(
        str(status), {"description": description, "content": {MEDIA_TYPE: {"schema": PROBLEM}}}
    )


def _add_problem(schema: dict[str, Any]) -> None:
    """Add the schemas of what `PROBLEM` refers to: the routes name it, and FastAPI does not know it."""
    problem = ProblemDetails.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    del problem["properties"]["errors"]["default"]  # null, which FastAPI leaves out of its document, too
    known = schema.setdefault("components", {}).setdefault("schemas", {})
    known |= {**problem.pop("$defs"), "ProblemDetails": problem}
    schema["components"]["schemas"] = dict(sorted(known.items()))
