"""What judges a rolled-out release besides the proof's traffic: crashes, errors of users, the autoscaler."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.config.requests import RequestSpec
from pipeline.engines.kubectl import Kubectl, Unreachable
from pipeline.releases.model import short
from pipeline.targets.common import roles
from pipeline.targets.kubernetes.lease import Lease
from pipeline.targets.kubernetes.objects import SERVICE
from pipeline.targets.kubernetes.rollout.autoscaler import Reading, moved, overwhelmed, reading_of
from pipeline.targets.kubernetes.rollout.observation import Json
from pipeline.targets.kubernetes.rollout.watch import RolloutWatch
from pipeline.targets.kubernetes.vantage.error_counts import Counted, against, counted
from pipeline.targets.kubernetes.vantage.follower import Witness
from pipeline.targets.kubernetes.vantage.job import compare_views

__all__ = ["Bake"]

TROUBLE_SECONDS = 1.0  # how often the API server is asked in a proof
SCALING_SECONDS = 5.0  # and about the autoscaler, which moves every 15 s


@dataclass
class Bake(roles.Watch):
    """The watch over one rollout and its way back: see `pipeline.targets.common.roles.Watch`."""

    kubectl: Kubectl
    rollout: RolloutWatch
    witness: Witness
    lease: Lease
    max_failures: int
    _release: str | None = None  # the one that got ready, None while nothing is judged
    _addresses: list[str] = field(default_factory=list)  # of its pods
    _before: Reading | None = None  # the autoscaler, as the rollout found it
    _highest: Reading | None = None
    _complete: float = 0.0  # monotonic seconds: when the last new pod got ready,
    _looked: float = 0.0  # when the pods were last looked at,
    _scaling: float = 0.0  # when the autoscaler was last looked at

    def begin(self, image: str | None, requests: Sequence[RequestSpec], seconds: float, *, token: str) -> None:
        """Note where the autoscaler stands before a rollout; start the witness, if there is an `image` to run it.

        See `pipeline.targets.kubernetes.vantage.job.objects`.
        """
        self._before = self._highest = self._autoscaler()
        if image:
            self.witness.begin(image, requests, seconds, token=token)

    def watch(self, release: str, pods: Sequence[Json], *, back: bool) -> None:
        """Judge `release`, whose `pods` are ready, from now on.

        `back`: the load may still be that of the release that failed.
        """
        self._addresses = [str(pod["status"].get("podIP")) for pod in pods]
        self._release, self._looked = release, 0.0
        self._complete = math.inf if back else time.monotonic()

    def stop(self) -> None:
        """Judge nothing until the next release is ready."""
        self._release = None

    def trouble(self) -> str | None:
        """Return what speaks against the release, or against going on; None where nothing does.

        That is a pod that crashed after it was ready, errors of users, an autoscaler at its end, or a lost lock.
        """
        self.witness.look()
        if self._release is None or time.monotonic() - self._looked < TROUBLE_SECONDS:
            return None
        self._looked = time.monotonic()
        with contextlib.suppress(Unreachable):  # an API server that is away says nothing against a release
            crashed = self.rollout.crashed(self._release)
            if crashed:
                return f"release {short(self._release)} ended after it was ready: {crashed}"
            problem = self._scaled() or against(*self._errors(), self.max_failures)
            if problem:
                return f"release {short(self._release)}: {problem}"
        return self.lease.lost

    def remarks(self) -> list[str]:
        """Return a line if the autoscaler went up, and one if the new pods answered with errors, however few."""
        line = moved(self._before, self._highest) if self._before and self._highest else None
        new = self._errors()[1].errors
        counts = f"the new pods counted {new} 5xx answers, to the proof's requests or to others" if new else None
        return [one for one in (line, counts) if one]

    def dismiss(self) -> None:
        """Dismiss the Job beside the service."""
        self.witness.dismiss()

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """Return what the Job beside the service saw; None where none was started."""
        view = self.witness.end()
        return (compare_views(failed, sent, view), asdict(view)) if view else None

    def _errors(self) -> tuple[Counted, Counted]:
        return counted(tuple(self.witness.samples), self._addresses, self._complete)

    def _autoscaler(self) -> Reading | None:
        autoscalers = self.kubectl.get("horizontalpodautoscaler", SERVICE)
        return reading_of(autoscalers[0]) if autoscalers else None

    def _scaled(self) -> str | None:
        """Look at the autoscaler; return what it says against the release."""
        if time.monotonic() - self._scaling < SCALING_SECONDS:
            return None
        self._scaling, now = time.monotonic(), self._autoscaler()
        if now is None or self._before is None or self._highest is None:
            return None
        self._highest = max(self._highest, now, key=lambda one: (one.replicas, one.used or 0))
        return overwhelmed(self._before, now, time.monotonic() - self._complete)
