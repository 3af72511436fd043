"""Become a command with exactly the environment of a file, plus the given variables.

    python launch.py ENVIRONMENT.json NAME=VALUE... -- COMMAND...

The supervisor's own `environment=` cannot quote every value, and would show what it holds.
"""

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    split = sys.argv.index("--")
    environment = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    environment.update(pair.split("=", 1) for pair in sys.argv[2:split])
    command = sys.argv[split + 1 :]
    os.execve(command[0], command, environment)  # noqa: S606 - that is the whole purpose
