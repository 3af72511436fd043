"""`scan` on real images in a real registry, by the real syft and pip-audit; the service that it asks is played."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.policy import Allowance
from pipeline.config.project import Project, load_project
from pipeline.errors import SlipwayError
from pipeline.registry.repository import digest_of
from pipeline.supply import audit, steps
from pipeline.supply.sbom import LARGEST_ATTESTED, Sbom, make_sboms, python_packages, too_large
from tests.deploy.machine import free_port
from tests.logs import logged
from tests.pipeline.supply.conftest import Release
from tests.pipeline.supply.osv import osv_variables, played_osv

ROOT = Path(__file__).parents[3]
LOCK = """\
idna==3.6 \\
    --hash=sha256:1
pywin32==311 ; sys_platform == 'win32' \\
    --hash=sha256:1
uvicorn[standard]==0.54.1 \\
    --hash=sha256:1 \\
    --hash=sha256:2
"""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """OSV, as it answers: it knows something of idna 3.6. What it was asked."""
    with played_osv() as (port, asked):
        use_service(monkeypatch, port)
        yield asked


def use_service(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for name, value in osv_variables(port).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def scanned(release: Release) -> tuple[Project, str]:
    """The project of the release, and its name."""
    return load_project(release.root), release.images.place("backend")


class TestScan:
    def test_stops_a_release_with_a_known_vulnerability(
        self, scanned: tuple[Project, str], service: list[dict[str, Any]]
    ) -> None:
        """What the images hold is judged; each finding is a line, and the last says where to go."""
        project, reference = scanned
        with pytest.raises(SlipwayError) as caught:
            steps.scan(project, reference, audit=True)
        finding, last = caught.value.problems
        assert finding == "idna 3.6: CVE-2024-3651, GHSA-jjg7-2v4v-x38h: update to 3.7"
        assert last.startswith(f"{reference}: 1 findings stop it")
        assert sorted(str(one["package"]) for one in service)[0] == "{'name': 'anyio', 'ecosystem': 'PyPI'}"

    def test_lets_pass_what_is_allowed(self, scanned: tuple[Project, str], service: list[dict[str, Any]]) -> None:
        """And says it, and that what is not Python's was judged by nobody where there is no grype."""
        project, reference = scanned
        allow = (Allowance(id="CVE-2024-3651", package="idna", reason="ours alone", until=date(9999, 1, 1)),)
        with logged() as said:
            steps.scan(project.model_copy(update={"allow": allow}), reference, audit=True)
        assert "idna: CVE-2024-3651 is allowed until 9999-01-01: ours alone" in said

    def test_a_service_that_is_away_lets_nothing_pass(
        self, scanned: tuple[Project, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One line, no traceback of pip-audit's."""
        use_service(monkeypatch, free_port())
        project, reference = scanned
        with pytest.raises(SlipwayError) as caught:
            steps.scan(project, reference, audit=True)
        [line] = caught.value.problems
        assert line.startswith(
            "pip-audit: its service does not answer: nothing passes without its answer: try again later"
        )

    def test_nor_does_one_that_knows_no_package(
        self, scanned: tuple[Project, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """pip-audit ends well where a mirror has no vulnerabilities to tell of (a recorded report)."""
        skipped = json.loads((Path(__file__).parent / "recorded/pip-audit-skipped.json").read_text(encoding="utf-8"))
        monkeypatch.setattr(audit, "_pip_audit", lambda *_: skipped)
        project, reference = scanned
        with pytest.raises(SlipwayError, match="pip-audit: its service knows none of the 2 packages"):
            steps.scan(project, reference, audit=True)

    def test_judges_nothing_where_it_is_told_so(self, scanned: tuple[Project, str]) -> None:
        """Aloud; the SBOMs are in folders named by the digests that they are of."""
        project, reference = scanned
        with logged() as said:
            steps.scan(project, reference, audit=False)
        assert said == ["--sbom-only: nothing was judged"]
        folder = project.root / ".slipway/supply" / reference.rpartition(":")[2]
        assert sorted(one.name for one in folder.iterdir()) == ["sbom.cdx.json", "sbom.spdx.json"]
        spdx = json.loads((folder / "sbom.spdx.json").read_text(encoding="utf-8"))
        assert {"idna", "anyio"} <= {one["name"] for one in spdx["packages"]}


class TestAudit:
    def test_stops_at_a_pin_with_a_known_vulnerability(self, tree: Path, service: list[dict[str, Any]]) -> None:
        """Each version that a lock pins for some platform is asked for, whatever machine asks."""
        (tree / "requirements").mkdir()
        (tree / "requirements/test.txt").write_text(LOCK, encoding="utf-8")
        (tree / "requirements/lint.txt").write_text("idna==3.7 \\\n    --hash=sha256:1\n", encoding="utf-8")
        with pytest.raises(SlipwayError) as caught:
            steps.audit(load_project(tree))
        assert caught.value.problems[0] == "idna 3.6: CVE-2024-3651, GHSA-jjg7-2v4v-x38h: update to 3.7"
        assert caught.value.problems[1].startswith("requirements/: 1 findings stop it")
        asked = {(one["package"]["name"], one["version"]) for one in service}
        assert asked == {("idna", "3.6"), ("idna", "3.7"), ("uvicorn", "0.54.1"), ("pywin32", "311")}

    def test_reads_our_own_locks(self) -> None:
        """All of them; none has a package without a version."""
        found = audit.locked_packages(ROOT)
        lines = [line for path in (ROOT / "requirements").glob("*.txt") for line in path.read_text().splitlines()]
        names = {line.split("==")[0].partition("[")[0] for line in lines if line and line[0] not in " #"}
        assert names == found.keys()
        assert {"fastapi", "checkov", "nox", "uv"} <= names


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
            make_sboms([place], tree / ".slipway/supply")
