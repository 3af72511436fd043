"""The second vantage of a rollout as it runs: its Job is started, its log followed, and its view told at the end."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import SlipwayError
from pipeline.proof.requests import RequestSpec
from pipeline.targets.kubernetes.changes import key_of
from pipeline.targets.kubernetes.errors import Sample
from pipeline.targets.kubernetes.kubectl import Kubectl
from pipeline.targets.kubernetes.vantage import NAME, View, log_arguments, objects, view_of

__all__ = ["Witness"]

LAST_WORDS_SECONDS = 20  # its grace, and what a log takes to arrive


@dataclass
class Witness:
    """Who asks the service from inside the cluster."""

    kubectl: Kubectl
    samples: list[Sample] = field(default_factory=list)
    _log: subprocess.Popen[str] | None = None
    _said: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None
    _problem: str = ""

    def begin(self, image: str, requests: Sequence[RequestSpec], seconds: float) -> None:
        """Start asking; it is no part of the deploy, which goes on without it where it cannot."""
        try:
            self._delete(*self._names(), wait=True)  # of a deploy that was killed
            self.kubectl.apply(objects(image, requests, seconds))
        except SlipwayError as error:
            self._problem = error.problems[0]
            return
        command = self.kubectl.command(*log_arguments())
        self._log = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> View | None:
        """Let it tell what it saw, and remove it; None where nobody was asked to look."""
        if self._log is None or self._reader is None:
            return View(problem=self._problem) if self._problem else None
        # Its Job first: without its policies, what it is still asking would get no answer.
        self._delete(f"job/{NAME}")
        self._reader.join(LAST_WORDS_SECONDS)
        self._log.kill()
        self._log.wait()
        self._delete(*self._names())
        self._log = None
        return view_of("".join(self._said))

    def _read(self) -> None:
        assert self._log is not None
        assert self._log.stdout is not None
        for line in self._log.stdout:
            self._said.append(line)
            with contextlib.suppress(ValueError, KeyError):  # another line, or one that was cut off
                told = json.loads(line)
                self.samples.append(Sample(time.monotonic(), told["errors"], told["own"]))

    def _names(self) -> list[str]:
        return [f"{kind.lower()}/{name}" for kind, name in map(key_of, objects("", (), 1))]

    def _delete(self, *names: str, wait: bool = False) -> None:
        with contextlib.suppress(SlipwayError):  # what stays ends by itself, and the next deploy removes it
            self.kubectl.ask("delete", "--ignore-not-found", f"--wait={str(wait).lower()}", *names, timeout=60)
