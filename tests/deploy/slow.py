"""A request that takes a while, in a clone of the tests: an answer that is late, or one that is streamed slowly."""

from __future__ import annotations

from tests.deploy.checkout import Checkout

__all__ = ["SLOW", "be_slow"]

SLOW = "/testing-slow"
LATE = """
@router.get("/testing-slow")
async def slow() -> None:
    \"\"\"Take a while.\"\"\"
    import asyncio

    await asyncio.sleep({seconds})
"""
STREAMED = """
@router.get("/testing-slow")
async def slow() -> Any:
    \"\"\"Say something each second, for a while.\"\"\"
    import asyncio

    from fastapi.responses import StreamingResponse

    async def lines() -> Any:
        for number in range({seconds}):
            yield f"{{number}}\\n"
            await asyncio.sleep(1)

    return StreamingResponse(lines())
"""
REQUEST = """
[[tool.slipway.requests]]
name = "take a while"
method = "GET"
path = "/testing-slow"
status = 200
seconds = {limit}
"""


def be_slow(clone: Checkout, *, seconds: int, limit: int, streamed: bool = False) -> None:
    """Give the service in `clone` a request that takes `seconds`, and declare it with a `limit` of its own."""
    clone.append("backend/domain.py", (STREAMED if streamed else LATE).format(seconds=seconds))
    clone.append("pyproject.toml", REQUEST.format(limit=limit))
