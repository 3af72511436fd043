"""`nox -s status -- ENV --watch`: what runs, what it answers, and what is wrong, again and again until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from rich.console import Console
from rich.live import Live

from pipeline.config.project import Environment, KubernetesEnvironment
from pipeline.errors import SlipwayError
from pipeline.live.screen import Look, line_of, screen_of
from pipeline.metrics.prometheus import Alert, PrometheusError, reachable
from pipeline.metrics.rates import Rates
from pipeline.metrics.scrapes import Scraper
from pipeline.system.progress import PLAIN_LIVE_SECONDS, tame

__all__ = ["Watcher", "watch"]

LOOK_SECONDS = 2.0  # between two looks, on a terminal
REDRAWN = 2  # times a second: so soon does the screen fit a window of another size


class Watcher:
    """Looks at `env` whenever it is told to; `ask` returns the document of `nox -s status`."""

    def __init__(
        self, env: Environment, ask: Callable[[], Mapping[str, Any]], environ: Mapping[str, str] = os.environ
    ) -> None:
        self.env, self._ask = env, ask
        self.warnings = _Warnings()
        namespace = env.namespace if isinstance(env, KubernetesEnvironment) else None
        self._prometheus = reachable(env.prometheus, namespace, environ)
        self._scraper = Scraper()
        self._last: tuple[datetime, Mapping[str, Any]] | None = None

    def look(self) -> Look:
        """Look once. What the engine raises is raised the first time, and from then on only told."""
        away = None
        try:
            self._last = datetime.now(UTC), self._ask()
        except (SlipwayError, OSError) as error:
            if not self._last:  # as `nox -s status` does: a wrong context stays wrong
                raise
            away = next(iter(str(error).splitlines()), type(error).__name__)
        seen, status = self._last
        rates, source, alerts, notes = self._figures(status)
        warned = self.warnings.take()
        return Look(datetime.now(UTC), seen, status, away, rates, source, alerts, (*notes, *warned))

    def _figures(self, status: Mapping[str, Any]) -> tuple[Rates | None, str, tuple[Alert, ...] | None, list[str]]:
        """Return the rates and where they are from, the alerts, and why something of that is not known."""
        rates, alerts, notes = self._asked()
        if rates or self.env.target != "local":
            return rates, "Prometheus", alerts, notes
        replicas = {one["metrics"]: one for one in status["replicas"] if one["metrics"]}
        rates, silent = self._scraper.look({address: one["release"] for address, one in replicas.items()})
        names = [replicas[address]["name"] for address in silent if replicas[address]["ready"]]
        return (
            rates,
            "the replicas' /metrics",
            alerts,
            [*notes, *(f"{one}: no answer of its /metrics" for one in names)],
        )

    def _asked(self) -> tuple[Rates | None, tuple[Alert, ...] | None, list[str]]:
        """Return what Prometheus knows, if it can be asked."""
        env = self.env
        if not self._prometheus:
            what, where = "alerts" if env.target == "local" else "traffic and alerts", f"environments.{env.name}"
            hint = f"for {what}, name a Prometheus: `prometheus` in [tool.slipway.{where}] of pyproject.toml"
            unreached = f"{env.prometheus} is an address of the cluster: from here, only an https address can be asked"
            return None, None, [unreached if env.prometheus else hint]
        rates, alerts = None, None
        try:
            rates = self._prometheus.rates()
            alerts = self._prometheus.alerts()
        except PrometheusError as error:
            return rates, alerts, list(error.problems)
        if not rates.requests:
            return None, alerts, [f"{env.prometheus} knows no requests of this service in the last minutes"]
        return rates, alerts, []


class _Warnings(logging.Handler):
    """Keeps what is warned of during a look, for the screen: the usual place would break it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        """Return them, each once, and forget them."""
        lines, self._lines = self._lines, []
        return tuple(dict.fromkeys(lines))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let the pipeline's log come here alone."""
        logger = logging.getLogger("pipeline")
        before, logger.handlers[:] = logger.handlers[:], [self]
        try:
            yield
        finally:
            logger.handlers[:] = before


def watch(watcher: Watcher, *, as_json: bool = False) -> NoReturn:
    """Show what `watcher` sees until `Interrupted`: a screen on a terminal, else a line every few seconds."""
    console = Console(highlight=False)
    with watcher.warnings.alone():
        if console.is_terminal and not console.is_dumb_terminal and not as_json:
            _draw(watcher, console)
        before = None
        while True:
            look = watcher.look()
            line = json.dumps(look.document()) if as_json else tame(line_of(look, before))
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            before = look
            time.sleep(PLAIN_LIVE_SECONDS)


def _draw(watcher: Watcher, console: Console) -> NoReturn:
    """Redraw the screen of the newest look; the last one stays, below what was there before."""
    look = watcher.look()
    try:
        # The terminal's other screen: lines that a narrower window has broken could not be drawn over.
        shown = lambda: screen_of(look, datetime.now(UTC))  # noqa: E731 - of whatever `look` is by then
        with Live(get_renderable=shown, console=console, screen=True, refresh_per_second=REDRAWN):
            while True:
                time.sleep(LOOK_SECONDS)
                look = watcher.look()
    finally:
        console.print(screen_of(look, datetime.now(UTC)))
