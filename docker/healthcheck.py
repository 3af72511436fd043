"""The image's health check: is the service of this container ready? Standard library alone, 30 ms.

What `/ready` says against it is printed: `docker inspect` keeps it in `.State.Health.Log`, and a deploy reads it there.
"""

import os
import socket
import sys

SECONDS = 2.5  # below the time-out of the HEALTHCHECK, so that the reason can still be printed


def main() -> int:
    """0 where `/ready` is 200, 1 where it is anything else; prints its status line and its body."""
    try:
        address = ("127.0.0.1", int(os.environ.get("BACKEND_PORT", "8000")))
        with socket.create_connection(address, timeout=SECONDS) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError as error:
        print(f"nothing answers /ready: {error}")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1:2]
    print(b" ".join([*status, body]).decode(errors="replace"))
    return 0 if status == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
