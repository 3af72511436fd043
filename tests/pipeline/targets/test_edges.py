"""The one Caddyfile is the edge of two targets, and what their code counts on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.targets.common.edge import HEALTH_FAILS, HEALTH_INTERVAL_SECONDS, HEALTH_URI, REPLICA_HEADER, SYNTHETIC
from tests.edge import CADDY, CADDYFILE, adapted, handlers


@pytest.fixture
def compose(tmp_path: Path) -> dict[str, Any]:
    """The edge of Compose, with two slots."""
    return adapted(tmp_path, EDGE_UPSTREAMS="unix//run/a unix//run/b", FRONTEND_PORT="3456")


class TestCaddyfile:
    def test_is_formatted(self, tmp_path: Path) -> None:
        """As `caddy fmt` would write it."""
        given = {"HOME": str(tmp_path)}
        done = subprocess.run([CADDY, "fmt", CADDYFILE], check=True, capture_output=True, text=True, env=given)
        assert done.stdout == CADDYFILE.read_text()

    def test_hides_no_failure(self, compose: dict[str, Any]) -> None:
        """No retries, and no reuse of a connection to a replica: a request reaches one replica once."""
        [proxy] = handlers(compose, "reverse_proxy")
        assert proxy["load_balancing"] == {"selection_policy": {"policy": "round_robin"}}
        assert proxy["transport"]["keep_alive"] == {"enabled": False}

    def test_checks_replicas_as_a_deploy_expects(self, compose: dict[str, Any]) -> None:
        """`settle` waits for as long as these checks take; one that is slow has longer."""
        [proxy] = handlers(compose, "reverse_proxy")
        checks = proxy["health_checks"]["active"]
        assert (checks["uri"], checks["fails"]) == (HEALTH_URI, HEALTH_FAILS)
        assert checks["interval"] == HEALTH_INTERVAL_SECONDS * 10**9
        assert checks["timeout"] >= 5 * 10**9

    def test_names_the_replica_to_a_deploy_alone(self, compose: dict[str, Any]) -> None:
        """In one header, where a request carries another."""
        routes = [route for handler in handlers(compose, "subroute") for route in handler["routes"]]
        [route] = [route for route in routes if "header" in str(route.get("match"))]
        assert route["match"] == [{"header": {SYNTHETIC: ["true"]}}]
        assert list(route["handle"][0]["response"]["set"]) == [REPLICA_HEADER]


class TestCompose:
    def test_has_a_slot_for_each_upstream(self, compose: dict[str, Any]) -> None:
        """EDGE_UPSTREAMS names them, with spaces between."""
        [proxy] = handlers(compose, "reverse_proxy")
        assert proxy["upstreams"] == [{"dial": "unix//run/a"}, {"dial": "unix//run/b"}]

    def test_listens_where_it_is_told(self, compose: dict[str, Any]) -> None:
        """FRONTEND_PORT, on every address of its container."""
        [server] = compose["apps"]["http"]["servers"].values()
        assert server["listen"] == [":3456"]

    def test_counts_on_a_listener_of_its_own(self, tmp_path: Path) -> None:
        """As docker-compose.yml asks for it; what the rules select by is the handler of the page and of the service."""
        text = (CADDYFILE.parents[2] / "docker-compose.yml").read_text(encoding="utf-8")
        given = yaml.safe_load(text)["services"]["frontend"]["environment"]
        config = adapted(tmp_path, **{name: given[name] for name in ("EDGE_COUNTS", "EDGE_METRICS")})
        assert config["admin"]["disabled"] is True
        assert config["apps"]["http"]["metrics"] == {}
        served, counted = config["apps"]["http"]["servers"].values()
        assert counted["listen"] == [":9091"]
        assert [[one["handler"] for one in route["handle"]] for route in counted["routes"]] == [["metrics"]]
        assert {one["handler"] for route in served["routes"] for one in route["handle"]} == {"subroute"}

    def test_cannot_be_changed_while_it_runs(self, compose: dict[str, Any]) -> None:
        """No API of its own listens, and nothing is written to the disk: the root may be read-only."""
        assert compose["admin"] == {"disabled": True, "config": {"persist": False}}
        assert compose["apps"]["tls"] == {"disable_storage_check": True, "disable_storage_clean": True}
