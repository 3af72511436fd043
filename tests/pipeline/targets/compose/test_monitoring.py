"""What watches the service: when it is started, from what, and that nothing wrong with it is more than said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.config.logins import Logins
from pipeline.config.secrets import write_secret_files
from pipeline.errors import SlipwayError
from pipeline.targets.compose import monitoring as module
from pipeline.targets.compose.monitoring import MARK, Monitoring
from pipeline.targets.compose.stack import DEFINITION
from tests.project import copied

ON = {"COMPOSE_PROFILES": "monitoring", "ALERT_WEBHOOK_URL": "https://alerts.example.org"}
NAMES = ("prometheus", "grafana", "postgres-exporter", "redis-exporter")


@dataclass
class Engine:
    """A Compose project with four services of the profile; `there` are its containers by their services."""

    root: Path
    images: set[str] = field(default_factory=lambda: {f"{name}:1" for name in NAMES})
    elsewhere: tuple[str, ...] = ()
    there: dict[str, SimpleNamespace] = field(default_factory=dict)
    fails: dict[str, str] = field(default_factory=dict)  # what starts or is pulled → why it cannot be
    done: list[str] = field(default_factory=list)
    sql: list[str] = field(default_factory=list)
    name: str = "shop"

    def services(self, env: dict[str, str]) -> dict[str, Any]:
        assert env["COMPOSE_PROFILES"] == "monitoring"
        ours = {name: {"image": f"{name}:1", "profiles": ["monitoring"]} for name in NAMES}
        return {**ours, "backend": {"image": "backend:1"}}

    def definitions(self, env: dict[str, str]) -> dict[str, str]:
        return {name: f"{name} {env['SLIPWAY_MONITORING']} {env['PROMETHEUS_PORT']}" for name in self.services(env)}

    def containers(self, *_: str) -> list[SimpleNamespace]:
        return [*self.there.values(), SimpleNamespace(service="backend", labels={}, name="shop-backend-1")]

    def add(self, name: str, definition: str = "", **state: Any) -> None:
        values = {"running": True, "restarts": 0, "health": "healthy", "ident": name, "name": f"shop-{name}-1"}
        labels = {MARK: "", DEFINITION: definition}
        self.there[name] = SimpleNamespace(service=name, labels=labels, **{**values, **state})

    def do(self, *words: str, **options: Any) -> str:
        self.done.append(" ".join(words))
        for name in words:
            if name in self.fails:
                raise SlipwayError(self.fails[name])
        if words[0] == "up":
            for name in [word for word in words if word in NAMES]:
                self.add(name, self.definitions(options["env"])[name])
        if words[:2] == ("pull", "--quiet"):
            self.images.add(words[2])
        if words[0] == "rm":
            del self.there[words[-1]]
        return ""

    def ask(self, *words: str, **_: Any) -> str:
        assert words[0] == "info"
        return "/var/lib/engine\n"

    def image(self, name: str) -> dict[str, str] | None:
        return {"Id": name} if name in self.images else None


@pytest.fixture(name="engine")
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    root = copied(tmp_path, "monitoring", "pipeline/monitoring")
    engine = Engine(root)
    monkeypatch.setattr(module, "superuser_psql", lambda _, database, sql: engine.sql.append(f"{database}: {sql}"))
    monkeypatch.setattr(module, "password_sql", lambda *given: f"{given[3]} {given[4]}")
    monkeypatch.setattr(module, "let_monitor_in", lambda _: engine.sql.append("redis"))
    monkeypatch.setattr(module, "last_words", lambda _, ident: f"the last words of {ident}")
    return engine


def watching(engine: Engine, **values: str) -> Monitoring:
    """Return what watches the service of ENGINE, with VALUES in `.env`."""
    secrets = engine.root / "secrets"
    write_secret_files(secrets, {"REDIS_PASSWORD": "p"})
    variables = SimpleNamespace(
        environment=lambda _: {}, database="board", logins=Logins("board-app-1", "p", "board", "o", apart=True)
    )
    site = SimpleNamespace(
        project=SimpleNamespace(root=engine.root), env=SimpleNamespace(name="compose"), home=engine.root / "home",
        stack=engine, docker=engine, variables=variables, secrets=secrets, values=values,
        backups=SimpleNamespace(make_volume=lambda: None),
    )  # fmt: skip
    return Monitoring(cast("Any", site))


def ups(engine: Engine) -> list[str]:
    """Return what was started, each time."""
    return [line.partition("--no-build ")[2] for line in engine.done if line.startswith("up")]


class TestStart:
    def test_starts_all_of_the_profile(self, engine: Engine) -> None:
        """Once; then nothing is left to do."""
        watched = watching(engine, **ON)
        assert watched.drift() == [f"{name} is missing" for name in NAMES]
        watched.start()
        assert ups(engine) == [" ".join(NAMES)]
        assert watched.drift() == watched.findings() == []

    def test_starts_nothing_that_is_not_asked_for(self, engine: Engine) -> None:
        """And asks the engine for nothing."""
        for profiles in ("", "debug"):
            watched = watching(engine, COMPOSE_PROFILES=profiles)
            watched.start()
            assert watched.drift() == watched.findings() == engine.done == engine.sql == []

    def test_removes_what_nobody_asks_for_any_more(self, engine: Engine) -> None:
        """The data stays, in its volumes."""
        watching(engine, **ON).start()
        off = watching(engine)
        assert off.drift()[0] == "shop-prometheus-1 runs, and .env asks for no monitoring any more"
        off.start()
        assert engine.there == {}

    def test_lets_the_exporters_in(self, engine: Engine) -> None:
        """Each as a login of its own, with a password that stays."""
        for _ in range(2):
            watching(engine, **ON).start()
        password = (engine.root / "secrets/POSTGRES_MONITOR_PASSWORD").read_text()
        assert engine.sql == [f"board: board-monitor {password}", "redis"] * 2

    def test_leaves_the_stores_of_others_alone(self, engine: Engine) -> None:
        """No exporter, no login, and Prometheus finds no target."""
        engine.elsewhere = ("postgres",)
        watched = watching(engine, **ON)
        watched.start()
        assert ups(engine) == ["prometheus grafana redis-exporter"]
        assert engine.sql == ["redis"]
        targets = {
            store: json.loads((engine.root / f"home/metrics/{store}.json").read_text())
            for store in ("postgres", "redis")
        }
        assert targets == {"postgres": [], "redis": [{"targets": ["redis-exporter:9121"]}]}

    @pytest.mark.parametrize(
        "change",
        [
            lambda root: (root / "monitoring/rules/slo.yaml").write_text("groups: []"),
            lambda root: (root / "monitoring/compose/collector.yaml").write_text(""),
            lambda root: (root / "pipeline/monitoring/exporter.py").write_text(""),
            lambda root: (root / "pipeline/monitoring/http_exporter.py").write_text(""),
        ],
    )
    def test_follows_the_files_that_its_containers_read(self, engine: Engine, change: Callable[[Path], Any]) -> None:
        """Of a mounted file the engine does not notice that it is another one."""
        watched = watching(engine, **ON)
        watched.start()
        change(engine.root)
        assert watched.drift()[0].startswith("prometheus no longer matches")

    def test_follows_its_settings(self, engine: Engine) -> None:
        """A port, and who is told."""
        watching(engine, **ON).start()
        for changed in ({"PROMETHEUS_PORT": "9191"}, {"ALERT_WEBHOOK_URL": "https://other.example.org"}):
            assert len(watching(engine, **{**ON, **changed}).drift()) == len(NAMES)


class TestFaults:
    def test_an_image_that_is_not_to_be_had_is_said(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        """All others start."""
        engine.images.discard("grafana:1")
        engine.fails["grafana:1"] = "docker pull: no route to the registry"
        watching(engine, **ON).start()
        assert ups(engine) == ["prometheus postgres-exporter redis-exporter"]
        assert (
            "grafana, which watches the service, is not started: docker pull: no route to the registry" in caplog.text
        )

    def test_no_image_to_be_had_starts_nothing(self, engine: Engine) -> None:
        """`docker compose up` without a name is all of the project: replicas, migrations, backups."""
        engine.images.clear()
        engine.fails |= {f"{name}:1": "docker pull: no route to the registry" for name in NAMES}
        watching(engine, **ON).start()
        assert ups(engine) == []

    def test_an_image_that_is_missing_is_pulled(self, engine: Engine) -> None:
        """Each is asked for alone."""
        engine.images.clear()
        watching(engine, **ON).start()
        assert [line for line in engine.done if line.startswith("pull")] == [f"pull --quiet {name}:1" for name in NAMES]

    def test_a_port_that_is_taken_keeps_nobody_else(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        """Compose gives up at the first one that does not start."""
        engine.fails["prometheus"] = "docker compose up: port 9090 is already allocated"
        watching(engine, **ON).start()
        assert ups(engine) == [" ".join(NAMES), *NAMES]
        assert engine.there.keys() == {*NAMES} - {"prometheus"}
        assert "prometheus, which watches the service, is not started: docker compose up: port 9090" in caplog.text

    def test_a_store_that_does_not_answer_is_said(
        self, engine: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It fails no deploy."""

        def away(*_: object) -> None:
            raise SlipwayError("PostgreSQL does not run")

        monkeypatch.setattr(module, "superuser_psql", away)
        watching(engine, **ON).start()
        assert "what watches the service was not started: PostgreSQL does not run" in caplog.text

    @pytest.mark.parametrize("state", [{"running": False}, {"restarts": 3}, {"health": "unhealthy"}])
    def test_one_that_does_not_run_is_found(self, engine: Engine, state: dict[str, Any]) -> None:
        """With its last words, by `doctor`; and so is one that is gone."""
        watched = watching(engine, **ON)
        watched.start()
        engine.add("grafana", **state)
        del engine.there["prometheus"]
        assert watched.findings() == [
            "prometheus, which watches the service, is missing: `nox -s deploy -- compose` starts it",
            "shop-grafana-1, which watches the service, does not run as it should: the last words of grafana",
        ]


class TestProblems:
    def test_are_none_of_what_is_right(self, engine: Engine) -> None:
        """Nor of nothing at all."""
        assert watching(engine).problems() == watching(engine, **ON).problems() == []

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"COMPOSE_PROFILES": "monitorng"}, "COMPOSE_PROFILES: there is no profile `monitorng`"),
            ({"PROMETHEUS_PORT": "0"}, "PROMETHEUS_PORT: must be a port"),
            ({"GRAFANA_PORT": "many"}, "GRAFANA_PORT: must be a port"),
            ({"ALERT_SLACK_URL": "slack"}, "ALERT_SLACK_URL: must be the address"),
        ],
    )
    def test_name_the_setting(self, engine: Engine, values: dict[str, str], says: str) -> None:
        """Before anything is touched."""
        [line] = watching(engine, **values).problems()
        assert line.startswith(says)

    def test_nobody_who_is_told_is_said(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        """In the plan of each deploy, and by `doctor`; it stops none."""
        watched = watching(engine, COMPOSE_PROFILES="backup, monitoring")
        assert watched.problems() == []
        assert "alerts reach nobody" in caplog.text
        watched.start()
        assert [line.partition(":")[0] for line in watched.findings()] == ["alerts reach nobody"]
