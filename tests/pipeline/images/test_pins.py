"""Which images of others are named where, and how they are pinned."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SlipwayError
from pipeline.images.pins import current_digests, find_pins, pinned, write_pins
from tests.registries import played, push_image, push_index
from tests.services import ROOT

DIGEST = f"sha256:{'1' * 64}"


class TestFindPins:
    def test_knows_every_image_of_others(self) -> None:
        """Of the Dockerfiles, compose and the manifests; not what a deploy fills in."""
        found = {(pin.file, pin.name) for pin in find_pins(ROOT)}
        assert found == {
            ("docker/Dockerfile.backend", "python:${PYTHON_VERSION}-slim-trixie"),
            ("docker/Dockerfile.backend", "postgres:18-trixie"),
            ("docker/Dockerfile.frontend", "caddy:2"),
            ("docker-compose.yml", "postgres:18-trixie"),
            ("docker-compose.yml", "python:${PYTHON_VERSION:-3.13}-slim-trixie"),
            ("docker-compose.yml", "redis:8-trixie"),
            ("docker/compose.monitoring.yml", "grafana/grafana:12.3.0"),
            ("docker/compose.monitoring.yml", "jaegertracing/jaeger:2.13.0"),
            ("docker/compose.monitoring.yml", "oliver006/redis_exporter:v1.69.0"),
            ("docker/compose.monitoring.yml", "otel/opentelemetry-collector-contrib:0.161.0"),
            ("docker/compose.monitoring.yml", "prom/alertmanager:v0.35.0"),
            ("docker/compose.monitoring.yml", "prom/prometheus:v3.16.0"),
            ("docker/compose.monitoring.yml", "python:${PYTHON_VERSION:-3.13}-slim-trixie"),
            ("docker/compose.monitoring.yml", "quay.io/prometheuscommunity/postgres-exporter:v0.17.1"),
            ("docker/compose.monitoring.yml", "victoriametrics/victoria-logs:v1.52.1"),
            ("k8s/components/backup/drill.yaml", "postgres:18-trixie"),
            ("k8s/components/postgres/postgres.yaml", "postgres:18-trixie"),
            ("k8s/components/redis/redis.yaml", "redis:8-trixie"),
            ("k8s/bootstrap/logs/collector.yaml", "otel/opentelemetry-collector-contrib:0.161.0"),
            ("k8s/components/telemetry/exporter.yaml", "python:3.13-slim-trixie"),
            ("k8s/cluster/monitoring/alertmanager.yaml", "prom/alertmanager:v0.35.0"),
            (
                "k8s/cluster/monitoring/kube-state-metrics.yaml",
                "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.20.0",
            ),
            ("k8s/cluster/monitoring/prometheus.yaml", "prom/prometheus:v3.16.0"),
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


class TestCurrentDigests:
    def test_are_those_that_the_registry_has(self, tmp_path: Path) -> None:
        """Of an image and of an index, whatever is pinned by now; variables are filled in."""
        with played(auth="Bearer", public=True) as registry:  # as Docker Hub: anybody gets a token
            name = f"{registry.address}/team/board"
            python = push_image(name, tag="3.13-slim")
            postgres, _ = push_index(name, "amd64", "arm64")
            (tmp_path / "docker").mkdir()
            dockerfile, compose = tmp_path / "docker/Dockerfile.backend", tmp_path / "docker-compose.yml"
            dockerfile.write_text(f"ARG PYTHON_IMAGE={name}:${{PYTHON_VERSION}}-slim\n")
            debug = f"    image: {name}:${{PYTHON_VERSION:-3.12}}-slim\n"
            compose.write_text(f"{debug}    image: ${{POSTGRES_IMAGE:-{name}:latest@{DIGEST}}}\n")
            found = current_digests(tmp_path, {"PYTHON_VERSION": "3.13"})
        assert [(pin.digest, digest) for pin, digest in found] == [(None, python), (None, python), (DIGEST, postgres)]
        assert write_pins(tmp_path, found) == ["docker/Dockerfile.backend", "docker-compose.yml"]
        assert dockerfile.read_text().endswith(f"-slim@{python}\n")
        assert compose.read_text() == debug.replace("\n", f"@{python}\n") + (
            f"    image: ${{POSTGRES_IMAGE:-{name}:latest@{postgres}}}\n"
        )

    def test_are_all_there_or_none(self, tmp_path: Path) -> None:
        """The line says which file names an image that its registry lacks."""
        with played() as registry:
            name = f"{registry.address}/team/board:8"
            (tmp_path / "docker-compose.yml").write_text(f"    image: {name}\n")
            with pytest.raises(SlipwayError, match=f"docker-compose.yml: no registry answered for {name}: .*not in"):
                current_digests(tmp_path, {})
