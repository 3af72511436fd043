"""What is tried of PostgreSQL, Redis and the edge beside a project that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.targets.compose.surroundings import throwaway_config


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> dict[str, Any]:
    """What `docker compose config` says of a store with data, configuration, a port and a secret."""
    (tmp_path / "redis.conf").touch()
    (tmp_path / "data").mkdir()
    service = {
        "image": "redis:8",
        "command": ["redis-server", "--appendonly", "yes"],
        "ports": [{"target": 6379, "published": "6379"}],
        "container_name": "the-cache",
        "depends_on": {"migrate": {"condition": "service_completed_successfully"}},
        "labels": {"slipway.password": "0123"},
        "networks": {"backend": None},
        "restart": "unless-stopped",
        "secrets": [{"source": "REDIS_ACL"}],
        "healthcheck": {"test": ["CMD", "redis-cli", "ping"]},
        "volumes": [
            {"type": "volume", "source": "redis", "target": "/data", "volume": {}},
            {"type": "bind", "source": str(tmp_path / "data"), "target": "/more", "bind": {}},
            {"type": "bind", "source": str(tmp_path / "redis.conf"), "target": "/redis.conf", "bind": {}},
            {"type": "bind", "source": str(tmp_path), "target": "/scripts", "read_only": True, "bind": {}},
            {"type": "tmpfs", "target": "/tmp"},
        ],
    }
    return {
        "name": "shop",
        "services": {"redis": service, "backend": {"image": "x"}},
        "volumes": {"redis": {"name": "shop_redis"}},
        "networks": {"backend": {"name": "shop_backend"}},
        "secrets": {"REDIS_ACL": {"file": "/secrets/REDIS_ACL"}},
    }


class TestThrowawayConfig:
    def test_keeps_what_can_be_wrong(self, config: dict[str, Any]) -> None:
        """Image, arguments, secrets, the health check."""
        tried, given = throwaway_config(config, "shop", ["redis"]), config["services"]["redis"]
        [service] = tried["services"].values()
        for key in ("image", "command", "secrets", "healthcheck"):
            assert service[key] == given[key]
        assert tried["secrets"] == config["secrets"]

    def test_mounts_no_data(self, config: dict[str, Any], tmp_path: Path) -> None:
        """A second PostgreSQL on the same files would destroy them; files of configuration cannot be written."""
        volumes = throwaway_config(config, "shop", ["redis"])["services"]["redis"]["volumes"]
        assert volumes[:2] == [{"type": "volume", "target": "/data"}, {"type": "volume", "target": "/more"}]
        binds = [(one["source"], one["read_only"]) for one in volumes if one["type"] == "bind"]
        assert binds == [(str(tmp_path / "redis.conf"), True), (str(tmp_path), True)]
        assert volumes[-1]["type"] == "tmpfs"

    def test_touches_nothing_that_serves(self, config: dict[str, Any]) -> None:
        """Another project, a network of its own, no port, no name; and what is left of it is found again."""
        tried = throwaway_config(config, "shop", ["redis"])
        service, network = tried["services"]["redis"], tried["networks"]["default"]
        assert (tried["name"], service["networks"]) == ("shop-try", {"default": None})
        assert not service.keys() & {"ports", "container_name", "depends_on"}
        assert service["restart"] == "no"  # one that ends is seen to end
        assert service["labels"] == {"slipway.password": "0123", "slipway.throwaway": "shop"}
        assert network == {"labels": {"slipway.throwaway": "shop"}, "internal": True}
        assert config["services"]["redis"]["ports"]
