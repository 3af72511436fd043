"""docker-compose.yml as compose itself understands it: what holds for each service, and for those around it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.derived import SET_BY
from pipeline.config.managed import FILES as STORES_OF_OTHERS
from pipeline.config.managed import MIGRATORS
from pipeline.config.settings import OWNER_PASSWORD, PLACED, backup_variables, service_secrets, variables
from pipeline.engines.docker import Docker
from pipeline.targets.compose.stack import FILES, Stack, passed_secrets
from tests.project import copied
from tests.tools import missing

ROOT = Path(__file__).parents[4]
GIVEN = {"POSTGRES_DB": "board", "POSTGRES_USER": "board"}
# Beside the settings: what a deploy says, and images that one may want from elsewhere.
OWN = {"BACKEND_IMAGE", "BACKUP_IMAGE", "MIGRATE_IMAGE", "FRONTEND_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE",
       "EDGE_TRUSTED_PROXIES", "EDGE_UPSTREAMS", "POSTGRES_MAX_CONNECTIONS",
       "SLIPWAY_BACKUP", "SLIPWAY_CONFIG", "SLIPWAY_GRACE", "SLIPWAY_MIGRATE_NETWORK", "SLIPWAY_OWNER",
       "SLIPWAY_PROFILE_POSTGRES", "SLIPWAY_PROFILE_REDIS",
       "SLIPWAY_SECRETS", "SLIPWAY_SLOT", "SLIPWAY_STATE", "SLIPWAY_TOKEN",
      }  # fmt: skip
WATCHES = ("prometheus", "alertmanager", "grafana", "deploys", "postgres-exporter", "redis-exporter", "collector",
           "logs", "traces")  # fmt: skip
SERVICES = ("frontend", "backend", "migrate", "backup", "postgres", "redis", "debug")


def compose(*files: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config` on FILES with no `.env` and no variables but ENVIRON; it asks no engine."""
    version = ["docker", "compose", "version"]
    if not shutil.which("docker") or subprocess.run(version, capture_output=True, check=False).returncode:
        missing("docker compose is not installed")
    given = [word for name in files for word in ("--file", str(ROOT / name))]
    command = ["docker", "compose", "--env-file", "/dev/null", *given, "--profile", "*", "config", "--format", "json"]
    outer = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(command, env={**outer, **environ}, capture_output=True, text=True, check=False, timeout=30)


def read(*files: str, **environ: str) -> dict[str, Any]:
    """The project as JSON; compose must have nothing to say against it."""
    done = compose(*files, **{**GIVEN, "SLIPWAY_SECRETS": "/secrets", **environ})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    project: dict[str, Any] = json.loads(done.stdout)
    return project


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The file alone, as `docker compose up` takes it, with the services of every profile."""
    return read("docker-compose.yml")


@pytest.fixture(scope="module")
def watched() -> dict[str, Any]:
    """The files of a deploy, with what watches the service."""
    return read(*FILES)


class TestEachService:
    @pytest.mark.parametrize("name", SERVICES)
    def test_has_no_right_that_it_does_not_need(self, name: str, project: dict[str, Any]) -> None:
        """A read-only root, no capability, no new privileges."""
        service = project["services"][name]
        assert service["read_only"] is True
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert "cap_add" not in service
        assert "privileged" not in service

    @pytest.mark.parametrize("name", SERVICES)
    def test_has_limits_and_logs_that_end(self, name: str, project: dict[str, Any]) -> None:
        """CPU, memory, processes; three files of ten megabytes."""
        service = project["services"][name]
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
        options = service["logging"]["options"]
        assert (options["max-size"], options["max-file"]) == ("10m", "3")

    @pytest.mark.parametrize("name", SERVICES)
    def test_says_whose_output_it_is(self, name: str, project: dict[str, Any]) -> None:
        """To what collects it; but a store's definition stays what it was, as another would end its container."""
        labels = project["services"][name]["logging"]["options"].get("labels", "")
        wanted = "" if name in ("postgres", "redis") else "com.docker.compose.project,com.docker.compose.service"
        assert labels == wanted

    @pytest.mark.parametrize("name", SERVICES)
    def test_comes_back_unless_it_was_stopped(self, name: str, project: dict[str, Any]) -> None:
        """All that serves; what runs once does not."""
        assert project["services"][name]["restart"] == ("no" if name in ("migrate", "debug") else "unless-stopped")

    @pytest.mark.parametrize("name", ["frontend", "backend", "postgres", "redis"])
    def test_reserves_less_than_it_may_have(self, name: str, project: dict[str, Any]) -> None:
        """So that a host that is too small says so before it is too late."""
        resources = project["services"][name]["deploy"]["resources"]
        assert int(resources["reservations"]["memory"]) < int(resources["limits"]["memory"])

    def test_is_told_no_secret(self, project: dict[str, Any]) -> None:
        """Secrets are files; an environment is shown by `docker inspect`."""
        secret = {one.name for one in variables() if one.secret}
        for name, service in project["services"].items():
            assert not secret & set(service.get("environment") or {}), name


class TestSecrets:
    def test_a_replica_has_each(self) -> None:
        """That of a deploy, and that of `docker compose up`."""
        wanted = {one.name for one in service_secrets()}.union(STORES_OF_OTHERS) - MIGRATORS
        for files in (["docker-compose.yml"], FILES):
            mounted = {one["source"] for one in read(*files)["services"]["backend"]["secrets"]}
            assert mounted == wanted

    def test_who_migrates_has_an_address_of_its_own(self, project: dict[str, Any]) -> None:
        """And a password: the service gets neither, as it may not change tables."""
        services = project["services"].items()
        mounted = {name: {one["source"] for one in each.get("secrets") or ()} for name, each in services}
        assert {name for name, secrets in mounted.items() if "MIGRATION_DATABASE_URL" in secrets} == {
            "migrate",
            "backup",
        }
        assert {name for name, secrets in mounted.items() if OWNER_PASSWORD in secrets} == {
            "migrate",
            "backup",
            "rights",
        }
        assert mounted["migrate"] == {"POSTGRES_PASSWORD", *STORES_OF_OTHERS} - {"REDIS_URL"}

    def test_who_makes_backups_can_neither_read_nor_restore_them(self, project: dict[str, Any]) -> None:
        """What decrypts, and the superuser's password, come with a restore."""
        services = project["services"]
        mounted = {one: {each["source"] for each in services[one]["secrets"]} for one in ("migrate", "backup")}
        assert mounted["backup"] == {*mounted["migrate"], "BACKUP_ADDRESS_SECRET"}

    def test_are_passed_as_files_or_as_variables(self, project: dict[str, Any]) -> None:
        """The plan counts either, in a file that a team has changed."""
        backend = project["services"]["backend"]
        assert {one.name for one in service_secrets()} <= passed_secrets(backend)
        assert "CARRIER_KEY" not in passed_secrets(backend)
        for name in ("CARRIER_KEY", "CARRIER_KEY_FILE"):
            assert "CARRIER_KEY" in passed_secrets({**backend, "environment": {name: "x"}})
        other = {"source": "another", "target": "/run/secrets/CARRIER_KEY"}
        assert passed_secrets({"secrets": [other]}) == {"CARRIER_KEY"}


class TestBackups:
    def test_stay_where_the_data_is_removed(self, project: dict[str, Any]) -> None:
        """`down --volumes` leaves an external volume alone; nobody else mounts it."""
        assert project["volumes"]["backups"] == {"name": f"{project['name']}-backups", "external": True}
        users = [
            name
            for name, one in project["services"].items()
            for each in one.get("volumes", ())
            if each["source"] == "backups"
        ]
        assert users == ["backup"]

    def test_are_made_by_the_servers_own_programs(self, project: dict[str, Any]) -> None:
        """One image is named in three places: by the file, by the build, by the Dockerfile."""
        services, image = (
            read("docker-compose.yml", POSTGRES_IMAGE="mirror/postgres:18")["services"],
            "mirror/postgres:18",
        )
        assert (services["backup"]["build"]["args"]["POSTGRES_IMAGE"], services["postgres"]["image"]) == (image, image)
        default = project["services"]["postgres"]["image"]
        assert project["services"]["backup"]["build"]["args"]["POSTGRES_IMAGE"] == default
        assert f"ARG POSTGRES_IMAGE={default}\n" in (ROOT / "docker/Dockerfile.backend").read_text(encoding="utf-8")

    def test_reach_the_data_and_the_world(self, project: dict[str, Any]) -> None:
        """A copy is off the host; nothing starts it but who asks for it."""
        backup = project["services"]["backup"]
        assert (set(backup["networks"]), backup["profiles"]) == ({"backend", "frontend"}, ["backup"])


class TestNetworks:
    def test_only_the_edge_is_open_to_others(self, project: dict[str, Any]) -> None:
        """On loopback until somebody decides otherwise; the debug profile's ports are never anybody else's."""
        published = {name: service.get("ports", []) for name, service in project["services"].items()}
        assert {name for name, ports in published.items() if ports} == {"frontend", "debug"}
        assert project["services"]["debug"]["profiles"] == ["debug"]
        assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}

    def test_a_store_has_no_way_out(self, project: dict[str, Any]) -> None:
        """Neither to the world nor to the host."""
        backend = project["networks"]["backend"]
        assert backend["internal"] is True
        assert backend["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}
        for name in ("postgres", "redis", "migrate"):
            assert set(project["services"][name]["networks"]) == {"backend"}, name
        assert set(project["services"]["frontend"]["networks"]) == {"frontend", "monitoring"}

    def test_who_migrates_a_database_elsewhere_has_a_way_out(self) -> None:
        """A deploy says so; the service has one anyway."""
        services = read(*FILES, SLIPWAY_MIGRATE_NETWORK="frontend")["services"]
        assert set(services["migrate"]["networks"]) == {"frontend"}
        assert set(services["backend"]["networks"]) == {"backend", "frontend"}

    def test_the_edge_reaches_the_service_by_sockets(self, project: dict[str, Any]) -> None:
        """In a volume that nobody else has; no name is looked up, and no data store is in the edge's network."""
        users = {
            name: [volume["target"] for volume in service.get("volumes", []) if volume["source"] == "edge"]
            for name, service in project["services"].items()
        }
        assert {name: targets for name, targets in users.items() if targets} == {
            "backend": ["/run/edge"],
            "frontend": ["/run/edge"],
        }
        upstreams = project["services"]["frontend"]["environment"]["EDGE_UPSTREAMS"].split()
        assert all(one.startswith("unix//run/edge/") for one in upstreams)

    def test_what_serves_goes_before_a_build(self, project: dict[str, Any]) -> None:
        """A container without a word, as those of a build, has 1024 shares."""
        serving = ("frontend", "backend", "postgres", "redis")
        assert {project["services"][name]["cpu_shares"] for name in serving} == {4096}


class TestMonitoring:
    def test_is_asked_for(self, watched: dict[str, Any]) -> None:
        """One profile has them all; nothing of a plain `docker compose up` is in it."""
        services = watched["services"]
        assert {name for name, one in services.items() if "monitoring" in one.get("profiles", ())} == {*WATCHES}

    @pytest.mark.parametrize("name", WATCHES)
    def test_has_no_right_and_has_limits(self, name: str, watched: dict[str, Any]) -> None:
        """Two are root, which is no more than who owns the files of the one and the volume of the other."""
        service = watched["services"][name]
        assert service["read_only"] is True
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert {"cap_add", "privileged"} & service.keys() == set()
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert service["restart"] == "unless-stopped"
        assert (service.get("user") == "0:0") == (name in ("collector", "logs"))

    def test_a_profile_in_the_env_file_changes_nothing_of_the_service(self, tmp_path: Path) -> None:
        """Compose reads that file itself, and a profile that is named switches off PostgreSQL's, which has no name."""
        stack = Stack(copied(tmp_path, "docker"), "shop", Docker(tmp_path))
        (tmp_path / ".env").write_text("COMPOSE_PROFILES=monitoring\nPOSTGRES_DB=board\nPOSTGRES_USER=board\n")
        env = {"SLIPWAY_SECRETS": "/secrets"}
        assert stack.services(env).keys() == {"frontend", "backend", "migrate", "rights", "postgres", "redis"}
        assert stack.definitions(env).keys() == stack.services(env).keys()
        assert {*WATCHES} <= stack.services({**env, "COMPOSE_PROFILES": "monitoring"}).keys()

    def test_opens_its_pages_to_this_host_alone(self, watched: dict[str, Any]) -> None:
        """Only who has one, or tells somebody, is in a network with a way out."""
        services = {name: watched["services"][name] for name in WATCHES}
        assert {port["host_ip"] for one in services.values() for port in one.get("ports", ())} == {"127.0.0.1"}
        with_pages = {"prometheus", "alertmanager", "grafana", "logs", "traces"}
        assert {name for name, one in services.items() if one.get("ports")} == with_pages
        assert {name for name, one in services.items() if "pages" in one["networks"]} == with_pages
        assert watched["networks"]["monitoring"]["internal"] is True

    def test_reaches_replicas_in_one_network(self, watched: dict[str, Any]) -> None:
        """A name that it could look up in two would give it each replica twice."""
        shared = set(watched["services"]["prometheus"]["networks"]) & set(watched["services"]["backend"]["networks"])
        assert shared == {"backend"}

    def test_writes_nothing_that_is_not_its_own(self, watched: dict[str, Any]) -> None:
        """What it reads of the host, and the backups, are mounted read-only."""
        own = {"prometheus", "alertmanager", "grafana", "collector", "logs"}
        for name in WATCHES:
            for mount in watched["services"][name].get("volumes", ()):
                assert mount.get("read_only") is True or mount["source"] in own, (name, mount)


class TestSettings:
    def test_that_are_set_here_are_named_in_the_documents(self) -> None:
        """Each value that no variable of the same name gives; a deploy sets the name of a replica, and its socket."""
        text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
        told = yaml.safe_load(text)["x-settings"]
        fixed = {name for name, value in told.items() if not str(value).startswith(f"${{{name}:-")}
        assert {*SET_BY["compose"]} == fixed | {"RELEASE", "BACKEND_SOCKET"}


class TestVariables:
    def test_are_settings_or_said_by_a_deploy(self) -> None:
        """No name that neither the schema nor this test knows."""
        names = set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
        assert names - {one.name for one in (*variables(), *backup_variables())} <= OWN
        assert {one.name for one in variables() if not one.secret} - PLACED <= names

    def test_without_an_env_file_it_says_what_to_do(self) -> None:
        """One line that names the command."""
        done = compose("docker-compose.yml")
        assert done.returncode != 0
        assert "run nox -s init" in done.stderr

    def test_users_may_come_from_elsewhere_once_that_is_said(self) -> None:
        """EDGE_ADDRESS and EDGE_PORT; the service is told the port, as the default of FRONTEND_URL follows it."""
        services = read("docker-compose.yml", EDGE_ADDRESS="0.0.0.0", EDGE_PORT="80")["services"]
        [port] = services["frontend"]["ports"]
        assert (port["host_ip"], port["published"]) == ("0.0.0.0", "80")
        assert services["backend"]["environment"]["EDGE_PORT"] == "80"


class TestDevelopment:
    def test_reloads_and_is_another_image(self) -> None:
        """It never takes the tag of what ships."""
        services = read("docker-compose.yml", "docker-compose.dev.yml")["services"]
        assert services["backend"]["build"]["target"] == "development"
        for name in ("backend", "frontend"):
            assert services[name]["image"].endswith(":development")
            assert services[name]["develop"]["watch"]
            assert not services[name].get("read_only")
            assert services[name]["user"] == "0", "the engine copies for a user that the host knows"

    def test_is_not_read_unasked(self) -> None:
        """`docker compose up` would take an override of this name without a word."""
        assert not list(ROOT.glob("docker-compose.override.*"))
        assert not list(ROOT.glob("compose.override.*"))
