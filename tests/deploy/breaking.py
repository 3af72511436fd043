"""Ways to break a release: text added to the source of a clone, whatever that source is."""

from __future__ import annotations

import textwrap

from tests.deploy.checkout import Checkout

__all__ = ["IN_SERVICE", "SLOW_SECONDS", "add_migration", "fail_later", "wrap_service"]

SLOW_SECONDS = 0.03  # of one request of the table
# An expression of Python: whether the process is a replica that people are sent to, and not the one of the trial.
IN_SERVICE = (
    'not __import__("re").search(r"/try-\\w+\\.sock|try-backend", str(__import__("os").environ.get("BACKEND_HOST"))'
    ' + str(__import__("os").environ.get("BACKEND_SOCKET")) + __import__("socket").gethostname())'
)

LATE = """
import time
self.since = getattr(self, "since", time.monotonic())
if path.startswith("/api/") and time.monotonic() - self.since > {later}:
    self.late = getattr(self, "late", 0) + 1
    if self.late % {each} == 0:
        status = 500
"""

# A layer of the service: it may change what every route answers.
LAYER = """
from starlette.middleware import Middleware

_sound_app = create_app


class _Breakage:
    def __init__(self, app):
        self.app = app
        self.asked = 0

    async def __call__(self, scope, receive, send):
        import asyncio

        path, method = scope.get("path", ""), scope.get("method")
        status = body = None
        if path.startswith("/api/"):
            self.asked += 1
        if {when}:
{breakage}

        async def answer(message):
            if status and message["type"] == "http.response.start":
                message["status"] = status
            if body and message["type"] == "http.response.body":
                message["body"] = body * len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, answer)


def create_app(*arguments, **options):
    app = _sound_app(*arguments, **options)
    app.user_middleware.{place}
    return app
"""

MIGRATION = '''"""{message}"""

from __future__ import annotations

from alembic import op

revision = "{revision}"
down_revision = "{before}"
contract_after: str | None = {contract_after!r}
transactional = {transactional}


def upgrade() -> None:
{statements}
'''


def wrap_service(checkout: Checkout, breakage: str, *, when: str = IN_SERVICE, counted: bool = False) -> None:
    """Run `breakage` before each request: it sees `path`, `method`, `self.asked`, and may set `status` and `body`.

    `when` it does so is an expression: by default not in the trial, which would refuse the release. `counted`: it is
    what the service itself takes for its answer, so that its metrics have it, too.
    """
    place = "append(Middleware(_Breakage))" if counted else "insert(0, Middleware(_Breakage))"
    text = LAYER.format(when=when, place=place, breakage=textwrap.indent(breakage, " " * 12))
    checkout.append("backend/app.py", text)


def fail_later(checkout: Checkout, later: float, *, each: int) -> None:
    """Let one in `each` requests of the domain fail, from `later` seconds after a replica's first one on."""
    wrap_service(checkout, LATE.format(later=later, each=each), counted=True)


def add_migration(
    checkout: Checkout, message: str, *statements: str, contract_after: str | None = None, transactional: bool = True
) -> str:
    """Add a migration after the newest; return its revision."""
    folder = checkout.root / "backend" / "migrations" / "versions"
    before = max(path.name[:4] for path in folder.glob("[0-9]*.py"))
    revision = f"{int(before) + 1:04}"
    calls = [f'    op.execute("""{statement}""")' for statement in statements]
    text = MIGRATION.format(message=message, revision=revision, before=before, contract_after=contract_after,
                            transactional=transactional, statements="\n".join(calls))  # fmt: skip
    checkout.write(f"backend/migrations/versions/{revision}_{message.replace(' ', '_')}.py", text)
    return revision
