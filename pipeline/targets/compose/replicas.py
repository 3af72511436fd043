"""The replicas of the compose target: each is a container with a socket in a volume that it shares with the edge.

As on the local target, the edge asks a fixed path for each slot: a replica enters when the slot is linked to its
socket. So no request waits for the engine's lookup of a name, which takes seconds on a busy host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.engines.docker import Docker
from pipeline.errors import DeployFailed, NotReady, SlipwayError
from pipeline.releases.model import Replica, short
from pipeline.system.waiting import Deadline, attempts
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.common.diagnosis import failing_checks
from pipeline.targets.common.edge import wait_admitted
from pipeline.targets.compose.stack import Stack

__all__ = ["PLAIN_SOCKET", "SERVICE", "SOCKETS", "Replicas", "slot_of", "slot_path", "socket_path"]

SERVICE = "backend"
EDGE = "frontend"
SOCKETS = "/run/edge"  # the volume, in docker-compose.yml
SLOT = "slot-"
PLAIN_SOCKET = f"{SOCKETS}/backend"  # the socket of what a plain `docker compose up` starts
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Replicas:
    """The replicas of a stack, behind its edge at `url`."""

    stack: Stack
    url: str

    @property
    def docker(self) -> Docker:
        """The engine."""
        return self.stack.docker

    def all(self) -> list[Container]:
        """Return every replica, running or not."""
        return self.stack.containers(SERVICE)

    def start(self, slot: int, env: Mapping[str, str]) -> Container:
        """Create a replica for the free `slot`, with the image and settings in `env`; return its container."""
        self._in_edge("rm", "-f", slot_path(slot))  # it led to whoever was there before
        before = {container.ident for container in self.all()}
        self.stack.do(
            "up",
            "--detach",
            "--no-deps",
            "--no-recreate",
            "--no-build",
            "--scale",
            f"{SERVICE}={len(before) + 1}",
            SERVICE,
            env=env,
        )
        fresh = [container for container in self.all() if container.ident not in before]
        if len(fresh) != 1:
            raise SlipwayError(
                f"Compose created {len(fresh)} containers instead of one: see `docker ps`, and deploy again"
            )
        return fresh[0]

    def wait_ready(self, release: str, ident: str, watch: Callable[[], None], deadline: Deadline) -> Container:
        """Wait until the health check of the replica `ident` passes; return its container.

        Raise `DeployFailed`, with the reason, where the replica ends or does not get ready by the `deadline`.
        """
        for _ in attempts(deadline, every=TICK_SECONDS, watch=watch):
            inspected = self.docker.inspect(ident)
            if not inspected:
                raise DeployFailed(f"a replica of release {short(release)} was removed while it started")
            container = Container.of(inspected[0])
            if container.restarts or not container.running:
                raise NotReady(short(release), f"ended before it was ready: {last_words(self.docker, ident)}")
            if container.health == "healthy":
                return container
        raise NotReady(short(release), f"did not get ready in time: {_answer(container.said)}")

    def admit(self, one: Container, watch: Callable[[], None]) -> None:
        """Link the replica's slot to its socket, and wait until requests through the edge reach it."""
        slot = slot_of(one)
        if slot is None:
            return  # a plain `docker compose up` started it: the edge asks its socket
        if slot not in self.routed():  # `ln` is not atomic, and nobody must find an empty slot that serves
            self._link(slot, short(one.labels.get("slipway.release", "")))
        wait_admitted(self.url, slot_path(slot), watch, log=f"`docker logs {self.stack.name}-{EDGE}-1`")

    def _link(self, slot: int, release: str) -> None:
        try:
            self._in_edge("test", "-S", socket_path(slot))
        except SlipwayError as error:
            raise DeployFailed(f"release {release} does not listen on BACKEND_SOCKET, where the edge asks") from error
        self._in_edge("ln", "-s", socket_path(slot), slot_path(slot))

    def routed(self) -> set[int]:
        """Return the slots that the edge knows a socket for; none where the edge does not run."""
        edge = self._edge()
        names = self.docker.ask("exec", edge.ident, "ls", SOCKETS).split() if edge and SOCKETS in edge.mounts else []
        return {int(name.removeprefix(SLOT)) for name in names if name.startswith(SLOT)}

    def begin_stop(self, containers: Iterable[Container]) -> None:
        """Send SIGTERM to replicas, without waiting: it drains them while the edge still reaches them.

        Each is told only once, because a second SIGTERM ends a draining service at once.
        """
        now = [Container.of(facts) for facts in self.docker.inspect(*(container.ident for container in containers))]
        for ident in [container.ident for container in now if container.running and not container.leaving]:
            # With the signal alone, the restart policy would start it again.
            self.docker.do("update", "--restart", "no", ident)
            try:
                self.docker.do("kill", "--signal", "TERM", ident)
            except SlipwayError as error:
                if "not running" not in str(error):  # it ended on its own meanwhile
                    raise

    def stop(self, one: Container, watch: Callable[[], None]) -> None:
        """Drain the replica, wait for its end, and remove it. What has not ended in time is killed."""
        self.begin_stop([one])
        for _ in attempts(one.stop_seconds, every=TICK_SECONDS, watch=watch):
            inspected = self.docker.inspect(one.ident)
            if not (inspected and Container.of(inspected[0]).running):
                break
        self.docker.do("rm", "--force", one.ident)

    def _edge(self) -> Container | None:
        return next((each for each in self.stack.containers(EDGE) if each.running), None)

    def _in_edge(self, *command: str) -> None:
        """Run a `command` in the edge's container."""
        edge = self._edge()
        if edge is None:
            raise SlipwayError(
                f"{EDGE} does not run, so it can route to nobody: see `docker ps --all`, and deploy again"
            )
        self.docker.do("exec", edge.name, *command)

    def seen(self, wanted: Callable[[str], str | None]) -> tuple[Replica, ...]:
        """Return the replicas as they are now.

        `wanted(release)` is the fingerprint that a deploy would start that release with.
        """
        return tuple(
            Replica(
                name=container.name,
                release=container.labels.get("slipway.release", ""),
                ready=container.ready,
                state=f"{container.state}{f' ({container.health})' if container.health else ''}",
                since=container.started[:19] + "+00:00" if container.running else None,
                metrics=f"http://{container.name}:9090/metrics (in the network {self.stack.network('backend')})",
                current=slot_of(container) is not None
                and wanted(container.labels.get("slipway.release", "")) == container.labels.get("slipway.config"),
            )
            for container in self.all()
        )


def slot_path(slot: int) -> str:
    """Return the path at which the edge asks the replica in `slot`: a link to its socket."""
    return f"{SOCKETS}/{SLOT}{slot}"


def socket_path(slot: int) -> str:
    """Return the path at which the replica in `slot` listens."""
    return f"{SOCKETS}/replica-{slot}"


def slot_of(one: Container) -> int | None:
    """Return the slot of a replica; None where a plain `docker compose up` created it."""
    slot = one.labels.get("slipway.slot", "")
    return int(slot) if slot.isdigit() else None


def _answer(said: str) -> str:
    """Describe what the health check `said`: `STATUS BODY`, or why there was no answer."""
    status, _, body = said.partition(" ")
    return f"/ready says {status}: {failing_checks(body)}" if status.isdigit() else said or "it did not answer /ready"
