"""The replicas of the local target: each in a slot, as a supervised process on its own Unix socket."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from pipeline.config.settings import grace_seconds
from pipeline.errors import DeployFailed
from pipeline.releases.model import Replica
from pipeline.releases.records import read_json
from pipeline.system.files import write_whole
from pipeline.system.ports import free_port
from pipeline.system.waiting import Deadline, attempts
from pipeline.targets.common.diagnosis import failing_checks, telling_line
from pipeline.targets.common.tokens import CURRENT, PREVIOUS, Tokens
from pipeline.targets.local.edge import Edge
from pipeline.targets.local.layout import Layout
from pipeline.targets.local.supervision import Process, Supervisor, program_config

__all__ = ["Replicas", "Slot", "check_ready", "last_log_line", "read_tokens", "write_config"]

PREFIX = "replica-"
META = "; slipway "
LAST_BYTES = 20_000  # of a log: enough for the longest traceback


@dataclass(frozen=True)
class Slot:
    """The replica in a slot: its release, the name of its configuration folder, the port of its metrics."""

    slot: int
    release: str
    config: str
    metrics: int

    @property
    def program(self) -> str:
        """The name of its supervised program."""
        return f"{PREFIX}{self.slot}"


@dataclass(frozen=True)
class Replicas:
    """The replicas of a layout."""

    layout: Layout
    supervisor: Supervisor
    edge: Edge

    def slots(self) -> list[Slot]:
        """Return every slot that has a replica, running or not, as the program files say."""
        slots = []
        for name in self.supervisor.names():
            config = self.supervisor.config(name) or ""
            if name.startswith(PREFIX) and config.startswith(META):
                slots.append(Slot(**json.loads(config.splitlines()[0].removeprefix(META))))
        return sorted(slots, key=lambda slot: slot.slot)

    def socket(self, slot: int) -> Path:
        """Return the Unix socket of the replica in `slot`."""
        return self.layout.run / f"{PREFIX}{slot}.sock"

    def start(self, slot: int, release: str, config: Path, python: Path, folder: Path) -> tuple[Slot, int]:
        """Start a replica; return its slot, and the offset in its log at which its own lines begin."""
        new = Slot(slot=slot, release=release, config=config.name, metrics=free_port())
        log = self.layout.log(new.program)
        offset = log.stat().st_size if log.exists() else 0
        grace = grace_seconds(read_json(config / "env.json"))
        command = [
            str(python),
            "-I",
            "-S",
            str(self.layout.home / "launch.py"),
            str(config / "env.json"),
            f"BACKEND_HOST={self.socket(slot)}",
            f"METRICS_PORT={new.metrics}",
            "--",
            str(python),
            "-m",
            "backend",
        ]
        self.supervisor.add(
            new.program,
            f"{META}{json.dumps(asdict(new))}\n"
            + program_config(new.program, command, directory=folder, stop_seconds=grace, priority=50),
        )
        return new, offset

    def wait_ready(self, slot: Slot, offset: int, watch: Callable[[], None], deadline: Deadline) -> int:
        """Wait until /ready answers 200, and return the process ID.

        Raise `DeployFailed`, with the reason, where the replica ends or does not get ready by the `deadline`.
        """
        answer = "it did not answer /ready"
        for _ in attempts(deadline, every=0.03, watch=watch):
            process = self.supervisor.processes().get(slot.program)
            if process is not None and process.state in ("BACKOFF", "FATAL", "EXITED"):
                words = last_log_line(self.layout.log(slot.program), offset)
                raise DeployFailed(f"release {slot.release} ended before it was ready: {words}")
            ready, answer = check_ready(self.socket(slot.slot), answer)
            if ready and process is not None:
                return process.pid
        raise DeployFailed(f"release {slot.release} did not get ready in time: {answer}")

    def wait_settled(self, seconds: float) -> None:
        """Wait until every replica is ready, for at most `seconds`."""
        waiting = self.slots()
        for _ in attempts(seconds, every=0.05):
            waiting = [slot for slot in waiting if not check_ready(self.socket(slot.slot), "")[0]]
            if not waiting:
                break

    def admit(self, slot: Slot, watch: Callable[[], None]) -> None:
        """Let the replica into the edge, and wait until requests through the edge reach it."""
        self.edge.link(slot.slot, self.socket(slot.slot))
        self.edge.wait_admitted(slot.slot, watch)

    def stop(self, slot: Slot, watch: Callable[[], None]) -> None:
        """Drain the replica, then forget it. SIGTERM makes it drain while the edge still reaches it."""
        self.supervisor.stop(slot.program, watch)
        self.edge.unlink(slot.slot)
        self.socket(slot.slot).unlink(missing_ok=True)

    def seen(self, wanted: Callable[[str], str | None]) -> tuple[Replica, ...]:
        """Return the replicas as they are now.

        `wanted(release)` is the name of the configuration that a deploy would start that release with.
        """
        processes = self.supervisor.processes()
        replicas = []
        for slot in self.slots():
            process = processes.get(slot.program, Process(slot.program, "GONE", 0, 0, ""))
            ready = process.state in ("STARTING", "RUNNING") and check_ready(self.socket(slot.slot), "")[0]
            since = (
                datetime.fromtimestamp(process.started, UTC).isoformat(timespec="seconds") if process.started else None
            )
            replicas.append(
                Replica(
                    name=slot.program,
                    release=slot.release,
                    ready=ready,
                    state=process.state,
                    since=since,
                    metrics=f"http://127.0.0.1:{slot.metrics}/metrics",
                    current=wanted(slot.release) == slot.config,
                )
            )
        return tuple(replicas)


def write_config(configs: Path, environment: dict[str, str], secrets: dict[str, str]) -> Path:
    """Write the folder that a replica starts from, named by its content; return it.

    It holds env.json, and a file for each secret.
    """
    text = json.dumps([environment, secrets], sort_keys=True)
    folder = configs / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (folder / "env.json").exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, value in secrets.items():
            (folder / name).write_text(value, encoding="utf-8")
        files = {f"{name}_FILE": str(folder / name) for name in secrets}
        write_whole(folder / "env.json", json.dumps({**environment, **files}, indent=1))
    return folder


def read_tokens(folder: Path) -> Tokens:
    """Return the tokens that a replica which started from `folder` accepts."""
    files = [path for path in (folder / CURRENT, folder / PREVIOUS) if path.exists()]
    return Tokens.of({path.name: path.read_text(encoding="utf-8") for path in files})


def check_ready(socket: Path, before: str) -> tuple[bool, str]:
    """Return whether the service at `socket` is ready, and its answer (or `before`, where it did not answer)."""
    # No TLS on a Unix socket: loading the certificate authorities would add 20 ms to each check of a starting replica.
    transport = httpx2.HTTPTransport(uds=str(socket), verify=False)
    with (
        contextlib.suppress(httpx2.TransportError),
        httpx2.Client(transport=transport, base_url="http://replica", timeout=2) as client,
    ):
        answer = client.get("/ready")
        return answer.status_code == httpx2.codes.OK, f"/ready says {answer.status_code}: {failing_checks(answer.text)}"
    return False, before


def last_log_line(log: Path, offset: int) -> str:
    """Return the last telling line of `log` after `offset`: an exception, or the event of a JSON line."""
    try:
        with log.open("rb") as file:
            # A log shorter than `offset` was rotated meanwhile, so that all of it is new.
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset if offset <= end else 0, end - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "it wrote no log"
    return telling_line(lines)
