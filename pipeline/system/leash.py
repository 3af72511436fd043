"""Run a command that must not outlive the process that asked for it.

    python leash.py [--user NAME] [--remove DIR] [--grace SECONDS] -- COMMAND...

The parent holds the other end of standard input. When it closes that end or dies in any way (even by `kill -9`, when no
`finally` runs), the command gets SIGINT and, after its grace, SIGKILL with its whole process group; DIR is removed.
PR_SET_PDEATHSIG would only do the first half, and only on Linux.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

__all__ = ["held"]

GRACE_SECONDS = 5


@contextlib.contextmanager
def held(
    command: list[str],
    *,
    log: Path | IO[bytes],
    user: str | None = None,
    remove: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    grace: float = GRACE_SECONDS,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` on a leash while the block runs, and yield the leash, whose exit code is the command's.

    `log` gets the output. `grace` is the number of seconds that the command has between SIGINT and SIGKILL. `user` is
    who runs it, `remove` the folder that is removed after it.
    """
    given = {"--user": user, "--remove": remove, "--grace": grace}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    with log.open("wb") if isinstance(log, Path) else contextlib.nullcontext(log) as output:
        leash = subprocess.Popen(
            # Isolated and without site: the leash starts in 15 ms and runs no .pth files.
            [sys.executable, "-I", "-S", __file__, *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            # Ctrl-C reaches the whole foreground group, but what the deploy holds must end when the deploy says so.
            start_new_session=True,
        )
    try:
        yield leash
    finally:
        assert leash.stdin is not None
        leash.stdin.close()
        leash.wait()


def _main(argv: list[str]) -> int:
    options = argv[: argv.index("--")]
    command = argv[argv.index("--") + 1 :]
    given = dict(zip(options[::2], options[1::2], strict=True))
    user, grace = given.get("--user"), float(given.get("--grace", GRACE_SECONDS))
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        user=user,
        group=_primary_group(user) if user else None,
        extra_groups=[] if user else None,
    )

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
            try:
                child.wait(grace)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin: its lock would abort us if the command ended first
            continue
        end()

    # In a thread: a handler would interrupt the wait() below, and then wait for the same child itself.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end).start())
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    if "--remove" in given:
        shutil.rmtree(given["--remove"], ignore_errors=True)
    return code if code >= 0 else 128 - code


def _primary_group(name: str) -> int:
    import pwd  # only if a user is given: the module does not exist on every platform

    return int(pwd.getpwnam(name).pw_gid)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
