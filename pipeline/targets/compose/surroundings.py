"""PostgreSQL, Redis and the edge of a Compose project: tried before they are exchanged, and put back if they fail.

None of them is part of a release: what docker-compose.yml and `.env` say now is what should run. If that differs from
what runs, `problems` starts it once beside, on empty volumes, before anything real is touched.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.secrets import BY_HAND
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.system.files import write_whole
from pipeline.system.waiting import attempts
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.common.containers import THROWAWAY, sweep
from pipeline.targets.common.diagnosis import SILENT, telling_line
from pipeline.targets.compose.stack import DEFINITION, FILES, Stack
from pipeline.targets.compose.variables import Variables

__all__ = ["SURROUNDINGS", "Surroundings", "started_by_hand", "throwaway_config"]

SURROUNDINGS = ("postgres", "redis", "frontend")
START_SECONDS = 120  # of an empty PostgreSQL on a busy machine
PULL_SECONDS = 600
TICK_SECONDS = 0.2
CACHE, EDGE = "redis", "frontend"
VALIDATE = ("validate", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile")
CRASHES = 3  # Docker starts it again each time; what failed thrice fails for a reason

log = logging.getLogger(__name__)


@dataclass
class Surroundings:
    """The surroundings of the replicas. `proved`: the file with the definitions of those that were proved last."""

    variables: Variables
    proved: Path
    _before: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def stack(self) -> Stack:
        """The Compose project."""
        return self.variables.stack

    def containers(self) -> dict[str, Container]:
        """Return the containers by their services, running or not."""
        return {each.service: each for each in self.stack.containers() if each.service in SURROUNDINGS}

    def changed(self) -> list[str]:
        """Return the services whose container is not what the files define now."""
        return self._changed(self._config(), self.containers())

    def problems(self) -> list[str]:
        """List what would not start as the files define it now, one line each with its fix. Touch nothing that runs."""
        config, there = self._config(), self.containers()
        mine = self.variables.surroundings
        problems = [problem for name in mine if (problem := self._image_problem(config, name))]
        if problems:
            return problems
        # What does not run now, too: so a bad definition is refused before it is waited for.
        doubtful = {*self._changed(config, there), *(name for name, each in there.items() if not each.ready)}
        doubtful &= {*mine}
        return self._try(throwaway_config(config, self.stack.name, doubtful)) if doubtful else []

    def start(self, *services: str) -> None:
        """Start `services` as the files define them. Raise `DeployFailed` with the last words of one that fails.

        A Redis that fails although its definition is the same as before is only a warning: it is a cache.
        """
        self._before = self._before or self._read()
        config, there = self._config(), self.containers()
        same = there.keys() - self._changed(config, there)
        environment = self.variables.environment(None)
        # Compose takes what was started by hand for the same: the paths of its secrets are no part of a definition.
        anew = ["--force-recreate"] if any(name in there and started_by_hand(there[name]) for name in services) else []
        self.stack.do("up", "--detach", "--no-deps", "--no-build", *anew, *services, env=environment)
        for name, why in self._wait(services).items():
            if name != CACHE or name not in same:
                raise DeployFailed(why)
            volume = f"{self.stack.name}_{CACHE}"
            log.warning(
                f"{why}. Nothing is cached until it runs. If its data is broken, start it empty:"
                f" `docker rm --force {there[name].name} && docker volume rm {volume}`, then deploy"
            )

    def put_back(self) -> None:
        """Start again what was proved last, if something else runs now. Raise `DeployFailed` if it does not start."""
        before, self._before = self._before, {}
        if not before:
            return
        there, now, config = self.containers(), self._config()["services"], before["config"]
        gone = []
        for name, image in before["images"].items():
            service = config["services"][name]
            # A label may mark a secret, and an old release gets the secrets of today.
            service["labels"] = now[name].get("labels") or {}
            same = name in there and there[name].image == image
            if same and (there[name].labels.get(DEFINITION) == before["definitions"][name] or now[name] == service):
                continue
            gone.append(name)
            if self._image(config, name) != image:  # the tag names another one by now
                service["image"] = image
        if not gone:
            return
        log.warning(f"putting back {', '.join(gone)} as proved last")
        self.stack.apply(config, "--no-deps", *gone)
        for why in self._wait(gone).values():
            raise DeployFailed(f"it could not be put back: {why}")

    def heal(self) -> bool:
        """Start what should run but does not; return whether there was any.

        What a killed deploy had exchanged and what does not run is put back.
        """
        broken = [name for name, each in self.containers().items() if not each.running]
        if not broken:
            return False
        log.warning("not everything runs that should (was the machine restarted?): starting it again")
        self._before = self._read()
        try:
            self.put_back()
        except SlipwayError as error:  # `problems` says what is wrong with it
            log.warning(error.problems[0])
        for name, each in self.containers().items():
            if not each.running:
                try:
                    self.stack.docker.do("start", each.ident)
                except SlipwayError as error:
                    log.warning(f"{name} cannot be started: {error.problems[0]}")
        return True

    def exchange(self, name: str, saved: Path) -> None:
        """Start the service `name` as the files define it now; from now on, that is what is put back and healed.

        `saved` gets what that was before, for `exchange_back`. Raise as `start` does.
        """
        there, config = self.containers(), self._config()
        write_whole(saved, self.proved.read_text(encoding="utf-8"))
        facts = self._facts(config, there)
        facts["images"][name] = self._image(config, name)
        facts["definitions"][name] = self.stack.definitions(self.variables.environment(None))[name]
        write_whole(self.proved, json.dumps(facts))  # whoever is killed from here on has exchanged it
        self.start(name)

    def exchange_back(self, saved: Path) -> None:
        """Bring back what `exchange` took the place of. Raise `DeployFailed` if it does not start."""
        write_whole(self.proved, saved.read_text(encoding="utf-8"))
        self.bring_back()

    def bring_back(self) -> None:
        """Start what was proved or exchanged last, where something else runs. Raise `DeployFailed` if that fails."""
        self._before = self._read()
        self.put_back()

    def proved_config(self) -> dict[str, Any]:
        """Return the configuration that was proved last; empty if none was."""
        config: dict[str, Any] = self._read().get("config", {})
        return config

    def keep(self) -> None:
        """Note what runs as proved: `put_back` of a later deploy brings it back."""
        self._before = {}
        there = self.containers()
        for name in there.keys() - {*self.variables.surroundings}:  # until here, a replica may have used it
            log.info(f"{name} is removed, as it is managed elsewhere now; its volume is kept")
            self.stack.docker.do("stop", there[name].ident)
            self.stack.docker.do("rm", there.pop(name).ident)
        write_whole(self.proved, json.dumps(self._facts(self._config(), there)))

    def _facts(self, config: Mapping[str, Any], there: Mapping[str, Container]) -> dict[str, Any]:
        return {
            "config": config,
            "images": {name: each.image for name, each in there.items()},
            "definitions": {name: each.labels.get(DEFINITION) for name, each in there.items()},
        }

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            facts: dict[str, Any] = json.loads(self.proved.read_text(encoding="utf-8"))
            return facts
        return {}

    def _changed(self, config: Mapping[str, Any], there: Mapping[str, Container]) -> list[str]:
        wanted = self.stack.definitions(self.variables.environment(None))
        # Compose's hash of a definition does not cover the image that a tag names by now.
        return [
            name
            for name, each in there.items()
            if each.labels.get(DEFINITION) != wanted[name] or each.image != self._image(config, name)
        ]

    def _config(self) -> dict[str, Any]:
        return self.stack.config(self.variables.environment(None))

    def _image(self, config: Mapping[str, Any], service: str) -> str | None:
        """Return the ID of a service's image; None if it is not on this machine."""
        image = self.stack.docker.image(config["services"][service]["image"])
        return str(image["Id"]) if image else None

    def _image_problem(self, config: Mapping[str, Any], service: str) -> str | None:
        """Pull a service's image if it is not on this machine; return why that fails."""
        image = config["services"][service]["image"]
        if service == EDGE or self._image(config, service):  # the edge's is built here, before it is started
            return None
        try:
            self.stack.docker.do("pull", "--quiet", image, timeout=PULL_SECONDS)
        except SlipwayError as error:
            return f"{service}: its image {image} cannot be pulled: {error.problems[0]}"
        return None

    def _try(self, config: Mapping[str, Any]) -> list[str]:
        """Start the services of a throwaway `config` until they are healthy; list those that are not."""
        docker, project = self.stack.docker, str(config["name"])
        wait = ("--wait", "--wait-timeout", str(START_SECONDS))
        try:
            self.stack.apply(config, *wait, timeout=START_SECONDS + 60)
        except SlipwayError as error:
            idents = docker.ask(
                "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={project}"
            ).split()
            tried = [Container.of(facts) for facts in docker.inspect(*idents)]
            refused = [one for one in tried if not one.running or one.health not in ("healthy", "")]
            return [
                f"{one.service} would not run as {FILES[0]} and .env define it now (tried beside it, with an empty"
                f" volume): {self._words(one)}"
                for one in refused
            ] or list(error.problems)
        finally:
            sweep(docker, self.stack.name)
        return []

    def _wait(self, services: Iterable[str]) -> dict[str, str]:
        """Wait until `services` are healthy; return those that are not, with the reason and their last words."""
        left, there = list(services), dict[str, Container]()
        for _ in attempts(START_SECONDS, every=TICK_SECONDS):
            there = self.containers()
            left = [name for name in left if name not in there or not there[name].ready]
            if all(name in there and _crashed(there[name]) for name in left):
                break
        how = (
            "ends as often as it starts"
            if left and _crashed(there[left[0]])
            else f"was not healthy in {START_SECONDS} s"
        )
        return {name: f"{name} {how}: {self._words(there[name]) if name in there else 'it is gone'}" for name in left}

    def _words(self, one: Container) -> str:
        words = last_words(self.stack.docker, one.ident)
        if one.service == EDGE and SILENT in words:  # `caddy run` does not say what is wrong with its Caddyfile
            try:
                self.stack.docker.ask("run", "--rm", "--network", "none", one.image, *VALIDATE)
            except SlipwayError as error:
                return telling_line([error.problems[0].removeprefix("docker run: ")])
        return (
            f"its health check says `{one.said[:200]}`; its last line: {words}" if one.running and one.said else words
        )


def throwaway_config(config: Mapping[str, Any], project: str, services: Collection[str]) -> dict[str, Any]:
    """Return the Compose file that tries `services` of `config` beside `project`.

    They keep image, arguments, settings, secrets and limits; data, ports and networks are their own.
    """
    label = {THROWAWAY: project}
    tried = {}
    for name in services:
        service = dict(config["services"][name])
        for gone in ("ports", "container_name", "depends_on", "profiles", "build", "hostname"):
            service.pop(gone, None)
        tried[name] = service | {
            "restart": "no",
            "networks": {"default": None},
            "labels": {**(service.get("labels") or {}), **label},
            "volumes": [_without_data(volume) for volume in service.get("volumes") or ()],
        }
    shared = {kind: config[kind] for kind in ("secrets", "configs") if config.get(kind)}
    return {
        "name": f"{project}-try",
        "services": tried,
        "networks": {"default": {"labels": label, "internal": True}},
        **shared,
    }


def _without_data(volume: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a mount that holds nothing in place of one that may hold data; configuration stays, read-only."""
    if volume["type"] == "volume" or (
        volume["type"] == "bind" and not volume.get("read_only") and not Path(volume["source"]).is_file()
    ):
        return {"type": "volume", "target": volume["target"]}
    return {**volume, "read_only": True} if volume["type"] == "bind" else volume


def started_by_hand(one: Container) -> bool:
    """Return whether a plain `docker compose up` made the container: it mounts secrets by the link that is for that."""
    return any(BY_HAND in source for source in one.mounts.values())


def _crashed(one: Container) -> bool:
    return one.state == "exited" or one.restarts >= CRASHES
