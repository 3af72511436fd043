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


def pack_smoke(specs: Sequence[RequestSpec], base: str, token: Sequence[str], *, wait: float, tries: int) -> bytes:
    """Return an archive that `python -I FILE` runs: it sends `specs` to `base` once that is ready.

    `token` are the files that the token may be in; `wait` are the seconds that `base` has to get ready. `tries` is as
    in `smoke`.
    """
    orders = {"base": base, "token": list(token), "wait": wait, "tries": tries}
    orders["requests"] = [spec.table() for spec in specs]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in MODULES:
            path = Path(sys.modules[name].__file__ or "")
            inside = name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
            archive.writestr(inside, path.read_bytes())
        archive.writestr("__main__.py", MAIN)
        archive.writestr(ORDERS, json.dumps(orders))
    return packed.getvalue()
