"""How much memory a backup needs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from backend.backups import store
from tests.backend.backups.conftest import Place

pytestmark = pytest.mark.e2e


class TestMemory:
    async def test_stays_flat(self, place: Place) -> None:
        """Of a backup of 60 MB, more than 100 MB as text, no more than a few MB are ever in memory."""
        small = await asyncio.to_thread(_peak, place)
        place.run("""CREATE TABLE large AS SELECT string_agg(md5(random()::text), '') AS noise
                     FROM generate_series(1, 3000000) AS n GROUP BY n % 50000""")
        place.run(f'ALTER TABLE large OWNER TO "{place.owner}"')
        large = await asyncio.to_thread(_peak, place)
        assert store.backups(place.folder)[0].bytes > 50_000_000
        assert large - small < 30_000, (small, large)  # kB


def _peak(place: Place) -> int:
    """Return how many kilobytes a backup had in memory at most."""
    code = """if True:
        import resource, sys
        from backend.backups.__main__ import main
        code = main(["backup"])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        sys.exit(code)"""
    environ = {**os.environ, **place.environ, **place.encrypted()}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])
