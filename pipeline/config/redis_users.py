"""Redis' file of users: the service may run the commands that it uses, and no others.

`python -m pipeline.config.redis_users FILE ADMIN-FILE` prints it for the two passwords in these files. It needs no
package.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ADMIN", "COMMANDS", "MONITOR", "SERVICE", "digest", "monitor_rules", "rules", "users"]

ADMIN, SERVICE = "admin", "default"  # the latter logs in with a password alone, as each release does
MONITOR = "monitor"  # sees the server's figures, and no key
# Each by its name: of the cache and the limits, of a connection, and for `doctor`. The tests of the service run with
# these alone (tests/conftest.py), so that one that is missing fails there. A service that uses more adds them here.
COMMANDS = (
    *("expire", "hincrby", "hmget", "mget", "set", "time"),
    "scan",  # of a restore, which ends all cached answers
    *("auth", "client|setinfo", "hello", "ping", "select"),
    "info",
)


def rules() -> list[str]:
    """Return what `ACL SETUSER` takes for the service, but its passwords: any key, no channel, `COMMANDS`."""
    return ["on", "resetchannels", "~*", "-@all", *(f"+{command}" for command in COMMANDS)]


def monitor_rules(password: str) -> list[str]:
    """Return what `ACL SETUSER` takes for whoever measures Redis, with its `password`."""
    return ["on", digest(password), "resetkeys", "resetchannels", "-@all", "+info", "+ping", "+slowlog|len"]


def users(passwords: Iterable[str], admin: str, monitor: str = "") -> str:
    """Return the file: the service with the hashes of its `passwords`, and the administrator with one of `admin`.

    Two passwords of the service are accepted while it changes from one to the other. `monitor`: the password of whoever
    measures it, if somebody does.
    """
    on, *allowed = rules()
    hashes = " ".join(dict.fromkeys(passwords))
    lines = [f"user {SERVICE} {on} {hashes} {' '.join(allowed)}", f"user {ADMIN} on {digest(admin)} ~* &* +@all"]
    lines += [f"user {MONITOR} {' '.join(monitor_rules(monitor))}"] if monitor else []
    return "\n".join(lines) + "\n"


def digest(password: str) -> str:
    """Return a `password` as the file, and `ACL SETUSER`, have it: a hash."""
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


if __name__ == "__main__":
    own, administrators = (Path(name).read_text(encoding="utf-8").strip() for name in sys.argv[1:3])
    sys.stdout.write(users([digest(own)], administrators))
