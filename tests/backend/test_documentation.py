"""`/docs`: what it loads, and from where."""

from __future__ import annotations

import re

import httpx2
import pytest
from fastapi import FastAPI

from backend import documentation


class TestDocs:
    async def test_has_nothing_inline_and_nothing_from_elsewhere(self, client: httpx2.AsyncClient) -> None:
        """Each script and style is a file of its own origin; the policy lets nothing else in."""
        answer = await client.get("/docs")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?:", answer.text) == []
        policy = dict(part.split(maxsplit=1) for part in answer.headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert not re.search("unsafe|http|[*]", answer.headers["content-security-policy"])

    async def test_loads_what_there_is(self, client: httpx2.AsyncClient) -> None:
        """Under the same policy, and of the type that `nosniff` wants."""
        page = (await client.get("/docs")).text
        names = re.findall(r'(?:src|href)="(docs/[^"]+)"', page)
        types = {"js": "text/javascript", "css": "text/css"}
        for name in names:
            answer = await client.get(f"/{name}")
            assert answer.status_code == 200, name
            assert answer.headers["content-type"].startswith(types[name.rpartition(".")[2]]), name
        assert len(names) == 3
        assert "SwaggerUIBundle" in (await client.get("/docs/swagger-ui-bundle.js")).text

    @pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2Fcore.py", "nothing.js"])
    async def test_serves_no_other_file(self, client: httpx2.AsyncClient, name: str) -> None:
        """Of the package, only what the page loads."""
        assert (await client.get(f"/docs/{name}")).status_code == 404

    async def test_shows_the_title_as_text(self) -> None:
        """It is the team's, and no markup."""
        app = FastAPI(title="<b>ours & theirs</b>", docs_url=None)
        documentation.install(app)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service") as client:
            assert "<title>&lt;b&gt;ours &amp; theirs&lt;/b&gt;</title>" in (await client.get("/docs")).text
