"""One deploy at a time per environment, from whatever machine: a Lease, renewed while its holder lives.

Whether a holder lives is seen from its renewals, never from a clock: the clocks of two machines need not agree (the
same reasoning as in client-go's leader election). The lease of a cancelled run is free after `LEASE_SECONDS` without a
renewal.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil

from pipeline.engines.kubectl import Kubectl, Object, Refused, Unreachable, as_list
from pipeline.errors import LockHeld, SlipwayError
from pipeline.releases.lock import Holder
from pipeline.system.waiting import attempts

__all__ = ["LEASE", "LEASE_SECONDS", "Lease", "holder_of"]

log = logging.getLogger(__name__)

LEASE = "slipway-deploy"
LEASE_SECONDS = 15  # without a renewal, after which its holder counts as dead
RENEW_SECONDS = 4
LOOK_SECONDS = 1


@dataclass
class Lease:
    """The lock of an environment in a cluster. `lost` says why, once another deploy may have taken it over."""

    kubectl: Kubectl
    lost: str | None = None
    _version: str = ""
    _since: str = ""
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lease. Raise `LockHeld` as soon as another holder is seen to live (within `RENEW_SECONDS`)."""
        self._acquire()
        renewing = threading.Thread(target=self._renew, daemon=True)
        renewing.start()
        try:
            yield
        finally:
            self._ended.set()
            renewing.join()
            with contextlib.suppress(SlipwayError):  # it expires by itself
                self._write(holder="")

    def holder(self) -> Holder | None:
        """Return who holds the lease; None where it has not been renewed for long."""
        # This is for people and decides nothing, so it may trust a clock.
        leases = self.kubectl.get("lease", LEASE)
        if not leases or not leases[0]["spec"].get("renewTime"):
            return None
        silent = time.time() - datetime.fromisoformat(leases[0]["spec"]["renewTime"]).timestamp()
        return holder_of(leases[0]) if silent < 2 * LEASE_SECONDS else None

    def _acquire(self) -> None:
        self._since = _now()
        leases = self.kubectl.get("lease", LEASE)
        if leases and (holder := holder_of(leases[0])):
            leases = [self._wait_for_death(leases[0], holder)]
        self._version = leases[0]["metadata"]["resourceVersion"] if leases else ""
        try:
            self._write(holder=_us())
        except Refused as error:
            if "AlreadyExists" in error.said or "Conflict" in error.said:
                raise LockHeld(_held(self.holder())) from None
            raise

    def _wait_for_death(self, lease: Object, holder: Holder) -> Object:
        """Return the lease once its holder no longer renews it. Raise `LockHeld` where the holder does."""
        if holder.host == socket.gethostname() and not psutil.pid_exists(holder.pid):
            log.warning(f"took over the lock of {holder}, who died without releasing it")
            return lease
        log.warning(f"the lock is held by {holder}: waiting for a sign of life, {LEASE_SECONDS} s at most")
        for _ in attempts(LEASE_SECONDS, every=LOOK_SECONDS):
            leases = self.kubectl.get("lease", LEASE)
            if not leases or holder_of(leases[0]) is None:
                return leases[0] if leases else lease
            if leases[0]["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"]:
                raise LockHeld(_held(holder))
        log.warning(f"took over the lock of {holder}, who did not renew it for {LEASE_SECONDS} s")
        return lease

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(RENEW_SECONDS):
            try:
                self._write_again()
                renewed = time.monotonic()
            except Unreachable:
                if time.monotonic() - renewed > LEASE_SECONDS:
                    self.lost = f"the lock could not be renewed for {LEASE_SECONDS} s, so another deploy may hold it"
            except SlipwayError as error:
                self.lost = f"the lock was taken away ({error.problems[0]})"
                return

    def _write_again(self) -> None:
        """Renew the lease, also where the answer to the renewal before was lost."""
        try:
            self._write(holder=_us())
        except Refused as error:
            # A renewal that arrived, and whose answer did not, is a conflict with ourselves.
            leases = self.kubectl.get("lease", LEASE) if "Conflict" in error.said else []
            spec = leases[0]["spec"] if leases else {}
            if (spec.get("holderIdentity"), spec.get("acquireTime")) != (_us(), self._since):
                raise
            self._version = leases[0]["metadata"]["resourceVersion"]

    def _write(self, *, holder: str) -> None:
        """Create or replace the lease; fail with a conflict where anybody else has changed it since."""
        spec: dict[str, Any] = {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now()}
        metadata = {"name": LEASE, "labels": {"app.kubernetes.io/part-of": "slipway"}}
        if self._version:
            metadata["resourceVersion"] = self._version
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {**spec, "acquireTime": self._since},
        }
        verb = "replace" if self._version else "create"
        written = self.kubectl.ask(verb, "--filename=-", "--output=json", given=as_list([lease]), timeout=RENEW_SECONDS)
        self._version = self.kubectl.items(written)[0]["metadata"]["resourceVersion"]


def holder_of(lease: Object) -> Holder | None:
    """Return the holder that a Lease names; None where it is free."""
    spec = lease.get("spec", {})
    identity = spec.get("holderIdentity") or ""
    if not identity:
        return None
    name, _, pid = identity.partition("/")
    user, _, host = name.partition("@")
    since = str(spec.get("acquireTime", ""))[:19]
    return Holder(user, host, int(pid) if pid.isdigit() else 0, f"{since}+00:00")


def _us() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}/{os.getpid()}"


def _held(holder: Holder | None) -> str:
    return (
        f"another deploy holds the lock: {holder or 'it has just begun'}."
        " Wait for it, or stop it with Ctrl-C there: it undoes itself"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
