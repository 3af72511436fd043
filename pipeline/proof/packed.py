"""The smoke test as one file, to be run where a replica runs: its modules and its orders, without anything installed.

It needs Python and pydantic there, which every service of this pipeline has (FastAPI needs it).
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.requests import RequestSpec
from pipeline.proof.smoke import ORDERS

__all__ = ["pack_smoke"]

# What `pipeline.proof.smoke` imports of ours; a test runs it without the rest.
MODULES = (
    "pipeline",
    *("pipeline.errors", "pipeline.config", "pipeline.config.requests", "pipeline.config.tables", "pipeline.proof"),
    *(f"pipeline.proof.{name}" for name in ("answers", "exchange", "plain", "results", "smoke", "tally", "template")),
    "pipeline.proof.writes",
)
MAIN = "import sys\nfrom pipeline.proof.smoke import main\nmain(sys.argv[0])\n"


def pack_smoke(
    specs: Sequence[RequestSpec], base: str, token: Sequence[str], *, wait: float, tries: int, record: str = ""
) -> bytes:
    """Return an archive that `python -I FILE` runs: it sends `specs` to `base` once that is ready.

    `token` are the files that the token may be in; `wait` are the seconds that `base` has to get ready. `tries` is as
    in `smoke`. `record` is a file that gets the result in short; then a request that failed is an exit code, too.
    The same orders give the same bytes.
    """
    orders = {"base": base, "token": list(token), "wait": wait, "tries": tries, "record": record}
    orders["requests"] = [spec.table() for spec in specs]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MODULES:
            path = Path(sys.modules[name].__file__ or "")
            inside = name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
            _add(archive, inside, path.read_text(encoding="utf-8"))
        _add(archive, "__main__.py", MAIN)
        _add(archive, ORDERS, json.dumps(orders))
    return packed.getvalue()


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    # The time of a member is that of its making, if nobody says another.
    archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
