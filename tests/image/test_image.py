"""The production image as itself: what is in it, what it may do, how it starts and ends."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipeline.images.build import Images
from tests.backend.process import free_port, wait_until
from tests.conftest import IMAGE, TOKEN
from tests.containers import CLOSED, ROOT, docker, have_image, say

pytestmark = pytest.mark.skipif(IMAGE not in os.environ, reason="`nox -s image` builds the image and tests it")

ADDED_MEGABYTES = 75
BASE = "python:3.13-slim-trixie"
SECRET = "a-secret-that-must-be-in-no-layer"


@pytest.fixture(scope="module", name="image")
def _image() -> str:
    return os.environ[IMAGE]


@pytest.fixture(scope="module", name="config")
def _config(image: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]["Config"]
    return config


@pytest.fixture(scope="module", name="container")
def _container(image: str) -> Iterator[str]:
    """A container as docker-compose.yml runs it, without a database: the process lives, `/ready` says no."""
    ident = docker("run", "--detach", *CLOSED, "--env", f"SERVICE_TOKEN={TOKEN}", image)
    wait_until(lambda: "started" in docker("logs", ident), "it did not start")
    yield ident
    docker("rm", "--force", ident)


def layers(image: str) -> Iterator[tuple[str, tarfile.TarFile]]:
    """The layers of an image, lowest first: their digests and contents."""
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        for name in manifest[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                yield name, layer


def clone(folder: Path) -> Path:
    """What git has of this tree, and would have."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


class TestWhatItIs:
    def test_says_where_it_comes_from(self, config: dict[str, Any]) -> None:
        """The OCI labels name source, revision, version and time; the schema that the code needs is one of ours."""
        labels = config["Labels"]
        names = {"created", "licenses", "revision", "source", "title", "version"}
        assert names <= {name.removeprefix("org.opencontainers.image.") for name in labels}
        assert re.fullmatch(r"(unknown|[0-9a-f]{40})(-dirty)?", labels["org.opencontainers.image.revision"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["org.opencontainers.image.created"])
        assert re.fullmatch(r"\d{4}", labels["slipway.schema"])

    def test_starts_the_process_itself_as_a_numbered_user(self, config: dict[str, Any]) -> None:
        """Exec form, so that signals reach it; a number, so that Kubernetes can see that it is not root."""
        assert config["Entrypoint"] == ["python", "-m", "backend"]
        assert config["User"] == "10001:10001"
        assert set(config["ExposedPorts"]) == {"8000/tcp", "9090/tcp"}
        assert config["Healthcheck"]["Test"][0] == "CMD"

    def test_adds_little_to_its_base(self, image: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Below 75 MB together, and the empty folder of its socket; what they hold is listed."""
        base = len(json.loads(docker("image", "inspect", have_image(BASE)))[0]["RootFS"]["Layers"])
        sizes: Counter[str] = Counter()
        for number, (_, layer) in enumerate(layers(image)):
            if number < base:
                continue
            for member in layer:
                parts = member.name.split("/")
                packages = parts[:1] == ["venv"] and "site-packages" in parts
                sizes[f"packages/{parts[4]}" if packages and len(parts) > 4 else parts[0]] += member.size
        # Debian's Python has its bytecode, and gets none; that of Docker Hub has not.
        assert {name.partition("/")[0] for name in sizes} - {"usr"} == {"app", "packages", "run", "venv"}
        assert sizes["run"] == 0
        assert sum(sizes.values()) < ADDED_MEGABYTES * 10**6
        with capsys.disabled():
            say(f"\nlayers above {BASE}: {sum(sizes.values()) / 10**6:.1f} MB")
            for name, size in sizes.most_common(12):
                say(f"  {size / 10**6:6.2f} MB  {name}")

    def test_holds_no_tool_and_no_test(self, image: str) -> None:
        """No compiler, no pip in the environment, no uv; of the repository the service alone."""
        names = {member.name for _, layer in layers(image) for member in layer}
        ours = {name for name in names if name.startswith(("app/", "venv/"))}
        assert not [name for name in names if re.search(r"bin/(gcc|cc|make|git|curl|wget|uv|uvx)$", name)]
        assert not [name for name in ours if re.search(r"/(pip|uv|alembic|sqlalchemy)(/|-)", name)]
        assert {name.split("/")[1] for name in ours if name.startswith("app/")} <= {
            "__pycache__", "backend", "healthcheck.py"}  # fmt: skip
        assert not [name for name in ours if name.startswith("app/") and "test" in name]


@pytest.mark.skipif("@" in os.environ.get(IMAGE, ""), reason="about building: this image was built elsewhere")
class TestWhatGoesIn:
    def test_no_secret_no_git_and_no_test_gets_into_a_layer(self, tmp_path: Path) -> None:
        """Planted beside and inside of what is copied, in every target: `.dockerignore` keeps it out."""
        root = clone(tmp_path / "clone")
        planted = (".env", ".git/config", "backend/.env", "backend/secrets/.netrc", "tests/test_x.py", "docker/.env",
                   "docker/frontend/.env", "requirements/.env", ".slipway/compose/secrets/TOKEN")  # fmt: skip
        for name in planted:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(SECRET)
        for dockerfile, target in (
            ("backend", "builder"), ("backend", "development"), ("backend", "migrate"), ("backend", "backup"),
            ("backend", "production"), ("frontend", None),
        ):  # fmt: skip
            given = ["--target", target] if target else []
            built = docker("build", "--quiet", "-f", f"{root}/docker/Dockerfile.{dockerfile}", *given, str(root))
            found = [
                member.name
                for _, layer in layers(built)
                for member in layer
                if member.isfile()
                and member.size == len(SECRET)
                and (layer.extractfile(member) or io.BytesIO()).read() == SECRET.encode()
            ]
            assert found == [], (dockerfile, target)
            assert SECRET not in docker("history", "--no-trunc", built)
            docker("rmi", "--force", built)

    def test_two_builds_from_nothing_are_the_same_image(self, tmp_path: Path) -> None:
        """The same source gives the same digest, whatever the caches and whenever it is built."""
        command = ["build", "--quiet", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"]
        targets = (("backend", "production"), ("backend", "migrate"), ("backend", "backup"), ("frontend", None))
        for dockerfile, target in targets:
            given = ["--target", target] if target else []
            builds = {docker(*command, "-f", f"docker/Dockerfile.{dockerfile}", *given, str(ROOT)) for _ in range(2)}
            assert len(builds) == 1, (dockerfile, target)

    def test_a_change_of_the_code_leaves_the_packages_layer(
        self, tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A rebuild takes seconds, and a push sends the code alone."""
        root = clone(tmp_path / "clone")
        (root / "backend/__init__.py").write_text(f"# changed {time.time_ns()}\n")
        started = time.monotonic()
        changed = Images(root, "slipway-test").build().backend
        seconds = time.monotonic() - started
        before, after = ([digest for digest, _ in layers(one)] for one in (image, changed))
        assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
        with capsys.disabled():
            say(f"\nrebuild of the images after a change of the code: {seconds:.1f} s")


class TestWhatItDoes:
    def test_runs_closed(self, container: str) -> None:
        """Its user, its rights and its open ports; nothing but /tmp can be written."""
        script = (
            "import os, socket\n"
            "status = dict(line.split(':\\t', 1) for line in open('/proc/1/status') if ':\\t' in line)\n"
            "ports = {int(line.split()[1].split(':')[1], 16) for line in list(open('/proc/net/tcp'))[1:]\n"
            "         if line.split()[3] == '0A'}\n"
            "writable = [place for place in ('/', '/app', '/venv', '/tmp', '/etc', '/var', '/home')\n"
            "            if os.access(place, os.W_OK)]\n"
            "print(status['Uid'].split()[0], status['CapEff'].strip(), sorted(ports), writable)\n"
        )
        said = docker("exec", container, "python", "-c", script)
        assert said == "10001 0000000000000000 [8000, 9090] ['/tmp']"

    def test_compiles_nothing_when_it_starts(self, container: str) -> None:
        """All that it imports has bytecode: the packages, the service and the standard library."""
        script = (
            "import importlib.util, sys\n"
            "sys.modules['opentelemetry.sdk.metrics'] = None\n"
            "import backend.server, backend.workers\n"
        )
        done = subprocess.run(
            ["docker", "exec", container, "python", "-v", "-c", script], capture_output=True, text=True, check=True
        )
        assert "/server.cpython-" in done.stderr
        assert re.findall(r"^# code object from (/.*\.py)$", done.stderr, re.MULTILINE) == []

    def test_rests_in_little_memory(self, container: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Below 100 MB without a request."""
        used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split("MiB")[0]
        with capsys.disabled():
            say(f"\nmemory at rest: {used} MiB")
        assert float(used) < 100

    def test_its_health_check_says_what_is_wrong(self, container: str) -> None:
        """Without a database it is not ready, and the check's output names that."""
        done = subprocess.run(
            ["docker", "exec", container, "python", "-I", "-S", "/app/healthcheck.py"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stdout.startswith("503 ")
        assert '"database"' in done.stdout

    def test_a_signal_reaches_the_process(self, image: str) -> None:
        """SIGTERM drains and ends it with 0; nobody has to kill it."""
        ident = docker(
            "run", "--detach", *CLOSED, "--env", f"SERVICE_TOKEN={TOKEN}", "--env", "DRAIN_SECONDS=0.2", image
        )
        try:
            wait_until(lambda: "started" in docker("logs", ident), "it did not start")
            docker("stop", "--time", "20", ident)
            assert docker("inspect", "--format", "{{.State.ExitCode}}", ident) == "0"
            assert '"event":"draining"' in docker("logs", ident)
        finally:
            docker("rm", "--force", ident)

    def test_bad_settings_end_it_with_two_and_a_line(self, image: str) -> None:
        """In production a missing secret is named, and nothing listens."""
        done = subprocess.run(
            ["docker", "run", "--rm", *CLOSED, "--env", "ENVIRONMENT=production", image],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "SERVICE_TOKEN: is missing" in done.stderr

    def test_starts_in_a_moment(self, image: str, capsys: pytest.CaptureFixture[str]) -> None:
        """From `docker run` to the first 200, in milliseconds; a measurement, not a limit of this machine."""
        port = free_port()
        started = time.monotonic()
        ident = docker("run", "--detach", *CLOSED, "--env", f"SERVICE_TOKEN={TOKEN}",
                       "--publish", f"127.0.0.1:{port}:8000", image)  # fmt: skip
        try:

            def answers() -> bool:
                try:
                    return httpx2.get(f"http://127.0.0.1:{port}/health").status_code == httpx2.codes.OK
                except httpx2.TransportError:
                    return False

            wait_until(answers, "it did not answer")
            with capsys.disabled():
                say(f"\ncold start to the first 200: {(time.monotonic() - started) * 1000:.0f} ms")
        finally:
            docker("rm", "--force", ident)
