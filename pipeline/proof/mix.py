"""Which request is sent next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.requests import RequestSpec
from pipeline.proof.exchange import HEALTH, Exchange, Sent, idents
from pipeline.proof.writes import Write

__all__ = ["Mix", "Turn"]

HEALTH_EVERY = 20


@dataclass(frozen=True)
class Turn:
    """What to send now, over a `fresh` connection or not. `write` and `rest`: of a step, the write and what follows."""

    sent: Sent
    fresh: bool
    write: Write | None = None
    rest: Sequence[Sent] = ()


class Mix:
    """Requests in turn by weight, evenly spread (nginx's smooth weighted round robin).

    A step of a write is sent as soon as it can be, and counts for the write's weight. Every twentieth request is to
    /health; where there is no other, each is.
    """

    def __init__(self, specs: Sequence[RequestSpec], before: Mix | None = None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._credit = dict.fromkeys(self._specs, 0)
        self._sum = sum(spec.weight for spec in specs)
        # Each request alternates between fresh and kept-alive connections on its own, so that in a table of two neither
        # is sent over fresh connections only.
        self._fresh = {name: index % 2 == 1 for index, name in enumerate(self._specs)}
        self.ready: deque[tuple[Write, Sequence[Sent]]] = before.ready if before else deque()  # the steps to send next
        self._idents = idents()
        self._turns = 0

    def follow(self, write: Write, steps: Sequence[Sent]) -> None:
        """Let the first of `steps` be sent next: what it rests on was answered."""
        if steps:
            self.ready.append((write, steps))

    def next(self) -> Turn:
        """Return what to send now."""
        self._turns += 1
        if not self._specs or self._turns % HEALTH_EVERY == 0:
            return Turn(Exchange.new(HEALTH, next(self._idents)), self._alternate(HEALTH.name))
        for name, spec in self._specs.items():
            self._credit[name] += spec.weight
        if self.ready:
            write, (step, *rest) = self.ready.popleft()
            self._charge(write.exchange.spec.name)
            return Turn(step, self._alternate(step.spec.name), write, rest)
        chosen = max(self._credit, key=self._credit.__getitem__)
        self._charge(chosen)
        return Turn(Exchange.new(self._specs[chosen], next(self._idents)), self._alternate(chosen))

    def _charge(self, name: str) -> None:
        if name in self._credit:
            self._credit[name] -= self._sum

    def _alternate(self, name: str) -> bool:
        self._fresh[name] = not self._fresh.get(name, True)
        return self._fresh[name]
