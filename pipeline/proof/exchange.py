"""One use of a declared request: what is sent and what must come back, all derived from the spec and an id."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.config.requests import ReadBack, RequestSpec
from pipeline.proof.client import Answer, Call, RequestFailed, check
from pipeline.proof.results import Failure
from pipeline.proof.template import MissingValue, Values

__all__ = ["Exchange"]


@dataclass(frozen=True)
class Exchange:
    """One use of `spec`, identified by `ident`.

    The 32 hexadecimal digits of `ident` are its `X-Request-ID`, its `Idempotency-Key` and its `{unique}`.
    """

    spec: RequestSpec
    ident: str

    @classmethod
    def new(cls, spec: RequestSpec) -> Exchange:
        """Return an exchange with an id that was never used before."""
        return cls(spec=spec, ident=uuid.uuid4().hex)

    def call(self) -> Call:
        """Return the request itself."""
        spec, values = self.spec, self._values()
        headers = {"X-Request-ID": self.ident, **values.fill(spec.headers)}
        content = None
        if spec.body is not None:
            content = json.dumps(values.fill(spec.body)).encode()
            headers.setdefault("Content-Type", "application/json")
        if spec.writes:
            headers["Idempotency-Key"] = self.ident
        return Call(spec.method, values.fill_path(spec.path), tuple(headers.items()), content)

    def check(self, answer: Answer) -> None:
        """Raise `RequestFailed` unless `answer` is as declared.

        The answer to a write must also say where to find what was written.
        """
        expect = None if self.spec.method == "HEAD" else self._values().fill(self.spec.expect)
        check(answer, self.spec.status, expect)
        if self.spec.writes:
            self.located(answer)

    def located(self, answer: Answer) -> Any:
        """Return the JSON (None: not JSON) of `answer`, which answers a write.

        Raise `RequestFailed` where it does not contain what the paths of `readback` and `remove` need.
        """
        try:
            response = answer.json()
        except ValueError:
            response = None
        try:
            self.readback(response)
            self.removal(response)
        except MissingValue as error:
            raise RequestFailed("body", f"{error}, which `readback` or `remove` needs: {answer}") from None
        return response

    def readback(self, response: Any) -> Call | None:
        """Return the request that reads back what the write answered by `response` wrote, or None for a read."""
        step = self.spec.readback
        return self._step("GET", self._values(response).fill_path(step.path)) if step else None

    def check_readback(self, step: ReadBack, answer: Answer, response: Any) -> None:
        """Raise `RequestFailed` unless `answer`, to `readback`, contains what `step` expects.

        By default, `step` expects what was sent.
        """
        if step.expect is not None:
            check(answer, step.status, self._values(response).fill(step.expect))
        elif not isinstance(self.spec.body, Mapping):
            check(answer, step.status, None)
        else:
            held = check(answer, step.status, {})
            sent = {key: value for key, value in self._values().fill(self.spec.body).items() if key in held}
            if not sent:
                raise RequestFailed(
                    "body", f"contains none of the values that were sent (or declare `readback.expect`): {answer}"
                )
            check(answer, step.status, sent)

    def removal(self, response: Any) -> Call | None:
        """Return the request that removes what the write answered by `response` wrote, or None if there is nothing.

        Raise `MissingValue` where `response` (None: not known) does not say where that is.
        """
        step = self.spec.remove
        return self._step(step.method, self._values(response).fill_path(step.path)) if step else None

    def failure(
        self, kind: str, *, at: float, phase: str, release: str | None, status: int | None, detail: str
    ) -> Failure:
        """Return this exchange as an example of `kind`. `at`: when it was due, in seconds since the Unix epoch."""
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

    def _values(self, response: Any = None) -> Values:
        return Values(unique=self.ident[:16], response=response)

    def _step(self, method: str, path: str) -> Call:
        headers = {"X-Request-ID": uuid.uuid4().hex, **self._values().fill(self.spec.headers)}
        return Call(method, path, tuple(headers.items()))
