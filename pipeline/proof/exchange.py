"""One use of a declared request: what is sent and what must come back, all derived from the spec and an id."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.config.requests import PLACEHOLDER, ReadBack, Remove, RequestSpec, Step
from pipeline.proof.answers import Answer, Call, RequestFailed, check
from pipeline.proof.results import Failure
from pipeline.proof.template import MissingValue, Values

__all__ = ["HEALTH", "Exchange", "Sent", "idents"]

# Part of all traffic: a request that every service answers, so that no rollout goes unwatched.
HEALTH = RequestSpec(name="/health, always asked", method="GET", path="/health")
SHORTEST_TRACE = 8  # characters: `17` may be any row's id


def idents() -> Iterator[str]:
    """Yield ids that were never used before, 32 hexadecimal digits each. The last 16 count up from a random number."""
    return (f"{secrets.token_hex(8)}{number:016x}" for number in itertools.count(secrets.randbits(60)))


@dataclass(frozen=True)
class Sent:
    """One call of `spec`. Its `ident`, 32 hexadecimal digits, is its `X-Request-ID` and its `Idempotency-Key`."""

    spec: Step
    ident: str
    values: Values

    def call(self) -> Call:
        """Return the request itself."""
        spec, values = self.spec, self.values
        headers = {"X-Request-ID": self.ident, **values.fill(spec.headers)}
        content = None
        if spec.body is not None:
            content = json.dumps(values.fill(spec.body)).encode()
            headers.setdefault("Content-Type", "application/json")
        if spec.changes:
            headers["Idempotency-Key"] = self.ident
        return Call(spec.method, values.fill_path(spec.path), tuple(headers.items()), content)

    def check(self, answer: Answer) -> None:
        """Raise `RequestFailed` unless `answer` is as declared."""
        self._check(answer, self.values)

    def _check(self, answer: Answer, values: Values) -> None:
        try:
            expect = None if self.spec.method == "HEAD" else values.fill(self.spec.expect)
        except MissingValue as error:
            raise RequestFailed("body", f"{error}, which `expect` needs: {answer}") from None
        check(answer, self.spec.status, expect)

    def failure(
        self, kind: str, *, at: float, phase: str, release: str | None, status: int | None, detail: str
    ) -> Failure:
        """Return this call as an example of `kind`. `at`: when it was due, in seconds since the Unix epoch."""
        return Failure(
            kind=kind,
            at=datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            phase=phase,
            request=self.spec.name,
            method=self.spec.method,
            path=self.call().path,
            request_id=self.ident,
            release=release,
            status=status,
            detail=detail,
        )


@dataclass(frozen=True)
class Exchange(Sent):
    """One use of `spec`: the call, and what follows from its answer. The first 16 digits of `ident` are `{unique}`."""

    spec: RequestSpec

    @classmethod
    def new(cls, spec: RequestSpec, ident: str | None = None) -> Exchange:
        """Return an exchange with this id, which was never used before."""
        ident = ident or uuid.uuid4().hex
        return cls(spec=spec, ident=ident, values=Values(unique=ident[:16], number=int(ident[16:], 16)))

    def check(self, answer: Answer) -> None:
        """Raise `RequestFailed` unless `answer` is as declared.

        The answer to a write must also have what the paths of `readback` and `remove` and its steps use of it.
        """
        self._check(answer, self._with(_json(answer)))
        if not self.spec.writes:
            return
        response = self.located(answer)
        try:
            for step in self.steps(response):
                step.call()
                step.values.fill(step.spec.expect)
        except MissingValue as error:
            raise RequestFailed("body", f"{error}, which `then` needs: {answer}") from None

    def located(self, answer: Answer) -> Any:
        """Return the JSON (None: not JSON) of `answer`, which answers a write.

        Raise `RequestFailed` where it does not contain what the paths of `readback` and `remove` need.
        """
        response = _json(answer)
        try:
            self.readback(response)
            self.removal(response)
        except MissingValue as error:
            raise RequestFailed("body", f"{error}, which `readback` or `remove` needs: {answer}") from None
        return response

    def steps(self, response: Any) -> tuple[Sent, ...]:
        """Return the steps that follow the write answered by `response`, each with an id of its own."""
        values = replace(self.values, response=response)
        return tuple(
            Sent(step, hashlib.sha256(f"{self.ident} {number}".encode()).hexdigest()[:32], values)
            for number, step in enumerate(self.spec.then)
        )

    def readback(self, response: Any) -> Call | None:
        """Return the request that reads back what the write answered by `response` wrote, or None for a read."""
        step = self.spec.readback
        return self._step("GET", self._with(response).fill_path(step.path)) if step else None

    def check_readback(self, step: ReadBack, answer: Answer, response: Any) -> None:
        """Raise `RequestFailed` unless `answer`, to `readback`, contains what `step` expects.

        By default, `step` expects what was sent, without what steps in `then` change.
        """
        if step.expect is not None:
            check(answer, step.status, self._with(response).fill(step.expect))
            return
        bodies = [one.body for one in self.spec.then if isinstance(one.body, Mapping)]
        changed = {key for body in bodies for key in body}
        sent = self.values.fill(self.spec.body) if isinstance(self.spec.body, Mapping) else {}
        kept = {key: value for key, value in sent.items() if key not in changed}
        if not kept:
            check(answer, step.status, None)
            return
        held = check(answer, step.status, {})
        wanted = {key: value for key, value in kept.items() if key in held}
        if not wanted:
            raise RequestFailed(
                "body", f"contains none of the values that were sent (or declare `readback.expect`): {answer}"
            )
        check(answer, step.status, wanted)

    def removal(self, response: Any) -> Call | None:
        """Return the request that removes what the write answered by `response` wrote.

        Return None if there is nothing to remove, or no request for it. Raise `MissingValue` where `response` (None:
        not known) does not say where that is.
        """
        step = self.spec.remove
        return self._step(step.method, self._with(response).fill_path(step.path)) if isinstance(step, Remove) else None

    def identity(self, response: Any) -> str:
        """Return what a command knows the write by: the part of `readback`'s path that has its first placeholder.

        Raise `MissingValue` where `response` (None: not known) does not say that.
        """
        assert self.spec.readback
        parts = self.spec.readback.path.partition("?")[0].split("/")
        named = next((part for part in parts if PLACEHOLDER.search(part)), parts[-1])
        return str(self._with(response).fill(named))

    def traces(self, response: Any) -> set[str]:
        """Return texts that only an answer with this write in it contains; none where all are too short to tell."""
        texts = [*_texts(self.spec.body), self.spec.path.partition("?")[0].rpartition("/")[2]]
        unique = {str(self.values.fill(text)) for text in texts if PLACEHOLDER.search(text)}
        return {text for text in (*unique, self.identity(response)) if len(text) >= SHORTEST_TRACE}

    def _with(self, response: Any) -> Values:
        return replace(self.values, response=response)

    def _step(self, method: str, path: str) -> Call:
        headers = {"X-Request-ID": uuid.uuid4().hex, **self.values.fill(self.spec.headers)}
        return Call(method, path, tuple(headers.items()))


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in `value`, any JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _json(answer: Answer) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
