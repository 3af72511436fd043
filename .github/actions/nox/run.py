"""The last step of the action beside it: one nox session, its output shown, its exit code kept, its digest told.

Reads SESSION, ARGS and IMAGE_REPOSITORY; writes `digest`, `repository` and `reference` to GITHUB_OUTPUT.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def main() -> int:
    """Run the session; its exit code."""
    # `github.repository` has the case of its owner, and a registry takes lower case alone.
    repository = os.environ.get("IMAGE_REPOSITORY", "").lower()
    environ = {**os.environ, "IMAGE_REPOSITORY": repository}
    if not repository:
        del environ["IMAGE_REPOSITORY"]
    command = [sys.executable, "-m", "nox", "--session", os.environ["SESSION"], "--", *shlex.split(os.environ["ARGS"])]
    last = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as nox:
        assert nox.stdout is not None
        # A runner cancels with SIGINT to this process alone, and what nox passes on is SIGTERM.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: nox.send_signal(signal.SIGTERM))
        for line in nox.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            last = line.strip() or last
    outputs = {"repository": repository}
    digest = last.decode(errors="replace")
    if nox.returncode == 0 and DIGEST.fullmatch(digest):
        outputs |= {"digest": digest, "reference": f"{repository}@{digest}"}
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in outputs.items())
    return nox.returncode if nox.returncode >= 0 else 128 - nox.returncode


if __name__ == "__main__":
    sys.exit(main())
