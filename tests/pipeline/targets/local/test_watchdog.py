"""A replica that hangs is ended; nobody else is."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.targets.local import watchdog
from tests.pipeline.targets.local.test_supervision import eventually

PATIENCE = 3.0
REPLICA = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    while True:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 503 draining, and alive\\r\\n\\r\\n")
        connection.close()
"""


@pytest.fixture(name="replicas")
def _replicas(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two, each leading a group as supervisord's children do; they are gone after the test."""
    with ExitStack() as stack:
        started = []
        for number in range(2):
            path = tmp_path / f"replica-{number}.sock"
            process = subprocess.Popen([sys.executable, "-c", REPLICA, str(path)], start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            eventually(path.exists)
            started.append(process)
        yield started


def test_ends_only_the_one_that_answers_nothing(replicas: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """A stopped process is killed after the time it has; one that answers, if only 503, and an old socket are not."""
    with socket.socket(socket.AF_UNIX) as left:  # nobody listens there any more
        left.bind(str(tmp_path / "replica-9.sock"))
    replicas[0].send_signal(signal.SIGSTOP)
    script = str(Path(watchdog.__file__))
    run = f"import runpy, pathlib; runpy.run_path({script!r})['main'](pathlib.Path({str(tmp_path)!r}), {PATIENCE})"
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", run], stdout=subprocess.PIPE, text=True) as dog:
        assert dog.stdout
        assert dog.stdout.readline() == (
            f"replica-0 (pid {replicas[0].pid}) answered nothing for {PATIENCE:.0f} s: killed\n"
        )
        assert replicas[0].wait(10) == -signal.SIGKILL
        assert time.monotonic() - began >= PATIENCE
        dog.kill()
    assert replicas[1].poll() is None
