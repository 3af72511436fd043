"""Services of docker-compose.yml that run the release's own image beside the backend: a deploy rolls them, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DeployFailed
from pipeline.releases.model import Replica, short
from pipeline.system.waiting import Deadline, attempts
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.compose.artifacts import Kept
from pipeline.targets.compose.stack import Stack, config_fingerprint
from pipeline.targets.compose.variables import Variables

__all__ = ["Workers"]

KNOWN = ("backend", "backup", "frontend", "migrate", "rights", "postgres", "redis")
# Labels of a container that a deploy started as a worker.
WORKER, RELEASE, CONFIG = "slipway.worker", "slipway.release", "slipway.config"
TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Workers:
    """The workers of a Compose project."""

    variables: Variables

    @property
    def stack(self) -> Stack:
        """The Compose project."""
        return self.variables.stack

    def all(self) -> list[Container]:
        """Return the containers that deploys started as workers, running or not."""
        return [each for each in self.stack.containers() if WORKER in each.labels]

    def strangers(self, kept: Kept) -> list[str]:
        """Return the services that are neither ours nor workers: a deploy leaves them alone."""
        services = self.stack.services(self.variables.environment(kept))
        return [name for name, one in services.items() if name not in KNOWN and not _works(one, kept)]

    def roll(self, kept: Kept, watch: Callable[[], None], deadline: Deadline) -> list[Container]:
        """Replace each worker by one of the release, and remove those that it has no more; return the new ones.

        Raise `DeployFailed` with the last words of one that ends, or that does not get healthy in time.
        """
        config = self._config(kept)
        wanted = config["services"]
        self._remove(each for each in self.all() if each.service not in wanted)
        if wanted:
            with deadline.paused():  # the old ones end their work first
                self.stack.apply(config, "--no-deps")
        return [self._wait(kept.name, name, watch, deadline) for name in wanted]

    def stop(self) -> None:
        """Stop all workers, and remove them."""
        self._remove(self.all())

    def _remove(self, workers: Iterable[Container]) -> None:
        for each in workers:
            self.stack.docker.do("stop", each.ident)
            self.stack.docker.do("rm", "--force", each.ident)

    def seen(self, kept: Kept | None) -> tuple[Replica, ...]:
        """Return the workers as they are; with the release `kept`, also those that it should have and that are gone."""
        wanted = self._config(kept)["services"] if kept else {}
        there = {each.service: each for each in self.all()}
        return tuple(
            _replica(name, there.get(name), (wanted.get(name) or {}).get("labels", {}).get(CONFIG))
            for name in sorted({*there, *wanted})
        )

    def _config(self, kept: Kept) -> dict[str, Any]:
        """Return the configuration of the workers of a release alone, marked with what they start with."""
        config = self.stack.config(self.variables.environment(kept))
        secrets = self.variables.secrets
        config["services"] = {
            name: one for name, one in config["services"].items() if name not in KNOWN and _works(one, kept)
        }
        for service in config["services"].values():
            service.pop("depends_on", None)  # the deploy sees to the order
            mark = config_fingerprint(json.dumps(service, sort_keys=True), secrets)  # another secret, another worker
            service["labels"] = {**(service.get("labels") or {}), WORKER: "true", RELEASE: kept.name, CONFIG: mark}
        return config

    def _wait(self, release: str, name: str, watch: Callable[[], None], deadline: Deadline) -> Container:
        """Wait until the worker `name` runs, and is healthy if it has a health check."""
        one = None
        for _ in attempts(deadline, every=TICK_SECONDS, watch=watch):
            one = next((each for each in self.all() if each.service == name), None)
            if one and one.ready:
                return one
            if one is None or one.restarts or one.state == "exited":
                break
        said = last_words(self.stack.docker, one.ident) if one else "it was removed"
        how = "ended" if one and not one.running else "did not get healthy in time"
        raise DeployFailed(f"worker {name} of release {short(release)} {how}: {said}")


def _works(service: Mapping[str, Any], kept: Kept) -> bool:
    return bool(service.get("image") == kept.images.backend)


def _replica(name: str, one: Container | None, wanted: str | None) -> Replica:
    """Return a worker as `status` shows it. `wanted` is the mark of what its release would start now."""
    return Replica(
        name=one.name if one else name,
        release=one.labels.get(RELEASE, "") if one else "",
        ready=bool(one and one.ready),
        state=f"{one.state}{f' ({one.health})' if one.health else ''}" if one else "missing",
        since=one.started[:19] + "+00:00" if one and one.running else None,
        metrics=None,
        current=one is not None and one.labels.get(CONFIG) == wanted,
    )
