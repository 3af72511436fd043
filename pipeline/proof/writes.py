"""What the proof wrote: a journal that survives `kill -9`, reading the writes back, and removing them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.config.requests import COMMAND, Remove, RequestSpec, parse_requests
from pipeline.errors import UsageError
from pipeline.proof.answers import Answer, Call, NoAnswer, RequestFailed, Sender
from pipeline.proof.exchange import Exchange, Sent
from pipeline.proof.results import Failure
from pipeline.proof.template import MissingValue

__all__ = ["Ledger", "Write"]

AT_ONCE = 16
MOST_TRACED = 500  # each is searched for in each list
TRIES, RETRY_SECONDS, ANSWER_SECONDS = 3, 0.3, 5.0
GONE = (404, 410)
SUCCESS, REFUSED = range(200, 300), range(400, 500)  # RFC 9110 15.3, 15.5
BUSY = 409  # the first request with this Idempotency-Key is still being processed


@dataclass
class Write:
    """One write. `at` is in seconds since the Unix epoch; `response` and `release` come with its acknowledgement.

    `doubtful`: those of its steps that change something and of which it is not known whether they did.
    """

    exchange: Exchange
    phase: str
    at: float
    unread: bool = False  # acknowledged, but not read back yet
    response: Any = None
    release: str | None = None
    doubtful: dict[str, Sent] = field(default_factory=dict)

    @property
    def by_command(self) -> bool:
        """Whether a command removes it, and no request."""
        return self.exchange.spec.remove == COMMAND

    def began(self, step: Sent) -> None:
        """Note that `step` is sent."""
        if step.spec.changes:
            self.doubtful[step.ident] = step

    def ended(self, step: Sent, answer: Answer | None, error: RequestFailed | None) -> None:
        """Note what is known of `step`; if nothing is, `Ledger.settle` asks again with its Idempotency-Key."""
        if answer:
            known = answer.status < 500 and answer.status != BUSY  # noqa: PLR2004 - RFC 9110 15.6
        else:
            known = error is not None and error.kind == "refused"
        if known:
            self.doubtful.pop(step.ident, None)

    def left(self) -> Failure:
        """Return this write as an example of one that nobody removed."""
        detail = "what it wrote could not be removed, as `remove` says"
        return self.exchange.failure(
            "left", at=self.at, phase=self.phase, release=self.release, status=None, detail=detail
        )

    def lost(self, error: RequestFailed | str, status: int | None = None) -> Failure:
        """Return this write as an example of a lost one."""
        return self.exchange.failure(
            "lost", at=self.at, phase=self.phase, release=self.release, status=status, detail=f"read back: {error}"
        )


class Ledger:
    """The writes that have not been removed yet, in memory and in `journal` (no file where it is None).

    A journal that already exists belongs to a proof that was killed: its writes are taken over and removed too. Writes
    that a command removes are in no journal, as that finds them by their age; `ids` has those that were settled.
    With `out`, the lines of the journal go there instead.
    """

    def __init__(self, journal: Path | None, out: IO[str] | None = None) -> None:
        self._journal = journal
        self._file: IO[str] | None = out
        self._noted: set[str] = set()
        self.writes: dict[str, Write] = {}
        self.ids: list[str] = []
        self.acknowledged = 0
        self.lost: list[Failure] = []
        self._unremoved = 0  # removals in a row that nobody carried out
        if journal:
            self.writes = {write.exchange.ident: write for write in _read(journal)}
            journal.touch(mode=0o600)
            self._file = journal.open("a", encoding="utf-8")

    def begin(self, exchange: Exchange, phase: str) -> Write:
        """Note a write before it is sent."""
        spec = exchange.spec
        write = Write(exchange=exchange, phase=phase, at=time.time())
        if not write.by_command:
            if spec.name not in self._noted:
                self._noted.add(spec.name)
                self._note(spec=spec.table())
            self._note(sent=exchange.ident, spec=spec.name)
        self.writes[exchange.ident] = write
        return write

    def answered(self, write: Write, answer: Answer | None, error: RequestFailed | None) -> None:
        """Note what is known of `write`; if nothing is, `settle` asks again with its Idempotency-Key."""
        if answer and answer.status in SUCCESS:
            with contextlib.suppress(RequestFailed):  # it does not say where it is; `Exchange.check` has reported it
                write.response = write.exchange.located(answer)
                write.release, write.unread = answer.release, True
                self.acknowledged += 1
        elif (answer and answer.status in REFUSED) or (error and error.kind == "refused"):
            self._drop(write)

    def traces(self) -> set[str]:
        """Return texts that only an answer with one of the newest acknowledged writes in it contains."""
        acknowledged = [write for write in self.writes.values() if write.unread]
        newest = acknowledged[-MOST_TRACED:]  # a list begins with these, as a rule
        return {trace for write in newest for trace in write.exchange.traces(write.response)}

    async def settle(self, client: Sender, *, seconds: float, read_back: bool) -> None:
        """Read back (if `read_back`) and remove all writes within `seconds`; what is unread by then counts as lost.

        Where nobody carries out a few removals in a row, the rest is not asked for.
        """
        turns = asyncio.Semaphore(AT_ONCE)

        async def settle_one(write: Write) -> None:
            async with turns:
                for step in write.doubtful.values():
                    with contextlib.suppress(NoAnswer):  # the same Idempotency-Key: it is carried out once at most
                        await _insist(client, step.call())
                if read_back and write.unread:
                    await self._read_back(client, write)
                if self._unremoved < AT_ONCE:  # else the service is away, and would be for the rest of them
                    await self._remove(client, write)
                    self._unremoved += write.exchange.ident in self.writes

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for write in list(self.writes.values()):
                    group.create_task(settle_one(write))
        if read_back:
            self.lost += [
                write.lost(f"no time left after {seconds:.0f} s") for write in self.writes.values() if write.unread
            ]

    @property
    def unplaced(self) -> int:
        """The number of writes that a command has to remove, and of which the ids are not known."""
        return sum(write.by_command for write in self.writes.values())

    def close(self) -> int:
        """Close the journal, delete it if it has no writes left, and return how many those are."""
        left = len(self.writes) - self.unplaced
        if self._file and self._journal:
            self._file.close()
            if not left:
                self._journal.unlink(missing_ok=True)
        return left

    def _drop(self, write: Write) -> None:
        self._unremoved = 0
        del self.writes[write.exchange.ident]
        if not write.by_command:
            self._note(gone=write.exchange.ident)

    async def _read_back(self, client: Sender, write: Write) -> None:
        exchange = write.exchange
        step, call = exchange.spec.readback, exchange.readback(write.response)
        if not step or not call:
            write.unread = False
            return
        answer = None
        try:
            answer = await _insist(client, call)
            exchange.check_readback(step, answer, write.response)
        except RequestFailed as error:
            self.lost.append(write.lost(error, answer.status if answer else None))
        write.unread = False

    async def _remove(self, client: Sender, write: Write) -> None:
        wanted = write.exchange.spec.remove
        with contextlib.suppress(NoAnswer):  # what cannot be removed now stays in the journal
            try:
                call = self._way_out(write, write.response)
            except MissingValue:
                response = await self._located(client, write)
                if response is None:  # it was refused
                    self._drop(write)
                    return
                call = self._way_out(write, response)
            if call is None:
                self._drop(write)
                return
            answer = await _insist(client, call)
            if answer.status in GONE or (isinstance(wanted, Remove) and answer.status == wanted.status):
                self._drop(write)

    def _way_out(self, write: Write, response: Any) -> Call | None:
        """Return the request that removes `write`; None if a command does, which is given its id."""
        if write.by_command:
            self.ids.append(write.exchange.identity(response))
        return write.exchange.removal(response)

    async def _located(self, client: Sender, write: Write) -> Any:
        """Return the response to `write`, whose answer was lost; None if it was refused."""
        # The same Idempotency-Key gives the same answer again.
        answer = await _insist(client, write.exchange.call())
        if answer.status >= 500 or answer.status == BUSY:  # noqa: PLR2004 - RFC 9110 15.6
            raise NoAnswer("reset", f"the first answer is not known: {answer}")
        try:
            return write.exchange.located(answer) if answer.status in SUCCESS else None
        except RequestFailed as error:
            # The broken release may have given this answer: the write stays in the journal, and the release that is
            # brought back says where the write is.
            raise NoAnswer("body", f"the answer does not say where the write is: {error}") from error

    def _note(self, **entry: Any) -> None:
        if self._file:
            self._file.write(json.dumps(entry) + "\n")
            # Flush to the kernel, which outlives `kill -9`; a crash of the machine may leave a synthetic row behind.
            self._file.flush()


async def _insist(client: Sender, call: Call) -> Answer:
    """Send `call`, which may safely be sent again, until it is answered, a few times at most.

    Raise `NoAnswer` where it never is.
    """
    for rest in reversed(range(TRIES)):
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await client.send(call)
            if rest == 0 or (answer.status < 500 and answer.status != BUSY):  # noqa: PLR2004 - RFC 9110 15.6
                return answer
        except NoAnswer:
            if rest == 0:
                raise
        except TimeoutError:
            if rest == 0:
                raise NoAnswer("timeout", f"no answer within {ANSWER_SECONDS:.0f} s") from None
        await asyncio.sleep(RETRY_SECONDS)
    raise AssertionError("unreachable: the last try returns or raises")


def _read(journal: Path) -> Iterator[Write]:
    specs: dict[str, RequestSpec] = {}
    sent: dict[str, Write] = {}
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            if "sent" in entry:
                sent[entry["sent"]] = Write(Exchange.new(specs[entry["spec"]], entry["sent"]), phase="", at=0.0)
            elif "gone" in entry:
                sent.pop(entry["gone"], None)
            else:
                spec = parse_requests([entry["spec"]], str(journal))[0]
                specs[spec.name] = spec
        except (ValueError, LookupError, TypeError, UsageError):
            continue  # a line cut short by `kill -9`: its request was never sent
    yield from sent.values()
