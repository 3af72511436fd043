"""What the page promises without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2

from tests.page.conftest import PAGE, Front


class TestPolicy:
    def test_has_nothing_inline(self) -> None:
        """No script, style or handler in the markup: the policy would refuse it."""
        text = (PAGE / "index.html").read_text()
        assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text) == []

    def test_loads_nothing_from_elsewhere(self) -> None:
        """Each address in the page's files is a path of its own edge; namespaces are names."""
        for file in filter(Path.is_file, PAGE.rglob("*")):
            found = set(re.findall(r"https?://[^\"' )]+", file.read_text()))
            assert found <= {"http://www.w3.org/2000/svg"}, file.name

    def test_leaves_all_other_paths_to_the_service(self, front: Front) -> None:
        """A path that is no file, and a method that is no reading."""
        for answer in (httpx2.get(f"{front.url}/nowhere"), httpx2.post(front.url), httpx2.get(f"{front.url}/health")):
            assert answer.headers["X-Release"] == "one"
