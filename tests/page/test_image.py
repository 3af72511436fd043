"""The image of the edge and the page: built and run for real."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.edge import page_headers
from tests.page.conftest import PAGE
from tests.project import NAME
from tests.tools import need

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "128m")
# What the public image of Caddy has done already; an image on Debian learns it.
CAPABLE = """FROM caddy:2
RUN command -v setcap || (apt-get update -qq && apt-get install -qq -y libcap2-bin)
RUN setcap cap_net_bind_service=+ep "$(command -v caddy)"
"""


def docker(*arguments: str, text: str | None = None) -> str:
    """What docker says, on either stream."""
    done = subprocess.run(["docker", *arguments], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, cwd=ROOT, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def build(*options: str) -> str:
    """The ID of the image."""
    return docker("build", "--quiet", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", *options,
                  "--file", "docker/Dockerfile.frontend", ".")  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image, on a Caddy whose binary has a file capability, as the public one has."""
    need("docker")
    docker("build", "--quiet", "--tag", "slipway-test-caddy", "-", text=CAPABLE)
    made = build("--build-arg", "CADDY_IMAGE=slipway-test-caddy", "--build-arg", "REVISION=0123abc")
    yield made
    docker("image", "rm", made, "slipway-test-caddy")


@pytest.fixture(scope="module")
def edge(image: str) -> Iterator[dict[str, Any]]:
    """A container of it, as confined as Compose confines it, healthy."""
    ident = docker("run", "--detach", "--rm", *CONFINED, "--env", "EDGE_UPSTREAMS=127.0.0.1:9", image)
    try:
        yield healthy(ident)
    finally:
        docker("rm", "--force", ident)


def healthy(ident: str) -> dict[str, Any]:
    """What docker knows of a container, once it is healthy."""
    deadline = time.monotonic() + 30
    while True:
        seen: dict[str, Any] = json.loads(docker("inspect", ident))[0]
        if seen["State"]["Health"]["Status"] == "healthy":
            return seen
        assert time.monotonic() < deadline, docker("logs", ident)
        time.sleep(0.1)


class TestImage:
    def test_is_the_same_twice(self, image: str) -> None:
        """Built anew from the same files, in another second, it has the same ID."""
        first = build("--no-cache")
        time.sleep(1)
        second = build("--no-cache")
        docker("image", "rm", *{first, second})
        assert first == second

    def test_says_what_it_is(self, image: str) -> None:
        """A number for a user, no port but its own, and the labels of OCI."""
        config = json.loads(docker("image", "inspect", image))[0]["Config"]
        assert config["User"] == "10001:10001"
        assert "3000/tcp" in config["ExposedPorts"]
        assert config["Labels"]["org.opencontainers.image.revision"] == "0123abc"
        assert config["Labels"]["org.opencontainers.image.title"] == f"{NAME} edge and page"

    def test_holds_what_it_serves(self, edge: dict[str, Any]) -> None:
        """The files of the page, readable, and not writable for who serves them."""
        listed = docker("exec", edge["Id"], "find", "/srv", "-type", "f", "-perm", "0644", "-user", "0")
        served = {f"/srv/{path.relative_to(PAGE)}" for path in PAGE.rglob("*") if path.is_file()}
        assert set(listed.splitlines()) == served

    def test_has_no_capability(self, edge: dict[str, Any]) -> None:
        """Neither now nor to be had."""
        status = docker("exec", edge["Id"], "grep", "-E", "^Cap(Prm|Eff|Bnd|Amb)|^NoNewPrivs", "/proc/1/status")
        assert {line.split()[1] for line in status.splitlines()} == {"0000000000000000", "1"}

    def test_serves_the_page_while_no_replica_is_there(self, edge: dict[str, Any], tmp_path: Path) -> None:
        """Its files under the policy, from memory of the browser where they are the same; all else is unavailable."""
        base = f"http://{edge['NetworkSettings']['IPAddress']}:3000"
        page = httpx2.get(base)
        assert page.text == (PAGE / "index.html").read_text()
        wanted = page_headers(tmp_path)
        assert {name: page.headers[name] for name in wanted} == wanted
        assert httpx2.get(base, headers={"If-None-Match": page.headers["ETag"]}).status_code == 304
        assert httpx2.get(f"{base}/nowhere").status_code in (502, 503)

    def test_says_nothing_when_all_is_well(self, edge: dict[str, Any]) -> None:
        """Beyond that its own API is off, there is nothing to warn of."""
        said = [json.loads(line) for line in docker("logs", edge["Id"]).splitlines()]
        assert [line["msg"] for line in said if line["logger"] != "http.log.error"] == ["admin endpoint disabled"]

    def test_ends_at_once(self, image: str) -> None:
        """A signal reaches Caddy, which ends well."""
        ident = docker("run", "--detach", *CONFINED, image)
        try:
            healthy(ident)
            docker("stop", "--time", "5", ident)
            assert json.loads(docker("inspect", ident))[0]["State"]["ExitCode"] == 0
        finally:
            docker("rm", "--force", ident)
