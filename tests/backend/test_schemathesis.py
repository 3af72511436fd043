"""The whole API against its own document: what schemathesis makes up, and what it finds."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import uv

from tests.backend.accounts.conftest import AUTH, PASSWORD, Add, _add, _sql  # noqa: F401 - fixtures, too
from tests.backend.process import serve
from tests.conftest import TOKEN, AddRow

pytestmark = pytest.mark.e2e

# Not of the tests' environment: it brings fifty packages, and nothing else here needs one of them.
PROGRAM = (uv.find_uv_bin(), "tool", "run", "--quiet", "schemathesis==4.32.5")
SEED, EXAMPLES = 17, 25
# An `Idempotency-Key` is for one request: with another body it is refused, as no document can say. A key that is good
# is therefore a new one each time. The session of who asks must outlive the run: nobody ends it, or all of them.
HOOKS = """
import re
import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    name = next((name for name in case.headers or () if name.lower() == "idempotency-key"), None)
    if name and re.fullmatch(r"[!-~]{1,255}", str(case.headers[name])):
        case.headers[name] = uuid.uuid4().hex
"""


@pytest.mark.parametrize("who", ["a pipeline", "an account", "an account, where reading is closed"])
def test_finds_nothing(who: str, environ: dict[str, str], add: Add, tmp_path: Path, add_row: AddRow) -> None:
    """Neither an error of the server, nor an answer that the document does not have, nor a good request refused."""
    (tmp_path / "hooks.py").write_text(HOOKS)
    add("zoe", "admin")
    own = {
        **environ,
        "API_RATE_LIMIT": "10000000",
        "JWT_EXPIRE_MINUTES": "60",
        "ANONYMOUS_READ": str("closed" not in who).lower(),
    }
    with serve(own, tmp_path, on_socket=False) as service:
        token, left_out = TOKEN, list[str]()
        if who != "a pipeline":
            with service.client() as client:
                given = client.post(f"{AUTH}/login", json={"username": "zoe", "password": PASSWORD})
                token, left_out = given.json()["access_token"], ["--exclude-path", f"{AUTH}/logout"]
        base = f"http://127.0.0.1:{service.port}"
        command = [
            *PROGRAM, "run", f"{base}/openapi.json", "--url", base, "--header", f"Authorization: Bearer {token}",
            "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--request-timeout", "30", "--no-color", *left_out,
        ]  # fmt: skip
        hooks = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": "."}
        done = subprocess.run(command, cwd=tmp_path, env=hooks, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert service.metrics()["http_requests_in_flight"] == 0
    cases = re.search(r"Test cases:\s+(\d+) generated", done.stdout)
    assert cases, done.stdout
    assert int(cases[1]) > 100
    add_row("schemathesis", f"{who}: {cases[1]} requests, no server error, nothing that the document does not say")
