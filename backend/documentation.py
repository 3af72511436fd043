"""`/docs`: Swagger UI from the files of a pinned package and from our own origin; its policy lets nothing else in."""

from __future__ import annotations

import html
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response

__all__ = ["POLICY", "install"]

# Swagger UI draws its icons from `data:` URLs. Nothing is inline: a script that somebody got into a page must not run.
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    b" base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Its addresses are relative, so that it works below a path of its host.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# `validatorUrl`: it would send the address of the document to swagger.io.
START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""
FILES = ("swagger-ui.css", "swagger-ui-bundle.js")


def install(app: FastAPI) -> None:
    """Add the page that shows the OpenAPI document of `app`."""
    page = PAGE.format(title=html.escape(app.title))

    async def show() -> Response:
        return HTMLResponse(page)

    async def file(name: str) -> Response:
        if name == "start.js":
            return Response(START, media_type="text/javascript")
        if name not in FILES:
            raise HTTPException(404)
        return FileResponse(_folder() / name)

    app.add_api_route("/docs", show, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/docs/{name}", file, methods=["GET", "HEAD"], include_in_schema=False)


def _folder() -> Path:
    """Return the folder of the package's files. It is not imported: that would bring what FastAPI does itself."""
    spec = find_spec("fastapi_offline")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "static"
