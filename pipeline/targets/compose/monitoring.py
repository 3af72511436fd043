"""What watches the service of a compose environment: the services of docker/compose.monitoring.yml.

They are no part of a release, and nothing that is wrong with them fails a deploy: it is said.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.secrets import ALERTMANAGER, POSTGRES_MONITOR, REDIS_MONITOR
from pipeline.config.settings import HIGHEST_PORT, monitoring_settings
from pipeline.errors import SlipwayError
from pipeline.monitoring.receivers import alertmanager_config, receiver_problems, unheard
from pipeline.system.files import write_whole
from pipeline.system.waiting import attempts
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.common.rights import password_sql
from pipeline.targets.compose.problems import superuser_psql
from pipeline.targets.compose.redis import let_monitor_in
from pipeline.targets.compose.site import Site
from pipeline.targets.compose.stack import DEFINITION

__all__ = ["Monitoring"]

log = logging.getLogger(__name__)

PROFILE = "monitoring"
PROFILES = (PROFILE, "backup", "debug")  # of docker-compose.yml and the files beside it
FILE = "docker/compose.monitoring.yml"
PORTS = ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT", "LOGS_PORT", "TRACES_PORT")
# The exporter of a store, by the store, and where Prometheus finds it.
EXPORTERS = {"postgres": ("postgres-exporter", 9187), "redis": ("redis-exporter", 9121)}
# The files that its containers read: another content makes other containers.
READ = ("monitoring/compose/*", "monitoring/dashboards/*", "monitoring/grafana/*/*", "monitoring/rules/*",
        "pipeline/monitoring/*exp*.py")  # fmt: skip
SECRETS = (POSTGRES_MONITOR, REDIS_MONITOR)
MARK = "slipway.monitoring"  # the label with the hash of those, which only its containers have
PULL_SECONDS, START_SECONDS, TICK_SECONDS = 600, 30, 0.5


class Monitoring:
    """What watches the service of `site`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def settings(self) -> dict[str, str]:
        """Its settings in `.env`."""
        return monitoring_settings(self.site.values)

    @property
    def asked(self) -> bool:
        """Whether `.env` asks for it."""
        return PROFILE in _words(self.settings["COMPOSE_PROFILES"])

    def problems(self) -> list[str]:
        """List what is wrong with its settings, one line each with its fix; say whom alerts do not reach."""
        settings = self.settings
        known = ", ".join(PROFILES)
        problems = [
            f"COMPOSE_PROFILES: there is no profile `{name}`: take one of {known}"
            for name in _words(settings["COMPOSE_PROFILES"])
            if name not in PROFILES
        ]
        problems += [
            f"{name}: must be a port, 1 to {HIGHEST_PORT}"
            for name in PORTS
            if not (settings[name].isascii() and settings[name].isdigit() and 1 <= int(settings[name]) <= HIGHEST_PORT)
        ]
        problems += receiver_problems(settings)
        if self.asked and (nobody := unheard(settings)):
            log.warning(nobody)
        return problems

    def drift(self) -> list[str]:
        """Return a line for each of its containers that the next deploy would start, replace or remove."""
        there = self._there()
        if not self.asked:
            return [f"{each.name} runs, and .env asks for no monitoring any more" for each in there.values()]
        wanted, names = self.site.stack.definitions(self._environment()), self._names()
        lines = [f"{name} is missing" for name in names if name not in there]
        lines += [
            f"{name} no longer matches {FILE}, monitoring/ and .env"
            for name in names
            if name in there and there[name].labels.get(DEFINITION) != wanted[name]
        ]
        return [*lines, *(f"{name} has nothing to watch any more" for name in there if name not in names)]

    def start(self) -> None:
        """Start what should run, replace what changed, remove what nobody asks for; say what went wrong."""
        with _said("what watches the service was not started"):
            there = self._there()
            names = self._names() if self.asked else []
            self._remove(each for name, each in there.items() if name not in names)
            if names:
                self._prepare()
                if here := self._pulled(names):  # without a name, Compose would start everything
                    self._up(here)
                for line in self._settled():
                    log.warning(line)

    def findings(self) -> list[str]:
        """Return a line for each of its containers that does not do what it is for."""
        if not self.asked:
            return []
        again, there = f"`nox -s deploy -- {self.site.env.name}`", self._there()
        findings = []
        for name in self._names():
            one = there.get(name)
            if one is None:
                findings.append(f"{name}, which watches the service, is missing: {again} starts it")
            elif not one.running or one.restarts or one.health == "unhealthy":
                words = last_words(self.site.docker, one.ident)
                findings.append(f"{one.name}, which watches the service, does not run as it should: {words}")
        nobody = unheard(self.settings)
        return [*findings, nobody] if nobody else findings

    def _names(self) -> list[str]:
        """Return its services: those of the profile, without exporters of stores that others manage."""
        gone = {EXPORTERS[store][0] for store in self.site.stack.elsewhere}
        return [name for name in self._services() if name not in gone]

    def _services(self) -> dict[str, Any]:
        services = self.site.stack.services(self._environment())
        return {name: one for name, one in services.items() if PROFILE in (one.get("profiles") or ())}

    def _there(self) -> dict[str, Container]:
        return {each.service: each for each in self.site.stack.containers() if MARK in each.labels}

    def _environment(self) -> dict[str, str]:
        variables = self.site.variables
        own = {name: self.settings[name] for name in PORTS}
        engine = self.site.docker.ask("info", "--format", "{{.DockerRootDir}}").strip()
        return {
            **variables.environment(None),
            **own,
            "COMPOSE_PROFILES": PROFILE,
            "SLIPWAY_CONTAINERS": f"{engine}/containers",
            "SLIPWAY_METRICS": str(self._metrics),
            "SLIPWAY_MONITOR": variables.logins.monitor,
            "SLIPWAY_MONITORING": self._fingerprint(),
        }

    @property
    def _metrics(self) -> Path:
        return self.site.home / "metrics"

    def _fingerprint(self) -> str:
        """Return a hash of the files that its containers read; the secrets among them are random."""
        root, seen = self.site.project.root, hashlib.sha256(alertmanager_config(self.settings).encode())
        files = [path for pattern in READ for path in sorted(root.glob(pattern))]
        for path in (*files, *(self.site.secrets / name for name in SECRETS)):
            seen.update(path.name.encode() + (path.read_bytes() if path.exists() else b""))
        return seen.hexdigest()[:12]

    def _prepare(self) -> None:
        """Write what its containers read, and let the exporters into the stores."""
        site, variables = self.site, self.site.variables
        self._metrics.mkdir(parents=True, exist_ok=True)
        self._metrics.chmod(0o755)
        for store, (host, port) in EXPORTERS.items():
            targets = [] if store in site.stack.elsewhere else [{"targets": [f"{host}:{port}"]}]
            write_whole(self._metrics / f"{store}.json", json.dumps(targets), mode=0o644)
        write_whole(site.secrets / ALERTMANAGER, alertmanager_config(self.settings), mode=0o444)
        site.backups.make_volume()
        if "postgres" not in site.stack.elsewhere:
            password = (site.secrets / POSTGRES_MONITOR).read_text(encoding="utf-8")
            given = (site.project.root, variables.database, variables.logins, variables.logins.monitor, password)
            superuser_psql(site.stack, variables.database, password_sql(*given))
        if "redis" not in site.stack.elsewhere:
            let_monitor_in(site)

    def _pulled(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` whose image is here, after an attempt to get what is missing."""
        docker, services, here = self.site.docker, self._services(), []
        for name in names:
            image = services[name]["image"]
            with _said(f"{name}, which watches the service, is not started"):
                if docker.image(image) is None:
                    docker.do("pull", "--quiet", image, timeout=PULL_SECONDS)
                here.append(name)
        return here

    def _up(self, names: list[str]) -> None:
        stack, environment = self.site.stack, self._environment()
        up = ("up", "--detach", "--no-deps", "--no-build")
        try:
            stack.do(*up, *names, env=environment)
        except SlipwayError:  # a port that is taken, for example: one must not keep the others from starting
            for name in names:
                with _said(f"{name}, which watches the service, is not started"):
                    stack.do(*up, name, env=environment)

    def _settled(self) -> list[str]:
        """Wait until none of its containers is starting any more; return what is wrong with them."""
        for _ in attempts(START_SECONDS, every=TICK_SECONDS):
            if all(each.health != "starting" for each in self._there().values()):
                break
        return [line for line in self.findings() if line != unheard(self.settings)]

    def _remove(self, containers: Iterable[Container]) -> None:
        for each in containers:
            self.site.docker.do("stop", each.ident)
            self.site.docker.do("rm", "--force", each.ident)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say why the block failed, and go on."""
    try:
        yield
    except (SlipwayError, OSError) as error:
        log.warning(f"{what}: {error.problems[0] if isinstance(error, SlipwayError) else error}")


def _words(profiles: str) -> list[str]:
    return [name.strip() for name in profiles.split(",") if name.strip()]
