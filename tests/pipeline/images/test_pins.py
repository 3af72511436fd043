"""Which images of others are named where, and how they are pinned."""

from __future__ import annotations

from pipeline.images.pins import find_pins, pinned
from tests.services import ROOT

DIGEST = f"sha256:{'1' * 64}"


class TestFindPins:
    def test_knows_every_image_of_others(self) -> None:
        """Of the Dockerfiles, compose and the manifests; not what a deploy fills in."""
        found = {(pin.file, pin.name) for pin in find_pins(ROOT)}
        assert found == {
            ("docker/Dockerfile.backend", "python:${PYTHON_VERSION}-slim-trixie"),
            ("docker/Dockerfile.frontend", "caddy:2"),
            ("docker-compose.yml", "postgres:18-trixie"),
            ("docker-compose.yml", "redis:8-trixie"),
            ("k8s/components/postgres/postgres.yaml", "postgres:18-trixie"),
            ("k8s/components/redis/redis.yaml", "redis:8-trixie"),
            ("k8s/cluster/metrics-server.yaml", "registry.k8s.io/metrics-server/metrics-server:v0.9.0"),
            ("k8s/cluster/traefik.yaml", "traefik:v3.7"),
        }


class TestPinned:
    def test_puts_the_digest_behind_the_tag_of_a_manifest(self) -> None:
        """Once, and another time in its place; what has no tag is not touched."""
        text = "      - image: redis:8-trixie # why\n      - image: slipway-backend\n"
        once = pinned(text, {"redis:8-trixie": DIGEST})
        assert once == f"      - image: redis:8-trixie@{DIGEST} # why\n      - image: slipway-backend\n"
        assert pinned(once, {"redis:8-trixie": f"sha256:{'2' * 64}"}) == once.replace("1" * 64, "2" * 64)
