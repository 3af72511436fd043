"""`nox -s status -- ENV --watch`: what it shows, on a terminal and elsewhere, while things come and go."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.config.project import ComposeEnvironment, Environment, KubernetesEnvironment, LocalEnvironment
from pipeline.errors import Interrupted, SlipwayError, UsageError
from pipeline.live.screen import Look, line_of, screen_of
from pipeline.live.watcher import Watcher, watch
from pipeline.metrics.prometheus import Alert
from pipeline.metrics.rates import Rates
from pipeline.system.ports import free_port
from tests.logs import logged
from tests.pipeline.metrics.test_scrapes import page
from tests.played import Answer, serving

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 28, 10, 0, 30, tzinfo=UTC)
SINCE = "2026-11-28T10:00:00+00:00"
LONG = f"sha256:{'c' * 64}+12345678"
LOCAL = LocalEnvironment(name="local", url="http://x")
CLUSTER = KubernetesEnvironment(name="prod", url="https://x", overlay="o", context="c", namespace="shop")


def replica(name: str = "replica-0", **values: Any) -> dict[str, Any]:
    seen = {"name": name, "release": "a", "ready": True, "state": "RUNNING", "since": SINCE, "metrics": None}
    return {**seen, **values}


def status(*replicas: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return what `nox -s status` says of `replicas`."""
    facts = {"environment": "local", "target": "local", "url": "http://x", "release": "a", "number": 1, "since": SINCE}
    return {**facts, "replicas": list(replicas), "workers": [], "problems": [], "lock": None, **values}


def rates(*releases: str, errors: float = 0.0) -> Rates:
    """Return those of 10 requests a second of each of `releases`, and so many `errors` of the last."""
    served = [({"release": one, "status": "200", "traffic": "user"}, 10.0) for one in releases]
    failed = ({"release": releases[-1], "status": "500", "traffic": "synthetic"}, errors)
    slow = [({"release": one, "le": le}, 10.0) for one in releases for le in ("0.1", "+Inf")]
    return Rates((*served, failed), tuple(slow), 10)


def drawn(look: Look, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(screen_of(look, NOW))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def looked(*replicas: dict[str, Any], **values: Any) -> Look:
    return Look(NOW, NOW, status(*replicas), **values)


class TestScreen:
    def test_shows_replicas_releases_traffic_and_alerts(self) -> None:
        """Of a rolling update: who answers how much, and who is not ready."""
        replicas = (replica(), replica("replica-1", release="b", ready=False, state="STARTING"))
        alerts = (
            Alert("Failing", "firing", "page", "errors", SINCE, None),
            Alert("Slow", "pending", "", "", "x", None),
        )
        look = looked(*replicas, rates=rates("a", "b", errors=2.0), source="Prometheus", alerts=alerts)
        lines = drawn(replace(look, status={**look.status, "lock": dict.fromkeys(("holder", "host", "pid", "since"))}))
        assert lines[0] == "local  http://x  10:00:30 UTC"
        assert lines[1] == "release a (number 1), proved 30 s ago"
        assert lines[2].startswith("lock: ")
        traffic = "traffic: 22 requests/s (2 of them synthetic), 2 errors/s (9.1 %), p95 95 ms  Prometheus, 10 s"
        assert lines[3] == traffic
        assert lines[4:6] == ["! firing Failing (page) for 30 s: errors", "! pending Slow for ?"]
        assert [line.split() for line in lines[8:10]] == [
            ["a", "1", "of", "1", "10", "0", "95", "ms"],
            ["b", "0", "of", "1", "12", "2", "95", "ms"],
        ]
        assert [line.split() for line in lines[12:]] == [
            ["replica-0", "a", "ready", "RUNNING", "30", "s"],
            ["replica-1", "b", "not", "ready", "STARTING", "30", "s"],
        ]

    def test_tells_nothing_from_nothing_known(self) -> None:
        """No alert is good news, and no Prometheus is none."""
        unknown, quiet = drawn(looked(replica())), drawn(looked(replica(), rates=rates("a"), alerts=()))
        assert unknown[2:4] == ["traffic: not known", "alerts: not known"]
        assert quiet[2:4] == ["traffic: 10 requests/s, 0 errors/s, p95 95 ms  , 10 s", "alerts: none"]

    def test_fits_a_terminal_of_60_columns(self) -> None:
        """Who is ready stays readable, whatever names are long."""
        pods = [replica(f"backend-7d9f8c6b5d-x2x9{n}", release=LONG, state="CrashLoopBackOff") for n in range(2)]
        alert = Alert("Failing", "firing", "page", "a long summary, " * 9, SINCE, None)
        lines = drawn(looked(*pods, rates=rates(LONG), source="Prometheus", alerts=(alert,), notes=("n" * 99,)), 60)
        assert max(map(len, lines)) <= 60
        assert sum(line.startswith("backend-") and " ready " in line for line in lines) == 2

    def test_says_that_nothing_runs(self) -> None:
        """Before the first deploy, and after `down`."""
        assert drawn(Look(NOW, NOW, status(release=None)))[1] == "nothing deployed yet"
        assert "no replica is running" in drawn(Look(NOW, NOW, status()))

    def test_says_how_old_it_is_while_the_engine_is_away(self) -> None:
        """It is what was seen last."""
        look = Look(NOW, NOW - timedelta(seconds=12), status(replica()), away="docker: gone")
        assert drawn(look)[2] == "✗ not seen for 12 s: docker: gone"
        assert line_of(look).endswith("! not seen since 10:00:18: docker: gone")


class TestLine:
    def test_has_all_that_counts(self) -> None:
        """What is wrong is at its end, and what stays unknown is said once."""
        alert = Alert("Failing", "firing", "page", "errors", SINCE, None)
        look = looked(replica(), replica("w", ready=False), rates=rates("a"), alerts=(alert,), notes=("why",))
        line = "10:00:30  local  a 1/2 ready  requests/s 10  errors/s 0  p95 95 ms  ! firing: Failing errors"
        assert (line_of(look), line_of(look, look)) == (f"{line}  ! why", line)
        assert line_of(Look(NOW, NOW, status())) == "10:00:30  local  no replica"


class TestDocument:
    def test_is_that_of_status_with_what_was_seen(self) -> None:
        """JSON has milliseconds, and null for what is not known."""
        document = looked(replica(), rates=rates("a", errors=1.0), alerts=()).document()
        figures = {"requests": 11.0, "synthetic": 1.0, "errors": 1.0, "p95_ms": 95.0}
        assert json.loads(json.dumps(document)) == {
            **status(replica()),
            "at": "2026-11-28T10:00:30+00:00",
            "seen": "2026-11-28T10:00:30+00:00",
            "away": None,
            "traffic": {**figures, "seconds": 10},
            "by_release": {"a": figures},
            "alerts": [],
            "notes": [],
        }
        unknown = looked(replica()).document()
        assert [unknown[key] for key in ("traffic", "by_release", "alerts")] == [None, None, None]


class Prometheus:
    """One that is played: it counts one release, unless it is `empty`, and has an alert, unless it is `mute`."""

    def __init__(self) -> None:
        self.down, self.empty, self.mute, self.asked = False, False, False, list[str]()

    def __call__(self, _: str, path: str, *__: object) -> Answer:
        self.asked.append(path)
        if self.down or (self.mute and "alerts" in path):
            return 502, {}, b""
        if path == "/api/v1/alerts":
            found: dict[str, Any] = {"alerts": [{"labels": {"alertname": "Failing"}, "state": "firing"}]}
        else:
            series = {"metric": {"release": "a", "status": "200", "le": "0.1"}, "value": [0, "5"]}
            found = {"result": [] if self.empty else [series]}
        return 200, {}, json.dumps({"status": "success", "data": found}).encode()


def of(env: Environment, **update: Any) -> Environment:
    return env.model_copy(update=update)


class TestWatcher:
    def test_raises_what_is_wrong_at_first_and_survives_it_later(self) -> None:
        """A wrong context stays wrong; an engine may be away for a moment, in which the last look is shown."""
        gone = (SlipwayError("docker: gone\nmore"), OSError(2, "no"))
        answers: list[Any] = [UsageError("wrong"), status(replica()), *gone, status()]

        def ask() -> dict[str, Any]:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, dict)
            return answer

        watcher = Watcher(LOCAL, ask, {})
        with pytest.raises(UsageError):
            watcher.look()
        looks = [watcher.look() for _ in range(4)]
        assert [one.away for one in looks] == [None, "docker: gone", "[Errno 2] no", None]
        assert [len(one.status["replicas"]) for one in looks] == [1, 1, 1, 0]
        assert looks[0].seen == looks[1].seen == looks[2].seen < looks[1].at

    def test_reads_the_replicas_of_this_machine_themselves(self) -> None:
        """What they count between two looks; one that is ready and does not answer is named, a draining one is not."""
        count = iter(range(1, 1000, 40))
        gone = f"http://127.0.0.1:{free_port()}/metrics"
        with serving(lambda *_: (200, {}, page(next(count)).encode())) as port:
            one = replica(metrics=f"http://127.0.0.1:{port}/metrics")
            away = (replica("gone", metrics=gone), replica("draining", metrics=f"{gone}2", ready=False))
            watcher = Watcher(LOCAL, lambda: status(one, *away), {})
            first, second = watcher.look(), watcher.look()
        assert (first.rates, second.source) == (None, "the replicas' /metrics")
        assert second.rates
        assert second.rates.traffic("a").requests > 0
        wanted = "for alerts, name a Prometheus: `prometheus` in [tool.slipway.environments.local] of pyproject.toml"
        assert second.notes == (wanted, "gone: no answer of its /metrics")

    @pytest.mark.parametrize(
        ("env", "note"),
        [
            (
                ComposeEnvironment(name="one", url="http://x"),
                "for traffic and alerts, name a Prometheus: `prometheus` in",
            ),
            (CLUSTER, "for traffic and alerts, name a Prometheus: `prometheus` in [tool.slipway.environments.prod]"),
            (of(CLUSTER, prometheus="http://prometheus:9090"), "http://prometheus:9090 is an address of the cluster"),
        ],
    )
    def test_shows_replicas_alone_where_nobody_can_be_asked(self, env: Environment, note: str) -> None:
        """And says in a line how to get more."""
        look = Watcher(env, lambda: status(replica(metrics="http://a:9090/metrics (in the cluster)")), {}).look()
        assert (look.rates, look.alerts, len(look.notes)) == (None, None, 1)
        assert note in look.notes[0]

    @pytest.mark.parametrize("env", [LOCAL, ComposeEnvironment(name="one", url="http://x"), CLUSTER])
    def test_asks_the_prometheus_of_the_environment(self, env: Environment) -> None:
        """On a cluster, one that a forwarded port leads to, and for its namespace; it may be away for a moment."""
        played = Prometheus()
        with serving(played) as port:
            address = f"http://127.0.0.1:{port}"
            watcher = Watcher(of(env, prometheus=address), lambda: status(replica()), {})
            seen = watcher.look()
            played.mute = True
            mute = watcher.look()
            played.down = True
            away = watcher.look()
            played.mute, played.down, played.empty = False, False, True
            empty = watcher.look()
        assert (seen.source, seen.notes, [one.name for one in seen.alerts or ()]) == ("Prometheus", (), ["Failing"])
        assert seen.rates
        assert seen.rates.traffic().requests == 5.0
        assert ("shop" in played.asked[0]) == (env is CLUSTER)
        assert (mute.rates, mute.alerts, mute.notes) == (seen.rates, None, away.notes)
        assert (away.rates, away.alerts, away.notes) == (None, None, (f"prometheus: {address} answers 502",))
        assert (empty.rates, len(empty.alerts or ())) == (None, 1)
        assert empty.notes == (f"{address} knows no requests of this service in the last minutes",)

    def test_keeps_warnings_for_the_screen(self) -> None:
        """Each once, and each look its own."""

        def ask() -> dict[str, Any]:
            logging.getLogger("pipeline.targets").warning("odd")
            logging.getLogger("pipeline.targets").info("$ docker ps")
            return status(replica(metrics=None))

        watcher = Watcher(of(LOCAL, prometheus="https://127.0.0.1:9"), ask, {"PROMETHEUS_TOKEN": "sécret"})
        with watcher.warnings.alone(), logged():
            looks = [watcher.look(), watcher.look()]
        assert [one.notes[1:] for one in looks] == [("odd",), ("odd",)]
        assert looks[0].notes[0].startswith("PROMETHEUS_TOKEN: ")


def stop_after(count: int) -> Callable[[float], None]:
    """Return a pause that is one, and the `count`th Ctrl-C."""
    left = iter(range(count - 1))

    def pause(_: float) -> None:
        if next(left, None) is None:
            raise Interrupted("stopped by SIGINT")

    return pause


class TestWatch:
    def test_prints_a_line_now_and_then_where_nothing_can_be_redrawn(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Until Ctrl-C; what is unknown is said once."""
        monkeypatch.setattr("time.sleep", stop_after(3))
        with pytest.raises(Interrupted):
            watch(Watcher(LOCAL, lambda: status(replica()), {}))
        lines = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]
        assert lines[1:] == ["local  a 1/1 ready"] * 2
        assert lines[0].startswith("local  a 1/1 ready  ! for alerts, name a Prometheus")

    def test_prints_a_document_a_line(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As `nox -s logs -- --follow --json` does."""
        monkeypatch.setattr("time.sleep", stop_after(2))
        with pytest.raises(Interrupted):
            watch(Watcher(LOCAL, lambda: status(replica()), {}), as_json=True)
        first, second = map(json.loads, capsys.readouterr().out.splitlines())
        assert (first["replicas"], second["away"]) == ([replica()], None)


class Terminal:
    """A terminal of so many columns with `nox -s status -- local --watch` in it."""

    def __init__(self, root: Path, columns: int) -> None:
        self.screen, inside = pty.openpty()
        self.resize(columns)
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "", "LINES": ""}
        command = [sys.executable, "-m", "pipeline", "status", "local", "--watch"]
        self.process = subprocess.Popen(command, cwd=root, env=environ, stdin=inside, stdout=inside, stderr=inside)
        os.close(inside)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))

    def read_until(self, *patterns: str) -> str:
        """Read on until what is new has each of `patterns`; return it, without colours."""
        new, deadline = b"", time.monotonic() + 30
        while True:
            text = re.sub(r"\x1b\[[0-9;]*m", "", new.decode(errors="replace"))
            if all(re.search(pattern, text) for pattern in patterns):
                return text
            assert time.monotonic() < deadline, text
            if select.select([self.screen], [], [], 0.1)[0]:
                new += os.read(self.screen, 65536)


def test_draws_on_a_terminal_until_ctrl_c(tmp_path: Path) -> None:
    """A window of another size is filled in a moment; the last screen stays, and the exit code is 130."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\n[tool.slipway.environments.local]\ntarget = "local"\nurl = "http://localhost:1"\n'
    )
    (tmp_path / "backend").mkdir()
    terminal = Terminal(tmp_path, 100)
    try:
        terminal.read_until(
            r"\x1b\[\?1049h", r"for alerts, name a Prometheus: `prometheus` in \[tool\S+ of pyproject.toml"
        )
        terminal.resize(60)
        terminal.read_until(r"for alerts, name a Prometheus: `prometheus` in +\s+\[tool")
        terminal.process.send_signal(signal.SIGINT)
        last = terminal.read_until(r"\x1b\[\?1049l", "stopped by SIGINT")
        assert terminal.process.wait(10) == 130
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.screen)
    assert "nothing deployed yet" in last.partition("\x1b[?1049l")[2]
