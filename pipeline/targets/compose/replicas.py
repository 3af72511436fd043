"""The replicas of the compose target: each a container, in the edge under the name of its slot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.engines.docker import Docker
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Replica, short
from pipeline.targets.common.container import BACKEND_PORT, Container, last_words
from pipeline.targets.common.diagnosis import failing_checks
from pipeline.targets.common.edge import wait_admitted
from pipeline.targets.compose.stack import Stack

__all__ = ["Replicas", "slot_name", "slot_of"]

SERVICE = "backend"
TICK_SECONDS = 0.1
LONGEST_REQUEST_SECONDS = 30  # what a replica may still be answering when its drain is over


@dataclass(frozen=True)
class Replicas:
    """The replicas of a stack behind its edge at `url`."""

    stack: Stack
    url: str

    @property
    def docker(self) -> Docker:
        """The engine."""
        return self.stack.docker

    def all(self) -> list[Container]:
        """Every replica, running or not."""
        return self.stack.containers(SERVICE)

    def start(self, env: Mapping[str, str]) -> Container:
        """Create one beside those there are; ENV says of which image and settings."""
        before = {one.ident for one in self.all()}
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
        fresh = [one for one in self.all() if one.ident not in before]
        if len(fresh) != 1:
            raise SlipwayError(f"compose made {len(fresh)} containers instead of one: `docker ps`, then deploy again")
        return fresh[0]

    def wait_ready(self, release: str, ident: str, watch: Callable[[], None], deadline: float) -> Container:
        """Wait until its health check passes (DEADLINE: monotonic seconds); say why when it cannot."""
        while True:
            found = self.docker.inspect(ident)
            if not found:
                raise DeployFailed(f"a replica of release {short(release)} was removed while it started")
            seen = Container.of(found[0])
            if seen.restarts or not seen.running:
                raise DeployFailed(
                    f"release {short(release)} ended before it was ready: {last_words(self.docker, ident)}"
                )
            if seen.health == "healthy":
                return seen
            if time.monotonic() > deadline:
                raise DeployFailed(f"release {short(release)} did not get ready in time: {_answer(seen.said)}")
            watch()
            time.sleep(TICK_SECONDS)

    def admit(self, one: Container, watch: Callable[[], None]) -> None:
        """Into the edge, under its slot's name, and seen to be answered from there."""
        slot, network = slot_of(one), self.stack.network("frontend")
        if slot is None:
            return  # of a plain `docker compose up`: it is in the edge as `backend`
        if network not in one.networks:
            self.docker.do("network", "connect", "--alias", slot_name(slot), network, one.ident)
        wait_admitted(
            self.url, f"{slot_name(slot)}:{BACKEND_PORT}", watch, log=f"`docker logs {self.stack.name}-frontend-1`"
        )

    def begin_stop(self, containers: Iterable[Container]) -> None:
        """Ask replicas to end, without waiting: their own SIGTERM drains them while the edge still reaches them.

        Once each: a second SIGTERM ends a draining service at once.
        """
        now = [Container.of(facts) for facts in self.docker.inspect(*(one.ident for one in containers))]
        for ident in [one.ident for one in now if one.running and not one.leaving]:
            # A stop signal alone would have the restart policy start it again.
            self.docker.do("update", "--restart", "no", ident)
            try:
                self.docker.do("kill", "--signal", "TERM", ident)
            except SlipwayError as error:
                if "not running" not in str(error):  # it ended by itself meanwhile
                    raise

    def stop(self, one: Container, watch: Callable[[], None]) -> None:
        """Drain it and wait for its end; what is not over by then is killed. Then forget it."""
        grace = _seconds(one.labels.get("slipway.drain", "")) + LONGEST_REQUEST_SECONDS
        self.begin_stop([one])
        deadline = time.monotonic() + grace
        while (found := self.docker.inspect(one.ident)) and Container.of(found[0]).running:
            if time.monotonic() > deadline:
                break
            watch()
            time.sleep(TICK_SECONDS)
        self.docker.do("rm", "--force", one.ident)

    def seen(self, wanted: Callable[[str], str | None]) -> tuple[Replica, ...]:
        """The replicas as they are now; WANTED(release) is the fingerprint that a deploy would start it with."""
        return tuple(
            Replica(
                name=one.name,
                release=one.labels.get("slipway.release", ""),
                ready=one.ready,
                state=f"{one.state}{f' ({one.health})' if one.health else ''}",
                since=one.started[:19] + "+00:00" if one.running else None,
                metrics=f"http://{one.name}:9090/metrics (in the network {self.stack.network('backend')})",
                current=slot_of(one) is not None
                and wanted(one.labels.get("slipway.release", "")) == one.labels.get("slipway.config"),
            )
            for one in self.all()
        )


def slot_name(slot: int) -> str:
    """The name under which the edge looks for the replica in a slot."""
    return f"slot-{slot}"


def slot_of(one: Container) -> int | None:
    """The slot of a replica; None where a plain `docker compose up` made it."""
    slot = one.labels.get("slipway.slot", "")
    return int(slot) if slot.isdigit() else None


def _answer(said: str) -> str:
    """What the health check said, in words: `STATUS BODY`, or why there was no answer."""
    status, _, body = said.partition(" ")
    return f"/ready says {status}: {failing_checks(body)}" if status.isdigit() else said or "it did not answer /ready"


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 10.0
