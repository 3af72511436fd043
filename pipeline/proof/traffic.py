"""The deploy's side of the proof: it starts the generator's process, steers it and reads its output."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.config.requests import RequestSpec
from pipeline.errors import SlipwayError
from pipeline.proof.plan import ABANDON_SECONDS, LOOK_SECONDS, SETTLE_SECONDS, TrafficPlan
from pipeline.proof.results import Snapshot, TrafficResult
from pipeline.system.waiting import Deadline

__all__ = ["GeneratorDied", "Traffic", "TrafficPlan"]

ROOT = Path(__file__).parents[2]  # the folder that contains the package `pipeline`
START_SECONDS = 20.0
MARGIN_SECONDS = 10.0


class GeneratorDied(SlipwayError):
    """The generator ended, or hung, before its result: nothing is proved."""


class Traffic:
    """Synthetic traffic for `plan` in its own process, from `start` to `stop` (or `abort`).

    As a context manager it starts at once, and aborts unless it was stopped. Every method raises `GeneratorDied` with
    the generator's last words once its process has ended without a result.
    """

    def __init__(self, plan: TrafficPlan) -> None:
        self._plan = plan
        self._longest = plan.longest(plan.requests)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - `_close` closes it
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._ready, self._over = False, False
        self._snapshot = Snapshot(seconds=0.0, phase=plan.phase, outstanding=0)
        self._result: TrafficResult | None = None
        self._last_words = ""

    def start(self) -> Self:
        """Start sending; return when the first request is due."""
        command = [sys.executable, "-m", "pipeline.proof"]
        # In its own session: a Ctrl-C in its first tenth of a second, before it ignores the signal, would end it.
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._tell(self._plan.dump())
        self._await(lambda: self._ready, START_SECONDS)
        return self

    @property
    def pid(self) -> int | None:
        """The process id of the generator, or None before it starts."""
        return self._process.pid if self._process else None

    def phase(self, name: str, requests: Sequence[RequestSpec] | None = None) -> None:
        """Start the phase `name` for what falls due from now on; where `requests` are given, send these."""
        told: dict[str, Any] = {"phase": name}
        if requests is not None:
            told["requests"] = [spec.table() for spec in requests]
            self._longest = max(self._longest, self._plan.longest(requests))
        self._tell(told)

    def snapshot(self) -> Snapshot:
        """Return the newest counts, at most a quarter of a second old."""
        with self._changed:
            if self._over and not self._result:
                raise self._died()
            return self._snapshot

    def hold(self) -> None:
        """Let nothing more fall due until the next phase."""
        self._tell({"hold": True})

    def settle(self) -> Snapshot:
        """Hold the traffic until the next phase, wait for every answer, and return the counts to judge by."""
        # Answers that are still to come, which are the slow ones, would be missing from the counts.
        self.hold()
        self._await(lambda: self._snapshot.settled, self._longest + MARGIN_SECONDS)
        return self.snapshot()

    def stop(self, *, at_once: bool = False) -> TrafficResult:
        """Send nothing more, wait for the answers, read back and remove the writes, and return what was measured.

        `at_once` is for a rollout that has already failed: nothing is waited for or read back, and what cannot be
        removed in a few seconds stays in the journal for the next `Traffic` or `clean_up`.
        """
        self._tell({"stop": True, "at_once": at_once})
        seconds = ABANDON_SECONDS if at_once else self._longest + LOOK_SECONDS + SETTLE_SECONDS
        self._await(lambda: self._result is not None, seconds + MARGIN_SECONDS)
        self._close()
        if not self._result:
            raise self._died()
        return self._result

    def abort(self) -> None:
        """End the traffic without a result, allowing a few seconds to remove what was written."""
        self._close(ABANDON_SECONDS + 2)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _tell(self, line: Mapping[str, Any]) -> None:
        if not self._process or not self._process.stdin:
            raise GeneratorDied("the traffic was not started")
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._died() from None

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        with process.stdout as lines:
            for line in lines:
                values = json.loads(line)
                with self._changed:
                    self._ready = True
                    if "snapshot" in values:
                        self._snapshot = Snapshot.load(values["snapshot"])
                    if "result" in values:
                        self._result = TrafficResult.load(values["result"])
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _await(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = Deadline(seconds)  # a stop stops the generator, too, or its answers are not read meanwhile
        with self._changed:
            while not (condition() or self._over) and deadline.left() > 0:
                self._changed.wait(deadline.left())
            if condition():
                return
            hung = not self._over
        raise self._died("hung" if hung else "")

    def _died(self, how: str = "") -> GeneratorDied:
        self._close(0 if how else 1)
        code = self._process.returncode if self._process else None
        return GeneratorDied(
            f"the generator of the proof's traffic {how or f'died ({code})'}: {self._last_words};"
            " nothing is proved: deploy again"
        )

    def _close(self, seconds: float = MARGIN_SECONDS) -> None:
        process = self._process
        if not process or not process.stdin or self._errors.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self._last_words = lines[-1] if lines else "it said nothing"
        self._errors.close()
