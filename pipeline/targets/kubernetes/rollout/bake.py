"""What judges a release beside the traffic once it is rolled out: crashes, people's errors, the autoscaler."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.engines.kubectl import Kubectl, Unreachable
from pipeline.releases.model import short
from pipeline.targets.kubernetes.lease import Lease
from pipeline.targets.kubernetes.objects import SERVICE
from pipeline.targets.kubernetes.rollout.autoscaler import Reading, moved, overwhelmed, reading_of
from pipeline.targets.kubernetes.rollout.observation import Json
from pipeline.targets.kubernetes.rollout.watch import Rollout
from pipeline.targets.kubernetes.vantage.error_counts import Counted, against, counted
from pipeline.targets.kubernetes.vantage.follower import Witness

__all__ = ["Bake"]

TROUBLE_SECONDS = 1.0  # how often the API server is asked in a proof
SCALING_SECONDS = 5.0  # and for the autoscaler, which moves each 15 s


@dataclass
class Bake:
    """The watch over one rollout and its way back."""

    kubectl: Kubectl
    rollout: Rollout
    witness: Witness
    lease: Lease
    max_failures: int
    _release: str | None = None  # what got ready
    _addresses: list[str] = field(default_factory=list)  # of its pods
    _before: Reading | None = None  # the autoscaler, as the rollout found it
    _highest: Reading | None = None
    _complete: float = 0.0  # monotonic seconds: the last new pod got ready,
    _looked: float = 0.0  # the last look at the pods,
    _scaling: float = 0.0  # the last look at the autoscaler

    def begin(self) -> None:
        """Before a rollout: what the autoscaler is at."""
        self._before = self._highest = self._autoscaler()

    def watch(self, release: str, pods: Sequence[Json], *, back: bool) -> None:
        """From now on RELEASE is judged, whose PODS are ready; BACK: the load may be that of the one that failed."""
        self._addresses = [str(pod["status"].get("podIP")) for pod in pods]
        self._release, self._looked = release, 0.0
        self._complete = math.inf if back else time.monotonic()

    def stop(self) -> None:
        """Until the next one is ready nothing is judged."""
        self._release = None

    def trouble(self) -> str | None:
        """A pod that crashed after it was ready, people's errors, an autoscaler at its end; or a lock that was lost."""
        self.witness.look()
        if self._release is None or time.monotonic() - self._looked < TROUBLE_SECONDS:
            return None
        self._looked = time.monotonic()
        with contextlib.suppress(Unreachable):  # an API server that is away says nothing against a release
            crashed = self.rollout.crashed(self._release)
            if crashed:
                return f"release {short(self._release)} ended after it was ready: {crashed}"
            found = self._scaled() or against(*self._errors(), self.max_failures)
            if found:
                return f"release {short(self._release)}: {found}"
        return self.lease.lost

    def remarks(self) -> list[str]:
        """That the autoscaler went up; that the new pods answered with errors, however few."""
        line = moved(self._before, self._highest) if self._before and self._highest else None
        new = self._errors()[1].errors
        counts = f"the new pods counted {new} answers of 5xx, of the proof's requests or of others'" if new else None
        return [one for one in (line, counts) if one]

    def _errors(self) -> tuple[Counted, Counted]:
        return counted(tuple(self.witness.samples), self._addresses, self._complete)

    def _autoscaler(self) -> Reading | None:
        found = self.kubectl.get("horizontalpodautoscaler", SERVICE)
        return reading_of(found[0]) if found else None

    def _scaled(self) -> str | None:
        """Look at the autoscaler; what it says against the release."""
        if time.monotonic() - self._scaling < SCALING_SECONDS:
            return None
        self._scaling, now = time.monotonic(), self._autoscaler()
        if now is None or self._before is None or self._highest is None:
            return None
        self._highest = max(self._highest, now, key=lambda one: (one.replicas, one.used or 0))
        return overwhelmed(self._before, now, time.monotonic() - self._complete)
