"""Whether people are shown what the proof wrote."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Sequence
from http import HTTPStatus

from pipeline.config.requests import PLACEHOLDER, RequestSpec, Step
from pipeline.proof.answers import Answer, Call, NoAnswer
from pipeline.proof.client import Client
from pipeline.proof.plan import LOOK_SECONDS

__all__ = ["look"]

TWICE = 2  # the second answer may come from a cache
CLOSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


async def look(
    base: str, token: str | None, specs: Sequence[RequestSpec], traces: Collection[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ask what people may GET at `base`; `traces` are texts of what the proof wrote.

    Return the routes that show any of these, and, in words, those that could not be checked. Where reading is closed,
    the `token` opens it, without saying that the request is synthetic.
    """
    reads = [each for spec in specs for each in (spec, *spec.then) if _is_for_everybody(each)]
    lists = list({each.path: each for each in reads}.values()) if traces else []
    person, reader = Client(base, synthetic=False), Client(base, token, synthetic=False)
    try:
        found = await asyncio.gather(*(_ask(spec, person, reader if token else None, traces) for spec in lists))
    finally:
        await person.aclose()
        await reader.aclose()
    shown = tuple(spec.path for spec, (shows, _) in zip(lists, found, strict=True) if shows)
    return shown, tuple(why for _, why in found if why)


def _is_for_everybody(spec: Step) -> bool:
    """Return whether `spec` reads something that is not only about one write of the proof."""
    own = any(PLACEHOLDER.search(text) for text in (spec.path, *spec.headers.values()))
    return spec.method == "GET" and not own and spec.status == HTTPStatus.OK


async def _ask(spec: Step, person: Client, reader: Client | None, traces: Collection[str]) -> tuple[bool, str | None]:
    """Return whether the route of `spec` shows any of `traces`, and what prevented to see that."""
    call = Call("GET", spec.path, tuple(spec.headers.items()))
    shows = False
    for _ in range(TWICE):
        try:
            async with asyncio.timeout(LOOK_SECONDS / TWICE):
                answer = await person.send(call)
                if answer.status in CLOSED and reader:
                    answer = await reader.send(call)
        except (NoAnswer, TimeoutError) as error:
            return shows, _unchecked(spec, f"did not answer ({str(error) or 'in time'})")
        if answer.status != HTTPStatus.OK:
            return shows, _unchecked(spec, f"answered {answer.status}")
        shows = shows or _contains(answer, traces)
    return shows, None


def _unchecked(spec: Step, why: str) -> str:
    what = f"whether GET {spec.path} hides what the proof wrote"
    return f"{what} is unchecked: it {why} when it was asked as people ask"


def _contains(answer: Answer, traces: Collection[str]) -> bool:
    """Return whether any of `traces` is in `answer` as a word of its own."""
    try:
        text = json.dumps(answer.json(), ensure_ascii=False)
    except ValueError:
        text = answer.body.decode("utf-8", "replace")
    found = (re.escape(trace) for trace in traces if trace in text)
    return any(re.search(rf"(?<![0-9A-Za-z]){trace}(?![0-9A-Za-z])", text) for trace in found)
