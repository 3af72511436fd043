"""The two edges, Compose's Caddyfile and the local target's configuration, make the same promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.embedded import find_engines
from pipeline.targets.common.edge import REPLICA_HEADER, SYNTHETIC
from pipeline.targets.local.edge import edge_config

CADDYFILE = Path(__file__).parents[3] / "docker" / "edge" / "Caddyfile"
NANOSECONDS = {"ms": 10**6, "s": 10**9}


def caddy(home: Path, verb: str, **environ: str) -> str:
    """What Caddy's VERB says of the Caddyfile."""
    command = [str(find_engines().caddy), verb, "--config", str(CADDYFILE), "--adapter", "caddyfile"]
    given = {"HOME": str(home), "PATH": os.environ["PATH"], **environ}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=given).stdout


@pytest.fixture
def compose(tmp_path: Path) -> dict[str, Any]:
    """The Caddyfile as Caddy understands it, with two slots."""
    config: dict[str, Any] = json.loads(caddy(tmp_path, "adapt", EDGE_UPSTREAMS="backend:8000 slot-1:8000"))
    return config


@pytest.fixture
def local() -> dict[str, Any]:
    """The local target's configuration, with two slots."""
    return edge_config(Path("/run"), 2, 8080, ["127.0.0.1"], Path("/srv"))


def routes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every route, however deep."""
    (server,) = config["apps"]["http"]["servers"].values()
    waiting = list(server["routes"])
    while waiting:
        route = waiting.pop(0)
        waiting[:0] = [below for handler in route["handle"] for below in handler.get("routes", ())]
        yield route


def handler(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The only handler of that name, with durations in nanoseconds, and without what merely says a default."""
    (found,) = [one for route in routes(config) for one in route["handle"] if one["handler"] == name]
    return {key: plain(value) for key, value in found.items() if key != "hide"}


def plain(value: Any) -> Any:
    """VALUE with durations as numbers; Caddy leaves out a number that is its default, 0."""
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items() if (key, below) != ("retries", 0)}
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)(ms|s)", value)):
        return int(found[1]) * NANOSECONDS[found[2]]
    return value


def headers(config: dict[str, Any], *, deferred: bool) -> dict[str, Any]:
    """The headers that are set, those of the proxy's answers where DEFERRED."""
    (found,) = [
        one["response"]["set"]
        for route in routes(config)
        for one in route["handle"]
        if one["handler"] == "headers" and one["response"].get("deferred", False) == deferred
    ]
    return dict(found)


class TestCaddyfile:
    def test_is_valid_for_caddy(self, tmp_path: Path) -> None:
        """Caddy accepts it as it is, without a variable."""
        caddy(tmp_path, "validate")

    def test_is_formatted(self, tmp_path: Path) -> None:
        """As `caddy fmt` would write it."""
        command = [str(find_engines().caddy), "fmt", str(CADDYFILE)]
        text = subprocess.run(command, check=True, capture_output=True, text=True, env={"HOME": str(tmp_path)}).stdout
        assert text == CADDYFILE.read_text()

    def test_has_a_slot_for_each_upstream(self, compose: dict[str, Any]) -> None:
        """EDGE_UPSTREAMS names them, with spaces between."""
        upstreams = handler(compose, "reverse_proxy")["upstreams"]
        assert upstreams == [{"dial": "backend:8000"}, {"dial": "slot-1:8000"}]

    def test_listens_where_it_is_told(self, tmp_path: Path) -> None:
        """FRONTEND_PORT, on every address of its container."""
        (server,) = json.loads(caddy(tmp_path, "adapt", FRONTEND_PORT="3456"))["apps"]["http"]["servers"].values()
        assert server["listen"] == [":3456"]

    def test_cannot_be_changed_while_it_runs(self, compose: dict[str, Any]) -> None:
        """No API of its own listens, and nothing is written to the disk: the root may be read-only."""
        assert compose["admin"] == {"disabled": True, "config": {"persist": False}}
        assert compose["apps"]["tls"] == {"disable_storage_check": True, "disable_storage_clean": True}


class TestBothEdges:
    def test_treat_replicas_alike(self, compose: dict[str, Any], local: dict[str, Any]) -> None:
        """Health checks, turns, time-outs, no retries, no connection used twice, sockets that end late."""
        one, other = handler(compose, "reverse_proxy"), handler(local, "reverse_proxy")
        assert one.keys() == other.keys()
        assert {**one, "upstreams": []} == {**other, "upstreams": []}
        assert one["transport"]["keep_alive"] == {"enabled": False}
        assert "retries" not in one["load_balancing"]
        assert "try_duration" not in one["load_balancing"]

    def test_serve_the_page_alike(self, compose: dict[str, Any], local: dict[str, Any]) -> None:
        """The same files under the same headers, compressed the same way, for the same requests."""
        assert headers(compose, deferred=False) == headers(local, deferred=False)
        assert handler(compose, "encode") == handler(local, "encode")
        assert handler(compose, "file_server") == handler(local, "file_server")
        one, other = ([route["match"] for route in routes(config) if "file" in str(route.get("match"))]
                      for config in (compose, local))  # fmt: skip
        assert one == other

    def test_name_the_replica_to_a_deploy_alone(self, compose: dict[str, Any], local: dict[str, Any]) -> None:
        """In one header, where a request carries another."""
        for config in (compose, local):
            assert list(headers(config, deferred=True)) == [REPLICA_HEADER]
            (match,) = [route["match"] for route in routes(config) if "header" in str(route.get("match"))]
            assert match == [{"header": {SYNTHETIC: ["true"]}}]

    def test_end_alike(self, compose: dict[str, Any], local: dict[str, Any]) -> None:
        """What is in flight gets the same time, and neither speaks TLS."""
        one, other = compose["apps"]["http"], local["apps"]["http"]
        assert plain(one["grace_period"]) == plain(other["grace_period"])
        for http in (one, other):
            assert [server["automatic_https"] for server in http["servers"].values()] == [{"disable": True}]
