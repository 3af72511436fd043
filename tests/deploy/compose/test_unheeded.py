"""Whatever becomes of what watches the service, neither its users nor a deploy notice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.watching import PYTHON, eventually, watched_clone
from tests.deploy.conftest import AddRow
from tests.deploy.visitors import Callers

pytestmark = pytest.mark.e2e

WATCHERS = ("prometheus", "collector", "logs", "traces")
DISKS, DISK_MB = ("prometheus", "collector", "logs"), 96  # volumes, and what each has room for
RATE, CALLERS, SECONDS = 20, 4, 15  # requests a second of each caller
SLACK_MS = 50  # a shared machine's
Unwell = Callable[[ComposeCheckout], AbstractContextManager[None]]


def containers(one: ComposeCheckout) -> list[str]:
    """Return those of what watches."""
    return [name for service in WATCHERS for name in one.containers(service)]


@contextmanager
def stopped(one: ComposeCheckout) -> Iterator[None]:
    """It is gone. A deploy starts it again."""
    docker("stop", *containers(one))
    try:
        yield
    finally:
        docker("start", *containers(one))


@contextmanager
def slow(one: ComposeCheckout) -> Iterator[None]:
    """It takes connections, and answers nothing."""
    names = containers(one)
    docker("pause", *names)
    try:
        yield
    finally:
        for name in names:
            docker("unpause", name, check=False)  # a deploy may have replaced it


@contextmanager
def full(one: ComposeCheckout) -> Iterator[None]:
    """Its disks have no room."""
    for disk in DISKS:
        in_volume(one, disk, "head -c 1G /dev/zero >/disk/filler; true")
    try:
        yield
    finally:
        for disk in DISKS:
            in_volume(one, disk, "rm -f /disk/filler")


UNWELL: Mapping[str, Unwell] = {"stopped": stopped, "slow": slow, "full": full}


def in_volume(one: ComposeCheckout, disk: str, command: str) -> None:
    """Run a command of the shell in /disk, which is a volume of the clone."""
    docker("run", "--rm", "--network", "none", "--volume", f"{one.project}_{disk}:/disk", PYTHON, "sh", "-c", command)


def make_disks(one: ComposeCheckout) -> None:
    """Make the volumes of what watches before Compose does: in memory, and small."""
    for disk in DISKS:
        labels = (f"com.docker.compose.project={one.project}", f"com.docker.compose.volume={disk}")
        marks = [word for label in labels for word in ("--label", label)]
        kinds = ("type=tmpfs", "device=tmpfs", f"o=size={DISK_MB}m")
        docker("volume", "create", *marks, *(word for kind in kinds for word in ("--opt", kind)),
               f"{one.project}_{disk}")  # fmt: skip


@pytest.fixture(scope="module", name="beside")
def _beside(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCheckout]:
    """Yield a watched clone whose every request is traced."""
    folder = tmp_path_factory.mktemp("unheeded")
    with watched_clone(template, folder, make_disks, OTEL_TRACES_SAMPLER="parentbased_always_on") as one:
        eventually(lambda: len(containers(one)) == len(WATCHERS), "not all of it runs", 60)
        yield one


def asked(one: ComposeCheckout) -> Callers:
    """Return the callers that asked the service for a while; each was answered."""
    with Callers(f"http://localhost:{one.port}", one.asked, rate=RATE, callers=CALLERS) as callers:
        time.sleep(SECONDS)
    assert callers.failed == []
    return callers


@pytest.mark.parametrize("how", UNWELL)
def test_nobody_notices(beside: ComposeCheckout, how: str, add_row: AddRow) -> None:
    """Requests are as fast, and a deploy is proved."""
    without = asked(beside).percentile(0.99)
    with UNWELL[how](beside):
        meanwhile = asked(beside).percentile(0.99)
        beside.change(f"what watches is {how}")
        latency = beside.proved().traffic["latency_ms"]["p99"]
        running = {name: beside.inspect(name)["State"]["Running"] for name in containers(beside)}
    row = f"{how:7}: p99 {meanwhile:.0f} ms, {without:.0f} ms before; a deploy is proved, p99 {latency:.0f} ms"
    add_row("Compose: what watches is away, slow or full", row)
    assert meanwhile <= 2 * without + SLACK_MS
    if how == "stopped":
        assert list(running.values()) == [True] * len(WATCHERS), "the deploy did not bring back what was stopped"
