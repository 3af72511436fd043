"""Kill each replica that hangs: it lives, and answers nothing. supervisord, which sees only what ends, starts it again.

    python watchdog.py FOLDER

FOLDER has the sockets of the replicas. It is what a liveness probe is on Kubernetes, and as patient.
"""

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 30.0
PERIOD_SECONDS = 5.0
REQUEST = b"GET /health HTTP/1.1\r\nHost: watchdog\r\nConnection: close\r\n\r\n"
LOCAL_PEERPID = 2  # macOS


def listener_of(connection: socket.socket) -> int:
    """Return the ID of the process that listens at the other end of `connection`, a Unix socket."""
    if sys.platform == "darwin":
        return connection.getsockopt(0, LOCAL_PEERPID)
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def hung(path: Path, patience: float) -> int | None:
    """Return the process ID of the replica at `path` if it accepts, and answers nothing for `patience` seconds."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(patience)
        connection.connect(str(path))
        process = listener_of(connection)
        try:
            connection.sendall(REQUEST)
            connection.recv(1)
        except TimeoutError:
            return process
    return None  # it answers, or nothing listens: that is supervisord's business


def main(folder: Path, patience: float = PATIENCE_SECONDS) -> None:
    """Ask the replicas one after the other, for ever."""
    while True:
        for path in sorted(folder.glob("replica-*.sock")):
            process = hung(path, patience)
            if process:
                sys.stdout.write(f"{path.stem} (pid {process}) answered nothing for {patience:.0f} s: killed\n")
                sys.stdout.flush()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(os.getpgid(process), signal.SIGKILL)  # with its workers: supervisord gives it a group
        time.sleep(PERIOD_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
