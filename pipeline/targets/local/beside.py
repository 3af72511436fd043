"""One replica outside the supervisor, on a socket that nobody else knows: for a rehearsal, or for a trial."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from pipeline.config.settings import grace_seconds
from pipeline.errors import NotReady
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from pipeline.system.waiting import Deadline, attempts
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.local.artifacts import Artifacts
from pipeline.targets.local.replicas import check_ready

__all__ = ["SOCKETS", "beside"]

SOCKETS = "try-*.sock"


@contextmanager
def beside(
    artifacts: Artifacts,
    release: str,
    environment: Mapping[str, str],
    *,
    log: IO[bytes],
    deadline: float | Deadline,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Start a replica of `release` with `environment`, and yield its address once it is ready; end it with the block.

    `log` gets its output. `watch` is called while waiting. Raise `NotReady` where the replica ends, or is not ready by
    the `deadline`.
    """
    socket = artifacts.layout.run / SOCKETS.replace("*", secrets.token_hex(3))
    own = {"BACKEND_HOST": str(socket), "METRICS_PORT": str(free_port()), "RELEASE": release, "DRAIN_SECONDS": "0"}
    variables = {**environment, **own}
    command = [str(artifacts.python(release, "backend")), "-m", "backend"]
    place = os.fspath(artifacts.folder(release))
    try:
        with held(command, log=log, env=variables, cwd=place, grace=grace_seconds(variables)) as process:
            answer = "it did not answer /ready"
            for _ in attempts(deadline, every=0.03, watch=watch):
                ready, answer = check_ready(socket, answer)
                if ready:
                    break
                if process.poll() is not None:
                    log.seek(0)
                    words = telling_line(log.read().decode(errors="replace").splitlines())
                    raise NotReady(release, f"ended before it was ready: {words}")
            else:
                raise NotReady(release, f"did not get ready in time: {answer}")
            yield f"unix:{socket}"
    finally:
        socket.unlink(missing_ok=True)
