"""`python -m tests.pipeline.proof.power --write`: which slowdowns the proof finds, for docs/2-your-own-service.md."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.proof.baking import BakePlan
from pipeline.proof.significance import upper_bound
from tests.pipeline.proof.simulation import RARE, Change, recordings, simulate

__all__ = ["PAGE", "power", "table", "written"]

PAGE = Path(__file__).parents[3] / "docs/2-your-own-service.md"
BEGIN, END = "<!-- power -->\n", "<!-- /power -->\n"
SHIPPED = {
    "`local`": BakePlan(100, 4, 60),
    "`compose`, `kind`": BakePlan(100, 5, 60),
    "`staging`": BakePlan(50, 60, 600),
    "`production`": BakePlan(50, 120, 1200),
    "half of `local`'s rate": BakePlan(50, 4, 60),
}
SLOWER_MS = (6, 8, 10, 15, 20, 30, 50, 100, 200)
DEPLOYS, FOUND = 20, 19
OFTEN, WEIGHTS = "request 0", {"request 0": 0.3, RARE: 0.05}
ASKED = 0.95  # of the traffic; the rest is /health


def slower(request: str, by: float) -> Change:
    """Return the change that makes one request slower by some ms."""

    def change(_: random.Random, name: str, ms: float) -> float:
        return ms + by if name == request else ms

    return change


def power(kind: str, request: str, shipped: BakePlan) -> int | None:
    """Return by how many ms a request has to be slower so that 19 of 20 deploys are not proved; None: by more."""
    noise = recordings(kind)
    for ms in SLOWER_MS:
        verdicts = [
            simulate(noise[seed % len(noise)], seed, slower(request, ms), shipped)[0] for seed in range(DEPLOYS)
        ]
        if sum(verdict != "proved" for verdict in verdicts) >= FOUND:
            return ms
    return None


def table() -> Iterator[str]:
    """Yield the lines of the table."""
    header = ["environment", "`rate`", "`bake_seconds`"]
    header += [f"{what} of {share}" for what in ("slower,", "busy,", "fails,") for share in ("30 %", "5 %")]
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for name, shipped in SHIPPED.items():
        cells = [
            f"{found} ms" if (found := power(kind, request, shipped)) else f"over {SLOWER_MS[-1]} ms"
            for kind in ("quiet", "busy")
            for request in WEIGHTS
        ]
        answers = [int(shipped.rate * shipped.seconds * ASKED * weight) for weight in WEIGHTS.values()]
        cells += [f"{100 * upper_bound(0, n):.2g} %" for n in answers]
        yield f"| {name} | {shipped.rate:g} | {shipped.seconds:g} | {' | '.join(cells)} |"


def written(text: str) -> str:
    """Return the page with today's table."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n".join(table()) + "\n" + END + rest.split(END)[1]


def main() -> None:
    """Print the table, or write it to the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.writelines(f"{line}\n" for line in table())


if __name__ == "__main__":
    main()
