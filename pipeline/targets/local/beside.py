"""One replica outside the supervisor, on a socket that nobody else knows: for a rehearsal, or for a trial."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import SlipwayError
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from pipeline.system.waiting import Deadline, attempts
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.local.artifacts import Artifacts
from pipeline.targets.local.replicas import check_ready

__all__ = ["NotReady", "beside"]


class NotReady(SlipwayError):
    """The replica ended, or did not get ready in time: its one problem says why."""


@contextmanager
def beside(
    artifacts: Artifacts, release: str, environment: Mapping[str, str], deadline: float | Deadline,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[str]:  # fmt: skip
    """Start a replica of `release` with `environment`, and yield its address once it is ready; end it with the block.

    `watch` is called while waiting. Raise `NotReady` where the replica ends, or is not ready by the `deadline`.
    """
    folder = Path(tempfile.mkdtemp(prefix="slipway-try-"))
    socket = folder / "replica.sock"
    own = {"BACKEND_HOST": str(socket), "METRICS_PORT": str(free_port()), "RELEASE": release, "DRAIN_SECONDS": "0"}
    command = [str(artifacts.python(release, "backend")), "-m", "backend"]
    place = os.fspath(artifacts.folder(release))
    with (
        tempfile.TemporaryFile() as log,  # the folder goes as soon as the process ends
        held(command, log=log, env={**environment, **own}, cwd=place, remove=folder) as process,
    ):
        answer = "it did not answer /ready"
        for _ in attempts(deadline, every=0.03, watch=watch):
            ready, answer = check_ready(socket, answer)
            if ready:
                break
            if process.poll() is not None:
                log.seek(0)
                words = telling_line(log.read().decode(errors="replace").splitlines())
                raise NotReady(f"ended before it was ready: {words}")
        else:
            raise NotReady(f"did not get ready in time: {answer}")
        yield f"unix:{socket}"
