"""The compose project: command lines, and what is read of containers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.project import ComposeEnvironment
from pipeline.config.settings import grace_seconds, service_secrets, settings_environment, variables
from pipeline.engines.docker import Docker
from pipeline.targets.common.container import Container
from pipeline.targets.compose.artifacts import Artifacts
from pipeline.targets.compose.replicas import PLAIN_SOCKET, slot_of, slot_path
from pipeline.targets.compose.stack import Stack, config_fingerprint, project_name_problem
from pipeline.targets.compose.variables import Variables
from tests.project import PROJECT


def facts(**state: Any) -> dict[str, Any]:
    """What `docker inspect` says of a replica that runs, with STATE."""
    running = {"Status": "running", "Running": True, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00Z"}
    labels = {"com.docker.compose.service": "backend", "com.docker.compose.project.working_dir": "/srv/shop"}
    return {
        "Id": "f00d", "Name": "/shop-backend-7", "Image": "sha256:1", "RestartCount": 0,
        "State": {**running, "Health": {"Status": "healthy", "Log": [{"Output": "503 old\n"}, {"Output": "200 new\n"}]},
                  **state},
        "Config": {"Labels": {**labels, "slipway.slot": "2"}},
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
        "NetworkSettings": {
            "Ports": {"8000/tcp": None, "3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
            "Networks": {"shop_backend": {"Aliases": None}, "shop_frontend": {"Aliases": ["slot-2"]}},
        },
    }  # fmt: skip


class TestContainer:
    def test_is_read_from_inspect(self) -> None:
        """Name, place, what its last health check said, its networks and the ports of the host that lead to it."""
        one = Container.of(facts())
        assert (one.name, one.service, one.folder) == ("shop-backend-7", "backend", "/srv/shop")
        assert (one.health, one.said, one.ready) == ("healthy", "200 new", True)
        assert one.networks == {"shop_backend": [], "shop_frontend": ["slot-2"]}
        assert one.published == {8080: {"127.0.0.1"}}
        assert slot_of(one) == 2

    @pytest.mark.parametrize(
        "state",
        [
            {"Running": False, "Status": "exited"},
            {"Restarting": True, "Status": "restarting"},
            {"Health": {"Status": "unhealthy"}},
            {"Health": {"Status": "starting"}},
        ],
    )
    def test_is_ready_only_when_it_runs_and_says_so(self, state: dict[str, Any]) -> None:
        """One between two restarts does not run, whatever Docker calls it."""
        assert not Container.of(facts(**state)).ready

    def test_what_was_told_to_end_is_not_ready(self) -> None:
        """Docker's health check lags by seconds; a restart policy that was taken away says it at once."""
        told = {**facts(), "HostConfig": {"RestartPolicy": {"Name": "no"}}}
        assert not Container.of(told).ready

    def test_without_a_health_check_it_is_ready_when_it_runs(self) -> None:
        """Another image may bring none."""
        assert Container.of(facts(Health=None)).ready


class TestSlots:
    @pytest.mark.parametrize("slot", ["", "none"])
    def test_a_replica_of_a_plain_up_has_none(self, slot: str) -> None:
        """Its label is there, and empty."""
        one = dataclasses.replace(Container.of(facts()), labels={"slipway.slot": slot})
        assert slot_of(one) is None

    def test_are_paths_in_the_volume_of_the_edge(self) -> None:
        """Those that docker-compose.yml tells the edge; what a plain `up` starts listens at the first."""
        text = (Path(__file__).parents[4] / "docker-compose.yml").read_text()
        assert f"unix/{PLAIN_SOCKET} unix/{slot_path(1)} unix/{slot_path(2)}" in text
        assert f"BACKEND_SOCKET:-{PLAIN_SOCKET}" in text


class TestStack:
    def test_a_command_names_project_and_files(self, tmp_path: Path) -> None:
        """So that neither COMPOSE_FILE nor an override changes what a deploy does."""
        stack = Stack(tmp_path, "shop", Docker(tmp_path))
        assert stack.command("up", "backend") == [
            "compose", "--project-name", "shop", "--file", "docker-compose.yml",
            "--file", "docker/compose.monitoring.yml", "--file", "docker/compose.rollout.yml",
            "up", "backend"]  # fmt: skip
        assert stack.network("frontend") == "shop_frontend"


class TestSettingsEnvironment:
    def test_says_every_plain_setting(self) -> None:
        """What a release does not say is the default, and not what `.env` has now: a rollback brings all back."""
        environment = settings_environment({"LOG_LEVEL": "WARNING"})
        assert environment["LOG_LEVEL"] == "WARNING"
        assert environment["DRAIN_SECONDS"] == "2.0"
        assert set(environment) == {one.name for one in variables() if not one.secret}

    def test_says_no_secret(self) -> None:
        """Those are files."""
        assert not {one.name for one in variables() if one.secret} & set(settings_environment({"SERVICE_TOKEN": "x"}))


class TestVariables:
    def test_say_how_long_a_replica_may_take_to_leave(self, tmp_path: Path) -> None:
        """The engine waits as long, whoever stops it."""
        docker = Docker(tmp_path)
        stack, env = Stack(tmp_path, "shop", docker), PROJECT.environment("compose")
        assert isinstance(env, ComposeEnvironment)
        artifacts = Artifacts(PROJECT, tmp_path, docker, "shop")
        values = {"DRAIN_SECONDS": "60", "REQUEST_TIMEOUT_SECONDS": "45"}
        said = Variables(PROJECT, env, values, stack, artifacts, frontend="edge").environment(None)
        assert said["SLIPWAY_GRACE"] == f"{grace_seconds(values)}s" == "115s"

    @pytest.mark.parametrize("name", ["POSTGRES_IMAGE", "REDIS_IMAGE"])
    def test_say_the_images_of_the_stores_whatever_the_shell_says(self, name: str, tmp_path: Path) -> None:
        """As `.env` has them; empty, which is what docker-compose.yml says, where it has none."""
        docker = Docker(tmp_path)
        stack, env = Stack(tmp_path, "shop", docker), PROJECT.environment("compose")
        assert isinstance(env, ComposeEnvironment)
        artifacts = Artifacts(PROJECT, tmp_path, docker, "shop")
        for values, image in (({name: "mirror.example.org/store:1"}, "mirror.example.org/store:1"), ({}, "")):
            said = Variables(PROJECT, env, values, stack, artifacts, frontend="edge")
            assert said.environment(None)[name] == image
            assert name not in said.config()

    def test_say_the_port_that_the_address_of_the_environment_names(self, tmp_path: Path) -> None:
        """So that `compose` serves beside `local`, whose EDGE_PORT is in `.env`; without one, they share that."""
        docker, values = Docker(tmp_path), {"EDGE_PORT": "9090"}
        stack, shipped = Stack(tmp_path, "shop", docker), PROJECT.environment("compose")
        artifacts = Artifacts(PROJECT, tmp_path, docker, "shop")
        for url, port in (("http://localhost:8081", "8081"), ("http://localhost:{EDGE_PORT}", "9090")):
            env = shipped.model_copy(update={"url": url})
            assert isinstance(env, ComposeEnvironment)
            assert (
                Variables(PROJECT, env, values, stack, artifacts, frontend="x").environment(None)["EDGE_PORT"] == port
            )


class TestProjectNameProblem:
    @pytest.mark.parametrize("name", ["Slipway", "my shop", "-shop", "", "shop.de", "café"])
    def test_names_what_compose_would_refuse(self, name: str) -> None:
        """With an example of a good one."""
        problem = project_name_problem(name)
        assert problem is not None
        assert "PROJECT_NAME" in problem

    @pytest.mark.parametrize("name", ["slipway", "shop-2_b", "0"])
    def test_lets_good_ones_pass(self, name: str) -> None:
        """Lower case, digits, - and _."""
        assert project_name_problem(name) is None


SECRETS = {"POSTGRES_PASSWORD": "canary-of-postgres", "REDIS_PASSWORD": "canary-of-redis", "SERVICE_TOKEN": "a token"}


class TestFingerprint:
    def test_changes_with_the_definition_and_each_secret(self) -> None:
        """So that a changed setting, limit or secret makes another replica; and what is no secret of it does not."""
        first = config_fingerprint("abc", SECRETS)
        others = {
            config_fingerprint("abd", SECRETS),
            *(config_fingerprint("abc", {**SECRETS, one.name: "x"}) for one in service_secrets()),
        }
        assert first not in others
        assert len(others) == 1 + len(service_secrets())
        assert config_fingerprint("abc", {**SECRETS, "SOMETHING": "else"}) == first

    def test_tells_nothing_of_a_secret(self) -> None:
        """It is a label, which everybody may read who may ask Docker."""
        assert "canary" not in config_fingerprint("abc", SECRETS)
