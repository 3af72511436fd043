"""The one line that says why something ended."""

from __future__ import annotations

import json

import pytest

from pipeline.targets.common.diagnosis import SILENT, telling_line

POSTGRES = """\
2026-11-27 23:51:59.338 GMT [1] FATAL:  invalid value for parameter "shared_buffers": "12bananas"
2026-11-27 23:51:59.338 GMT [1] HINT:  Valid units for this parameter are "B", "kB", "MB", "GB", and "TB".
"""
CADDY = json.dumps({"level": "error", "msg": "adapting config using caddyfile: unrecognized global option: bogus"})


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (POSTGRES, 'GMT [1] FATAL:  invalid value for parameter "shared_buffers": "12bananas"'),
        (CADDY, "adapting config using caddyfile: unrecognized global option: bogus"),
        (json.dumps({"level": "info", "msg": "using config from file"}), SILENT),
    ],
)
def test_is_the_error_and_not_what_follows_it(log: str, line: str) -> None:
    """Neither an advice nor an event of another level."""
    assert telling_line(log.splitlines()).endswith(line)
