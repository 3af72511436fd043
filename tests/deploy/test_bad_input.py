"""Errors found before anything begins: one clear line each, exit code 2, and nothing is touched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import MakeCheckout
from tests.notes import NOTES
from tests.project import NAME
from tests.tools import missing

pytestmark = pytest.mark.e2e


@contextmanager
def pyproject(checkout: Checkout, old: str, new: str) -> Iterator[None]:
    """Replace `old` with `new` in pyproject.toml while the block runs."""
    path = checkout.root / "pyproject.toml"
    before = path.read_text(encoding="utf-8")
    checkout.patch("pyproject.toml", old, new)
    yield
    path.write_text(before, encoding="utf-8")


LOCAL = "[tool.slipway.environments.local]\n"
ARGUMENTS: dict[str, tuple[list[str], list[str]]] = {
    "an unknown environment": (["deploy", "lokal"], ["`lokal`", "did you mean `local`?"]),
    "an unknown option": (["deploy", "--fast"], ["--fast"]),
    "an unknown verb": (["ship"], ["ship"]),
    "too many arguments": (["deploy", "local", "twice"], ["twice"]),
    "a rollback with nothing before": (["rollback"], ["none to go back to"]),
    "a rollback to a number that is not there": (["rollback", "--release", "99"], ["`99`", "nox -s releases"]),
    "a deploy of a release that is not there": (
        ["deploy", "--release", "feedfacebeef"],
        ["`feedfacebeef`", "nox -s releases"],
    ),
}
TABLES: dict[str, tuple[tuple[str, str], list[str]]] = {
    "an unknown key": (
        (LOCAL, f"{LOCAL}replica = 3\n"), ["environments.local", "unknown key `replica`", "did you mean `replicas`?"]),
    "a wrong type": (
        (LOCAL, f'{LOCAL}max_failures = "none"\n'), ["environments.local", "max_failures", "whole number"]),
    "a missing key": (('target = "local"\n', ""), ["environments.local", "missing key `target`"]),
    "a target that there is not": (
        ('target = "local"\n', 'target = "nomad"\n'), ["environments.local", "`nomad`", "compose"]),
    "no TOML": ((LOCAL, "[tool.slipway.environments.local\n"), ["pyproject.toml", "TOML"]),
    "a request with a wrong key": (
        ('name = "list notes"\n', 'name = "list notes"\nverb = "GET"\n'),
        ["[[tool.slipway.requests]]", "`list notes`", "unknown key `verb`"]),
}  # fmt: skip
VALUES: dict[str, tuple[dict[str, str], list[str]]] = {
    "a placeholder": ({"SERVICE_TOKEN": "change_this_service_token"}, ["SERVICE_TOKEN", "placeholder"]),
    "a short secret": ({"SERVICE_TOKEN": "tooshort-Fq8"}, ["SERVICE_TOKEN", "16 characters"]),
    "a wrong value": ({"LOG_LEVEL": "LOUD"}, ["LOG_LEVEL", "WARNING"]),
    "the superuser as the owner": (
        {"POSTGRES_OWNER": "slipway_superuser", "POSTGRES_USER": "slipway_superuser-app-1"},
        ["POSTGRES_OWNER", "another name"]),
    "another role": ({"POSTGRES_USER": "another"}, ["POSTGRES_USER", f"belongs to the role {NAME}"]),
    "no number": ({"DATABASE_POOL_SIZE": "some"}, ["DATABASE_POOL_SIZE", "integer"]),
    "an unknown name": ({"LOG_LEVLE": "INFO"}, ["LOG_LEVLE", "unknown"]),
    "a database that nothing could connect to": (
        {"DATABASE_URL": "postgresql://shop:canary-Fq8-canary-Fq8@db.example.org/shop?sslmode=bogus-Fq8"},
        ["DATABASE_URL: the value of its parameter sslmode is not valid"]),
    "who migrates a database that is not the service's": (
        {"MIGRATION_DATABASE_URL": "postgresql://shop:canary-Fq8-canary-Fq8@db.example.org/shop"},
        ["MIGRATION_DATABASE_URL: local runs a PostgreSQL of its own", "take MIGRATION_DATABASE_URL out of .env"]),
    "the URL of a database in a file": ({"DATABASE_URL_FILE": "/nonexistent/url"}, ["DATABASE_URL", "cannot be read"]),
    "the host of a database": ({"POSTGRES_HOST": "db.example.org"}, ["POSTGRES_HOST: ", "PostgreSQL of its own"]),
    "a Redis that nothing could connect to": (
        {"REDIS_URL": "rediss://:canary-Fq8-canary-Fq8@cache.example.org?ssl=true"}, ["REDIS_URL: has a parameter"]),
    "the host of a Redis": ({"REDIS_HOST": "cache.example.org"}, ["REDIS_HOST: ", "Redis of its own"]),
}  # fmt: skip
SHELLS: dict[str, tuple[dict[str, str], list[str]]] = {
    "another database": (
        {"POSTGRES_DB": "another"}, [f"POSTGRES_DB: the environment says `another`, .env says `{NAME}`"]),
    "another role": ({"POSTGRES_USER": "another"}, ["POSTGRES_USER: the environment says `another`"]),
    "another project": ({"PROJECT_NAME": "another"}, ["PROJECT_NAME: the environment says `another`", "unset it"]),
    "the URL of a database": ({"DATABASE_URL": "mysql://db.example.org/shop"}, ["the environment: DATABASE_URL: "]),
    "a wrong value": ({"LOG_LEVEL": "LOUD"}, ["the environment: LOG_LEVEL: "]),
}  # fmt: skip


def _refused(checkout: Checkout, arguments: list[str], words: list[str], **environ: str) -> None:
    """Check for exit code 2 and one line with `words`, no new record, and the same processes as before."""
    before = _state(checkout)
    outcome = checkout.run(*arguments, **environ)
    assert outcome.code == 2, str(outcome)
    [line] = outcome.problems()
    assert not [word for word in words if word not in line], line
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert _state(checkout) == before


def _state(checkout: Checkout) -> tuple[set[int], set[Path], set[str]]:
    running = {
        process.pid for process in checkout.processes() if process.info["name"] != "postgres"
    }  # PostgreSQL has helpers that come and go
    files = {path for path in checkout.home.rglob("*") if "postgres" not in path.parts}
    return running, files, checkout.answering()


@pytest.mark.parametrize("what", ARGUMENTS)
def test_bad_arguments_touch_nothing(what: str, deployed: Checkout) -> None:
    """The line names what was given, and what would have been right."""
    _refused(deployed, *ARGUMENTS[what])


@pytest.mark.parametrize("what", TABLES)
def test_a_bad_table_touches_nothing(what: str, deployed: Checkout) -> None:
    """The line names the file, the key and the fix."""
    (old, new), words = TABLES[what]
    with pyproject(deployed, old, new):
        _refused(deployed, ["deploy"], words)


@pytest.mark.parametrize("what", VALUES)
def test_a_bad_setting_touches_nothing(what: str, deployed: Checkout) -> None:
    """The line names the variable and the fix, and never its value."""
    values, words = VALUES[what]
    with deployed.dotenv(**values):
        _refused(deployed, ["deploy"], words)
        stderr = deployed.deploy().stderr
    assert not [value for value in values.values() if value in stderr and value not in ("INFO",)]


@pytest.mark.parametrize("what", SHELLS)
def test_a_shell_that_says_another_place_touches_nothing(what: str, deployed: Checkout) -> None:
    """The data is where it was; the line says that the shell is what to mend."""
    values, words = SHELLS[what]
    _refused(deployed, ["deploy"], words, **values)


def test_a_shell_that_says_another_place_is_told_by_every_verb(deployed: Checkout) -> None:
    """What only looks says so, and shows what `.env` names; what would stop it, or remove its data, refuses."""
    says = f"PROJECT_NAME: the environment says `another`, .env says `{NAME}`"
    for verb in ("status", "releases", "doctor"):
        seen = deployed.run(verb, PROJECT_NAME="another")
        assert (seen.code, says in seen.stderr) == (0, True), str(seen)
    for arguments in (["down"], ["down", "--volumes"]):
        _refused(deployed, arguments, [says], PROJECT_NAME="another")


def test_a_first_deploy_keeps_what_its_shell_says(checkout: Checkout) -> None:
    """A job that sets the database's name in its environment, and one that does not, find the same data afterwards."""
    first = checkout.proved(POSTGRES_DB="another")
    written = checkout.write_note("before")
    assert checkout.settings()["POSTGRES_DB"] == "another"
    for environ in ({}, {"POSTGRES_DB": "another"}):
        assert checkout.deploy(**environ).release == first.release
        assert checkout.request("GET", f"{NOTES}/{written['id']}").json() == written


def test_a_taken_port_is_named_with_who_has_it(deployed: Checkout, make_checkout: MakeCheckout) -> None:
    """Before anything was made; and another clone's edge counts as well as any other server."""
    other = make_checkout()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _refused_first(other, str(port), ["EDGE_PORT", str(port), f"pid {os.getpid()}"])
    _refused_first(other, str(deployed.port), ["EDGE_PORT", str(deployed.port), f"`local` of {deployed.root}"])


def _refused_first(checkout: Checkout, port: str, words: list[str]) -> None:
    outcome = checkout.deploy(EDGE_PORT=port)
    assert outcome.code == 2, str(outcome)
    [line] = outcome.problems()
    assert not [word for word in words if word not in line], line
    assert not (checkout.home / "releases").exists()
    assert checkout.processes() == []


def test_a_dirty_tree_ships_and_is_recorded(sound: Checkout) -> None:
    """What is not committed is allowed: the report says so, beside the commit."""
    sound.write("backend/notes.txt", "not committed\n")
    outcome = sound.proved()
    assert (outcome.report["dirty"], outcome.report["commit"]) == (True, sound.git("rev-parse", "HEAD").strip())
    (sound.root / "backend" / "notes.txt").unlink()
    sound.write(".gitignore", f"{(sound.root / '.gitignore').read_text()}backend/*.tmp\n")
    sound.write("backend/scratch.tmp", "ignored\n")
    clean = sound.deploy()
    assert not (sound.home / "artifacts" / clean.release / "backend" / "scratch.tmp").exists()


# --- a full disk ---


@pytest.fixture
def small_disk(checkout: Checkout) -> Iterator[Checkout]:
    """Yield a deployed clone with its state on a disk of its own."""
    state = checkout.root / ".slipway"
    state.mkdir(mode=0o700)
    as_root = ["sudo", "--non-interactive"] if os.getuid() and shutil.which("sudo") else []
    options = f"size=1200m,mode=700,uid={os.getuid()},gid={os.getgid()}"
    mount = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(state)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        missing(f"no disk of its own can be had: {mounted.stderr.decode().strip()}")
    with ExitStack() as stack:
        stack.callback(lambda: subprocess.run([*as_root, "umount", "--lazy", str(state)], check=True))
        checkout.proved()
        yield checkout
        (state / "ballast").unlink(missing_ok=True)
        assert checkout.run("down", "--volumes").code == 0


def _fill(folder: Path, *, leave: int) -> None:
    """Fill the disk that `folder` is on, but for `leave` bytes."""
    disk = os.statvfs(folder)
    with (folder / "ballast").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - leave - 2**20))
        file.seek(0, os.SEEK_END)
        with suppress(OSError):  # the rest page by page, until nothing is left
            while os.statvfs(folder).f_bavail * disk.f_frsize > leave:
                file.write(bytes(disk.f_frsize))


def test_a_full_disk_stops_a_deploy_with_one_line(small_disk: Checkout) -> None:
    """Found before it begins: exit code 2; on the way: 1. The old release serves, and room is all that is needed."""
    old = small_disk.answering()
    small_disk.change("for a full disk")
    _fill(small_disk.root / ".slipway", leave=100 * 2**20)
    early = small_disk.deploy()
    [line] = early.problems()
    assert (early.code, "MB" in line, "room" in line) == (2, True, True), str(early)
    (small_disk.root / ".slipway" / "ballast").unlink()

    deploy = small_disk.start("deploy")
    deploy.wait_for_stage("migrate")
    _fill(small_disk.root / ".slipway", leave=0)
    late = deploy.finish()
    assert late.code == 1, str(late)
    assert "Traceback" not in late.stderr, str(late)
    assert any("No space left" in line for line in late.problems()), str(late)
    assert small_disk.answering() == old

    (small_disk.root / ".slipway" / "ballast").unlink()
    small_disk.proved()
    assert small_disk.untidy() == []
