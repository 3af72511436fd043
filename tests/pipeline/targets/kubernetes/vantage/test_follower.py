"""What the vantage's log tells while it grows."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from pipeline.engines.kubectl import Kubectl
from pipeline.targets.kubernetes.vantage.follower import Witness

SAYS = """
import sys
for line in sys.stdin:
    print(line, end="", flush=True)
    print("said", file=sys.stderr, flush=True)
"""


def test_looks_at_whole_lines_as_they_come() -> None:
    """A line is read once, when it is whole; the writer goes on where it was."""
    with tempfile.TemporaryFile() as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", SAYS], bufsize=0, **pipes) as writer:  # type: ignore[call-overload]
            witness = Witness(Kubectl("kind", "shop"), "shop-secrets", _following=(writer, log))
            seen = []
            for text in (
                b'{"ready": true, "at": 1}\n',
                b'{"errors": {"10.0.0.1": 2}, "own": 0}\nno JSON\n',
                b'{"errors": {"10.0.0.1": 3}, "own": 1}\n',
            ):
                writer.stdin.write(text)
                for _ in text.splitlines():
                    assert writer.stderr.readline() == b"said\n"
                witness.look()
                witness.look()
                seen.append([(one.errors, one.own) for one in witness.samples])
            writer.stdin.close()
        first, second = ({"10.0.0.1": 2}, 0), ({"10.0.0.1": 3}, 1)
        assert seen == [[], [first], [first, second]]


def test_has_seen_nothing_where_nobody_was_asked() -> None:
    """A first release has no vantage."""
    witness = Witness(Kubectl("kind", "shop"), "shop-secrets")
    witness.look()
    assert witness.samples == []
