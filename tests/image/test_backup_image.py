"""The image of backups as itself: PostgreSQL's own programs on our Python, closed, with a folder that is a volume."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from pipeline.images.build import find_pushed, short_digest
from tests.conftest import IMAGE
from tests.containers import CLOSED, docker, have_image, pull_image, say

pytestmark = pytest.mark.skipif(IMAGE not in os.environ, reason="`nox -s image` builds the image and tests it")

PROGRAMS = ("pg_dump", "pg_restore", "psql")
SERVER = "postgres:18-trixie"


@pytest.fixture(scope="module", name="image")
def _image() -> str:
    """The one that was built, or pushed, with the service's."""
    service = os.environ[IMAGE]
    if "@" in service:
        return pull_image(find_pushed(service).place("backup"))
    return f"slipway-test-backup:{short_digest(service)}"


@pytest.fixture(scope="module", name="volume")
def _volume(image: str) -> Iterator[str]:
    """A volume that the image was the first to mount."""
    name = docker("volume", "create")
    yield name
    docker("volume", "rm", name)


def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    entry = ("--entrypoint", command[0], image, *command[1:])
    return docker("run", "--rm", "--network", "none", *CLOSED, *options, *entry)


def test_starts_the_program_as_a_numbered_user(image: str) -> None:
    """Exec form; with the labels of a release's image."""
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert (config["Entrypoint"], config["User"]) == (["python", "-m", "backend.backups"], "10001:10001")
    assert config["Labels"]["org.opencontainers.image.title"].endswith(" backups")
    assert re.fullmatch(r"\d{4}", config["Labels"]["slipway.schema"])


def test_has_the_programs_of_the_server(image: str) -> None:
    """The same versions as PostgreSQL's own image, and each library that they load."""
    server = have_image(SERVER)
    for name in PROGRAMS:
        here = run(image, name, "--version")
        there = docker("run", "--rm", "--network", "none", "--entrypoint", name, server, "--version")
        assert here == there
        needed = run(image, "sh", "-c", f"ldd $(readlink -f $(command -v {name}))")
        assert "libpq" in needed
        assert "not found" not in needed


def test_knows_what_it_has(image: str) -> None:
    """For whoever looks for vulnerabilities: what came as Debian's packages is recorded as such, and only once."""
    names = run(image, "sh", "-c", "ls /var/lib/dpkg/status.d 2>/dev/null || true").split()
    own = run(image, "dpkg-query", "--show", "--showformat", "${Package}\n").split()
    assert not set(names) & set(own)


def test_says_what_is_wrong_in_one_line(image: str) -> None:
    """Of its settings, with exit code 2; without a traceback."""
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", *CLOSED, "--env", "BACKUP_KEEP=forever", image, "list"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("BACKUP_KEEP: must be")
    assert "Traceback" not in done.stderr


def test_a_volume_becomes_its_users(image: str, volume: str) -> None:
    """Whoever made it; nobody else reads it, and nothing else can be written."""
    mount = ("--mount", f"type=volume,source={volume},target=/backups")
    said = run(image, "sh", "-c", "stat -c '%u %a' /backups && touch /backups/it && ls /backups", options=mount)
    assert said.splitlines() == ["10001 700", "it"]
    places = "import os; print([one for one in ('/', '/app', '/venv', '/tmp', '/usr') if os.access(one, os.W_OK)])"
    assert run(image, "python", "-c", places) == "['/tmp']"


def test_holds_no_tool_to_build_with(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No pip, no uv, no compiler; its size is said."""
    found = set(run(image, "sh", "-c", "ls /venv/bin /usr/local/bin").split())
    assert {"pg_dump", "rclone"} <= found
    assert not {"uv", "gcc", "cc", "make"} & found
    size = json.loads(docker("image", "inspect", image))[0]["Size"]
    base = json.loads(docker("image", "inspect", have_image("python:3.13-slim-trixie")))[0]["Size"]
    with capsys.disabled():
        say(f"\nthe image of backups adds {(size - base) / 10**6:.0f} MB")
