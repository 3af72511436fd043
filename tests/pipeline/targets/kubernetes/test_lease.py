"""The lock in a cluster: what it does when an answer is lost on the way."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pipeline.engines.kubectl import Kubectl, Refused
from pipeline.targets.kubernetes.lease import Lease, _us

CONFLICT = 'Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on leases'
SINCE = "2026-11-24T16:41:57.000000Z"


@pytest.fixture(name="renewing")
def _renewing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """A Lease whose next renewal the API server refuses as a conflict, and which it has as `lease.json` says."""
    program = tmp_path / "kubectl"
    program.write_text(f"""#!/bin/sh
case "$*" in
  *" replace "*) cat >/dev/null; echo '{CONFLICT}' >&2; exit 1 ;;
  *) cat '{tmp_path}/lease.json' ;;
esac
""")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Lease(Kubectl("kind-slipway", "slipway"), _version="7", _since=SINCE)


def written(folder: Path, **spec: str) -> None:
    document = {"kind": "Lease", "metadata": {"name": "slipway-deploy", "resourceVersion": "8"}, "spec": spec}
    (folder / "lease.json").write_text(json.dumps(document))


class TestRenewal:
    def test_that_arrived_without_its_answer_is_no_loss(self, renewing: Lease, tmp_path: Path) -> None:
        """The conflict is with ourselves: its version is taken from there."""
        written(tmp_path, holderIdentity=_us(), acquireTime=SINCE)
        renewing._write_again()
        assert renewing._version == "8"

    @pytest.mark.parametrize("spec", [
        {"holderIdentity": "somebody@else/7", "acquireTime": SINCE},
        {"holderIdentity": _us(), "acquireTime": "2026-11-24T17:00:00.000000Z"},
    ])  # fmt: skip
    def test_of_a_lock_that_another_took_is_refused(
        self, spec: dict[str, str], renewing: Lease, tmp_path: Path
    ) -> None:
        """Also one of the same name: a process number comes again."""
        written(tmp_path, **spec)
        with pytest.raises(Refused):
            renewing._write_again()
