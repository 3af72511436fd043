"""`scan` on real images in a real registry, by the real syft and pip-audit; the service that it asks is played."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.errors import SlipwayError
from pipeline.oci import digest_of
from pipeline.project import Project, load_project
from pipeline.supply import audit, steps
from pipeline.supply.gate import Allowance
from pipeline.supply.sbom import LARGEST_ATTESTED, Sbom, make_sboms, python_packages, too_large
from tests.deploy.machine import free_port
from tests.pipeline.supply.conftest import Release

ADVISORY = {
    "id": "GHSA-jjg7-2v4v-x38h",
    "aliases": ["CVE-2024-3651"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "idna"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}],
        }
    ],
}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[dict[str, object]]]:
    """OSV, as it answers: it knows something of idna 3.6. What it was asked."""
    asked: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(query)
            known = query == {"package": {"name": "idna", "ecosystem": "PyPI"}, "version": "3.6"}
            body = json.dumps({"vulns": [ADVISORY]} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """`asked` has it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    use_service(monkeypatch, server.server_address[1])
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def use_service(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{port}/v1/query")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def scanned(release: Release) -> tuple[Project, str]:
    """The project of the release, and its name."""
    return load_project(release.root), release.images.place("backend")


def quiet(_: str) -> None:
    """Nobody listens."""


class TestScan:
    def test_stops_a_release_with_a_known_vulnerability(
        self, scanned: tuple[Project, str], service: list[dict[str, object]]
    ) -> None:
        """What the images hold is judged; each finding is a line, and the last says where to go."""
        project, reference = scanned
        with pytest.raises(SlipwayError) as caught:
            steps.scan(project, reference, audit=True, say=quiet, warn=quiet)
        finding, last = caught.value.problems
        assert finding == "idna 3.6: CVE-2024-3651, GHSA-jjg7-2v4v-x38h: update to 3.7"
        assert last.startswith(f"{reference}: 1 findings stop it")
        assert sorted(str(one["package"]) for one in service)[0] == "{'name': 'anyio', 'ecosystem': 'PyPI'}"

    def test_lets_pass_what_is_allowed(self, scanned: tuple[Project, str], service: list[dict[str, object]]) -> None:
        """And says it, and that what is not Python's was judged by nobody where there is no grype."""
        said: list[str] = []
        project, reference = scanned
        allow = (Allowance("CVE-2024-3651", "idna", "ours alone", date(9999, 1, 1)),)
        steps.scan(replace(project, allow=allow), reference, audit=True, say=quiet, warn=said.append)
        assert "idna: CVE-2024-3651 is allowed until 9999-01-01: ours alone" in said

    def test_a_service_that_is_away_lets_nothing_pass(
        self, scanned: tuple[Project, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One line, no traceback of pip-audit's."""
        use_service(monkeypatch, free_port())
        project, reference = scanned
        with pytest.raises(SlipwayError) as caught:
            steps.scan(project, reference, audit=True, say=quiet, warn=quiet)
        [line] = caught.value.problems
        assert line.startswith(
            "pip-audit: its service does not answer: what it answers is not known, so nothing passes"
        )

    def test_nor_does_one_that_knows_no_package(
        self, scanned: tuple[Project, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """pip-audit ends well where a mirror has no vulnerabilities to tell of (a recorded report)."""
        skipped = json.loads((Path(__file__).parent / "recorded/pip-audit-skipped.json").read_text(encoding="utf-8"))
        monkeypatch.setattr(audit, "_pip_audit", lambda *_: skipped)
        project, reference = scanned
        with pytest.raises(SlipwayError, match="pip-audit: its service knows none of the 2 packages"):
            steps.scan(project, reference, audit=True, say=quiet, warn=quiet)

    def test_judges_nothing_where_it_is_told_so(self, scanned: tuple[Project, str]) -> None:
        """Aloud; the SBOMs are in folders named by the digests that they are of."""
        said: list[str] = []
        project, reference = scanned
        steps.scan(project, reference, audit=False, say=quiet, warn=said.append)
        assert said == ["--sbom-only: nothing was judged"]
        folder = project.root / ".slipway/supply" / reference.rpartition(":")[2]
        assert sorted(one.name for one in folder.iterdir()) == ["sbom.cdx.json", "sbom.spdx.json"]
        spdx = json.loads((folder / "sbom.spdx.json").read_text(encoding="utf-8"))
        assert {"idna", "anyio"} <= {one["name"] for one in spdx["packages"]}


class TestSbom:
    def test_one_that_the_public_log_would_not_take_is_said(self, tmp_path: Path) -> None:
        """The log itself only hangs up."""
        bill = tmp_path / "sbom.cdx.json"
        bill.write_bytes(b"x" * LARGEST_ATTESTED)
        one = Sbom("ghcr.io/owner/board@sha256:1", bill, bill)
        assert too_large(one) is None
        bill.write_bytes(b"x" * (3 * 2**20))
        assert "its SBOM has 3.0 MiB, and Sigstore's public log takes 2 at most" in str(too_large(one))

    def test_versions_of_a_package_are_all_judged(self, tmp_path: Path) -> None:
        """A base image may have another one than the lock."""
        bills = []
        for version in ("25.0", "25.1"):
            path = tmp_path / version
            path.write_text(
                json.dumps({"components": [{"name": "pip", "version": version, "purl": f"pkg:pypi/pip@{version}"}]})
            )
            bills.append(Sbom("x", path, path))
        assert python_packages(bills) == {"pip": {"25.0", "25.1"}}

    def test_an_image_that_syft_cannot_read_is_a_line(
        self, registry: str, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With what syft says."""
        from tests.registries import push_image

        repository = f"{registry}/supply/{digest_of(b'unreadable')[7:19]}"
        place = f"{repository}@{push_image(repository)}"
        with pytest.raises(SlipwayError, match=f"^{place}: syft: "):
            make_sboms([place], tree / ".slipway/supply", quiet)
