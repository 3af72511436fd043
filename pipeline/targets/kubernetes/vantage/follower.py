"""The second vantage of a rollout as it runs: starts its Job, follows its log, and returns its view at the end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.config.requests import RequestSpec
from pipeline.engines.kubectl import Kubectl
from pipeline.errors import SlipwayError
from pipeline.system.leash import held
from pipeline.targets.kubernetes.changes import key_of
from pipeline.targets.kubernetes.vantage.error_counts import Sample
from pipeline.targets.kubernetes.vantage.job import NAME, View, follow_arguments, objects, view_of

__all__ = ["Witness"]

MOST_BYTES = 2**20  # per look: a line has about a hundred
LAST_WORDS_SECONDS = 20  # its grace period, and the time that a log takes to arrive


@dataclass
class Witness:
    """The Job that asks the service from inside the cluster."""

    kubectl: Kubectl
    secret: str  # the name of the Secret with the service's token
    samples: list[Sample] = field(default_factory=list)  # what the pods count themselves, as `look` found it
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _following: tuple[subprocess.Popen[bytes], IO[bytes]] | None = None
    _read: int = 0  # bytes of its log, whole lines
    _problem: str = ""
    _dismissed: bool = False

    def begin(self, image: str, requests: Sequence[RequestSpec], seconds: float, *, token: str) -> None:
        """Start the Job. It is not part of the deploy, which goes on without it where it cannot start."""
        try:
            self._delete(*self._names(), wait=True)  # left by a deploy that was killed
            self.kubectl.apply(objects(image, requests, seconds, self.secret, token=token))
        except SlipwayError as error:
            self._problem = error.problems[0]
            return
        command = self.kubectl.command(*follow_arguments())
        log = self._held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the stack
        self._following = self._held.enter_context(held(command, log=log, cwd=str(Path.cwd()))), log

    def dismiss(self) -> None:
        """Let the Job report what it saw, which takes a second."""
        if self._following and not self._dismissed:
            # The Job first: without its policies, requests that are still under way would get no answer.
            self._delete(f"job/{NAME}")
            self._dismissed = True

    def end(self) -> View | None:
        """Remove the Job and return what it saw; None where it was never asked to look."""
        if self._following is None:
            return View(problem=self._problem) if self._problem else None
        self.dismiss()
        (follower, log), self._following = self._following, None
        with contextlib.suppress(subprocess.TimeoutExpired):
            follower.wait(LAST_WORDS_SECONDS)
        log.seek(0)
        text = log.read().decode(errors="replace")
        self._held.close()
        self._delete(*self._names())
        return view_of(text)

    def look(self) -> None:
        """Add what the Job has said of the pods since the last look to `samples`."""
        if self._following is None:
            return
        # At an offset of our own: that of the file belongs to the process which writes it.
        new = os.pread(self._following[1].fileno(), MOST_BYTES, self._read)
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that is not a count
                counts = json.loads(line)
                self.samples.append(Sample(time.monotonic(), counts["errors"], counts["own"]))

    def _names(self) -> list[str]:
        return [f"{kind.lower()}/{name}" for kind, name in map(key_of, objects("", (), 1, self.secret))]

    def _delete(self, *names: str, wait: bool = False) -> None:
        with contextlib.suppress(SlipwayError):  # what is left ends by itself, and the next deploy removes it
            self.kubectl.ask("delete", "--ignore-not-found", f"--wait={str(wait).lower()}", *names, timeout=60)
