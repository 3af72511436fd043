"""`python -m tests.pipeline.proof.record`: record the noise of this machine, for the tests of the verdict.

Each recording is the traffic of a real deploy on `local` in which nothing but a comment changed: a long baseline, the
rollout, and a long bake. With `--busy N`, so many processes compete with it for the processors.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.config.project import Environment, load_project
from pipeline.deploy.proving import Proof
from pipeline.deploy.story import Story
from pipeline.system.progress import Progress
from pipeline.targets import Target
from tests.deploy.checkout import Checkout

RECORDINGS = Path(__file__).parent / "recordings"
BASELINE_SECONDS, BAKE_SECONDS, RATE = 15.0, 40, 100


def main() -> None:
    """Make the recordings that are asked for."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", help="of the recordings: NAME-1.json.gz and so on")
    options.add_argument("--template", type=Path, required=True, help="a clean copy of this repository")
    options.add_argument("--deploys", type=int, default=5)
    options.add_argument("--busy", type=int, default=0, metavar="N")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Checkout.make(asked.template, Path(folder) / "clone", rate=RATE, bake_seconds=BAKE_SECONDS)
        os.environ |= clone.environ
        os.chdir(clone.root)
        try:
            record(clone)
            with busy(asked.busy):
                for number in range(1, asked.deploys + 1):
                    clone.change(f"nothing, {number}")
                    path = RECORDINGS / f"{asked.name}-{number}.json.gz"
                    path.write_bytes(gzip.compress(json.dumps(record(clone)).encode(), mtime=0))
                    print(path)  # noqa: T201 - what was asked for
        finally:
            clone.run("down", "--volumes")


def record(clone: Checkout) -> list[dict[str, object]]:
    """Deploy `clone` and return what the release before and the new one answered, in as few characters as will do."""
    project, proofs = load_project(clone.root), list[Proof]()

    def proof(env: Environment, target: Target, progress: Progress, journal: Path, old_counts: bool) -> Proof:
        proofs.append(Proof(env, target, progress, journal, old_counts, baseline_seconds=BASELINE_SECONDS))
        return proofs[-1]

    story = Story(project, project.environment("local"), Progress(), proof=proof)
    _, report = story.tell(reference=None, dry_run=False)
    result = proofs[0].result
    assert result, report.reason
    releases = {report.previous: "old", report.release: "new"}
    requests = list(dict.fromkeys(one.request for one in result.series))
    return [
        {
            "request": f"request {requests.index(one.request)}",
            "phase": one.phase,
            "release": releases[one.release],
            "at": [round(at, 2) for at in one.at],
            "ms": [round(ms, 1) for ms in one.ms],
        }
        for one in result.series
        if one.at
    ]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Let so many processes compute for as long as the block takes."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()


if __name__ == "__main__":
    main()
