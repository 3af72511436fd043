"""How much memory a backup needs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from tests.backend.backups.conftest import Place
from tests.conftest import AddRow

pytestmark = pytest.mark.e2e


SPARE = 30_000  # kB, between two runs of the same


class TestMemory:
    async def test_stays_flat(self, place: Place, add_row: AddRow) -> None:
        """Of an empty database, of 60 MB and of 480 MB: the program needs the same, and so does each that it starts."""
        _, *nothing = await asyncio.to_thread(_peaks, place)
        place.run("""CREATE TABLE large AS SELECT string_agg(md5(random()::text), '') AS noise
                     FROM generate_series(1, 3000000) AS n GROUP BY n % 50000""")
        place.run(f'ALTER TABLE large OWNER TO "{place.owner}"')
        small, *little = await asyncio.to_thread(_peaks, place)
        for _ in range(3):
            place.run("INSERT INTO large SELECT noise FROM large")
        large, *much = await asyncio.to_thread(_peaks, place)
        assert small > 50_000_000
        assert large > 7 * small
        add_row("memory of a backup", f"{large / 1e6:.0f} MB: {much[0]} kB, {small / 1e6:.0f} MB: {little[0]} kB")
        for which in zip(nothing, little, much, strict=True):
            assert max(which) - min(which) < SPARE


def _peaks(place: Place) -> tuple[int, int, int]:
    """Return the bytes of a backup, the kilobytes that it had in memory at most, and the largest program it started."""
    code = """if True:
        import resource, sys
        from backend.backups.__main__ import main
        code = main(["backup"])
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            print(resource.getrusage(who).ru_maxrss)
        sys.exit(code)"""
    environ = {**os.environ, **place.environ, **place.encrypted()}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True)
    answer, program, largest = done.stdout.splitlines()[-3:]
    return json.loads(answer)["backup"]["bytes"], int(program), int(largest)
