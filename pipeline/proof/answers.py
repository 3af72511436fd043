"""A request, its answer, the reason why there is none, and whether an answer is as declared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.proof.template import mismatch

__all__ = ["Answer", "Call", "NoAnswer", "RequestFailed", "Sender", "check", "headers_of", "usual_headers"]


@dataclass(frozen=True)
class Call:
    """A request with everything filled in."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """A complete answer. `release` is its `X-Release`."""

    status: int
    release: str | None
    body: bytes

    def json(self) -> Any:
        """Return the body, parsed as JSON. Raise `ValueError` where it is not valid JSON."""
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:200].decode('utf-8', 'replace')}".strip()


class RequestFailed(Exception):
    """A request did not go as declared: `kind` is refused, reset, timeout, 5xx, status or body."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class NoAnswer(RequestFailed):
    """No answer came, or only a part of it: `kind` is refused, reset or timeout."""


class Sender(Protocol):
    """What sends a request exactly once."""

    async def send(self, call: Call) -> Answer:
        """Send `call` and return the answer. Raise `NoAnswer` where there is none; there is no timeout here."""


def usual_headers(token: str | None, *, synthetic: bool = True) -> list[tuple[str, str]]:
    """Return what each request of the proof says of itself; one that is not `synthetic` asks as people do."""
    headers = [("User-Agent", "slipway-proof"), ("Accept", "*/*")]
    headers += [("Slipway-Synthetic", "true")] if synthetic else []
    return [*headers, ("Authorization", f"Bearer {token}")] if token else headers


def headers_of(call: Call, usual: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers of `call`, with those of the `usual` ones that it does not set itself."""
    given = {name.lower() for name, _ in call.headers}
    return [*(header for header in usual if header[0].lower() not in given), *call.headers]


def check(answer: Answer, status: int, expect: Any) -> Any:
    """Return the JSON of `answer`, or None when it is not JSON and nothing is expected of it.

    Raise `RequestFailed` where its status is not `status` or its body does not contain `expect`.
    """
    if answer.status != status:
        raise RequestFailed("5xx" if answer.status >= 500 else "status", str(answer))  # noqa: PLR2004 - RFC 9110 15.6
    try:
        value = answer.json()
    except ValueError:
        if expect is None:
            return None
        raise RequestFailed("body", f"not JSON: {answer}") from None
    problem = None if expect is None else mismatch(value, expect)
    if problem:
        raise RequestFailed("body", f"{problem}: {answer}")
    return value
