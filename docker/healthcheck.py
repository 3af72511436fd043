"""The image's health check: is the service of this container ready? Standard library alone, 30 ms.

What `/ready` says against it is printed: `docker inspect` keeps it in `.State.Health.Log`, and a deploy reads it there.

Docker restarts what ends, and not what hangs. So a service that has answered nothing for HUNG_SECONDS is ended here, as
a liveness probe does it on Kubernetes, where nobody runs this. That takes an init as the first process of the container
(`init: true`): the kernel protects the first one from its own container.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

SECONDS = 2.5  # below the time-out of the HEALTHCHECK, so that the reason can still be printed
HUNG_SECONDS = 30
SILENT_SINCE = Path("/tmp/silent-since")  # noqa: S108 - the container's own; the time is that of the file


def main() -> int:
    """0 where `/ready` is 200, 1 where it is anything else; prints its status line and its body."""
    try:
        address = ("127.0.0.1", int(os.environ.get("BACKEND_PORT", "8000")))
        with socket.create_connection(address, timeout=SECONDS) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError as error:
        print(f"nothing answers /ready: {error}")
        if isinstance(error, TimeoutError):  # a closed port is that of a service which starts or ends
            _end_if_it_hangs()
        return 1
    SILENT_SINCE.unlink(missing_ok=True)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1:2]
    print(b" ".join([*status, body]).decode(errors="replace"))
    return 0 if status == [b"200"] else 1


def _end_if_it_hangs() -> None:
    """Note since when it has been silent; after HUNG_SECONDS, kill what the init has started."""
    if not SILENT_SINCE.exists():
        SILENT_SINCE.touch()
    if time.time() - SILENT_SINCE.stat().st_mtime < HUNG_SECONDS or "init" not in Path("/proc/1/comm").read_text():
        return
    SILENT_SINCE.unlink()
    print(f"it answered nothing for {HUNG_SECONDS} s: killed")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if stat.read_text().rpartition(")")[2].split()[1] == "1":
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except OSError:  # it has ended
            continue


if __name__ == "__main__":
    sys.exit(main())
