"""The commands of `nox -s cluster`, what it says of a machine that lacks something, and what its manifests promise."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.engines import gateway_api, kind_objects
from pipeline.engines import kind as cluster
from pipeline.errors import SlipwayError, UsageError
from pipeline.system.progress import Progress
from tests.logs import logged
from tests.played import serving
from tests.tools import need

ROOT = Path(__file__).parents[3]
DIGEST = f"sha256:{'1' * 64}"
MANIFEST = b"name: gateways.gateway.networking.k8s.io\n    gateway.networking.k8s.io/bundle-version: v1.6.1\n"


def program(folder: Path, name: str, script: str) -> None:
    """A program that says what a test lets it say: kinds of other ages are not to be had on one machine."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class TestCommands:
    def test_nodes_come_from_the_file_in_the_tree(self) -> None:
        """With the cluster's name and an image by its tag."""
        assert cluster.create_command(Path("k8s/cluster/kind.yaml"), "kindest/node:v1.37.0") == [
            "kind", "create", "cluster", "--name", "slipway", "--config", "k8s/cluster/kind.yaml",
            "--image", "kindest/node:v1.37.0",
        ]  # fmt: skip

    def test_the_registry_is_open_to_this_machine_alone(self) -> None:
        """Its port is one of 127.0.0.1; nodes reach it by their network."""
        command = cluster.registry_command()
        assert "--publish=127.0.0.1:5001:5000" in command
        assert "--network=kind" in command

    def test_nodes_reach_the_registry_beside_a_proxy(self) -> None:
        """Kind gives them the proxy of this machine's environment, which does not know the registry."""
        environ = cluster.proxy_environment({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8"})
        assert environ["NO_PROXY"] == environ["no_proxy"] == "10.0.0.0/8,slipway-registry,localhost,127.0.0.1"
        assert cluster.proxy_environment({"PATH": "/bin"}) == {"PATH": "/bin"}

    def test_kubectl_never_goes_by_the_current_context(self) -> None:
        """Which may be a production cluster's."""
        assert kind_objects.kubectl_command("get", "pods") == ["kubectl", "--context=kind-slipway", "get", "pods"]

    def test_images_go_to_the_nodes_that_lack_them(self) -> None:
        """One command for all."""
        assert cluster.load_command("traefik:v3.7", ["a", "b"]) == [
            "kind", "load", "docker-image", "--name", "slipway", "--nodes=a,b", "traefik:v3.7",
        ]  # fmt: skip

    def test_names_the_images_that_no_deploy_fills_in(self) -> None:
        """Each once, quoted or not, first of a list item or not."""
        rendered = "image: backend\n  - image: postgres:18\n    image: 'redis:8'\n image: postgres:18\n"
        assert cluster.images_named(rendered) == ["postgres:18", "redis:8"]

    @pytest.mark.parametrize(
        ("image", "name"),
        [
            ("traefik:v3.7", "docker.io/library/traefik:v3.7"),
            ("grafana/grafana:13", "docker.io/grafana/grafana:13"),
            ("localhost:5001/slipway@sha256:" + "1" * 64, "localhost:5001/slipway@sha256:" + "1" * 64),
            ("registry.k8s.io/pause:3", "registry.k8s.io/pause:3"),
        ],
    )
    def test_full_name(self, image: str, name: str) -> None:
        """As containerd lists it."""
        assert cluster.full_name(image) == name


class TestProblems:
    def test_each_missing_program_is_a_line_with_its_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of them at once."""
        monkeypatch.setenv("PATH", "/nonexistent")
        problems = cluster.cluster_problems()
        assert [problem.partition(":")[0] for problem in problems] == ["docker", "kind", "kubectl"]
        assert all("https://" in problem for problem in problems)

    def test_kind_too_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which is there, and which is needed."""
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        program(tmp_path, "docker", "echo 29.1.0")
        program(tmp_path, "kubectl", "")
        program(tmp_path, "kind", "echo 0.26.0")
        [problem] = cluster.cluster_problems()
        assert problem.startswith("kind 0.26 is too old, 0.27 is needed")
        program(tmp_path, "kind", "echo v0.33.0")
        assert cluster.cluster_problems() == []


class TestDown:
    @pytest.fixture
    def removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file that says what was removed of a cluster that a test's `kubectl` answers for."""
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        file = tmp_path / "removed"
        program(tmp_path, "docker", 'case "$*" in version*) echo 29.1.0;; *) echo no such >&2; exit 1;; esac')
        said = f'case "$*" in version*) echo 0.33.0;; "get nodes"*) echo node;; *) echo "$*" >>{file};; esac'
        program(tmp_path, "kind", said)
        return file

    def down(self, root: Path, *, everything: bool = False) -> bool:
        """Remove the cluster, from the clone of `shop` at `root`."""
        return cluster.Cluster(root, "shop", Progress(Console(quiet=True))).down(everything=everything)

    def test_leaves_the_cluster_to_another_service(self, removed: Path, tmp_path: Path) -> None:
        """Its namespace is named, and what removes it all the same."""
        selector = "--selector=app.kubernetes.io/managed-by=administrator,app.kubernetes.io/part-of!=shop"
        program(tmp_path, "kubectl", f'case "$*" in *{selector}*) echo namespace/parcels;; *) exit 1;; esac')
        with pytest.raises(UsageError, match="in namespace parcels: `nox -s cluster -- down --all`"):
            self.down(tmp_path)
        assert not removed.exists()
        assert self.down(tmp_path, everything=True)
        assert removed.read_text() == "delete cluster --name slipway\n"

    def test_leaves_a_cluster_that_does_not_say_who_is_in_it(self, removed: Path, tmp_path: Path) -> None:
        """It may be stopped, and somebody's."""
        program(tmp_path, "kubectl", "echo 'error: the server was refused' >&2; exit 1")
        with pytest.raises(UsageError, match=r"the server was refused\): `nox -s cluster` mends it"):
            self.down(tmp_path)
        assert not removed.exists()

    def test_removes_what_is_ones_own(self, removed: Path, tmp_path: Path) -> None:
        """Nobody else is in it."""
        program(tmp_path, "kubectl", "")
        assert self.down(tmp_path)
        assert removed.read_text() == "delete cluster --name slipway\n"


class TestManifests:
    def test_names_and_ports_agree_with_the_code(self) -> None:
        """The port is said in kind's file, the registry in a ConfigMap: files that kind and kubectl read alone."""
        folder = ROOT / cluster.MANIFESTS
        assert f"hostPort: {cluster.EDGE_PORT}\n" in (folder / "kind.yaml").read_text()
        assert f'host: "{cluster.REGISTRY}"' in (folder / "registry.yaml").read_text()
        mapped = re.search(r"containerPort: (\d+)", (folder / "kind.yaml").read_text())
        assert mapped is not None
        assert f"nodePort: {mapped[1]}}}" in (folder / "traefik.yaml").read_text()

    def test_every_image_has_a_version(self) -> None:
        """Never `latest`, said or meant."""
        texts = [path.read_text() for path in (ROOT / cluster.MANIFESTS).glob("*.yaml")]
        images = [image for text in texts for image in cluster.images_named(text)]
        assert images
        for image in [*images, cluster.NODE_IMAGE, cluster.REGISTRY_IMAGE]:
            assert ":" in image.rpartition("/")[2]
            assert not image.endswith(":latest")

    def test_the_edge_repeats_nothing(self) -> None:
        """What would hide a lost request from the proof is off."""
        text = (ROOT / cluster.MANIFESTS / "traefik.yaml").read_text()
        assert "--serverstransport.maxidleconnsperhost=-1" in text
        assert "--accesslog=false" in text


@contextmanager
def published(body: bytes, status: int = 200) -> Iterator[str]:
    """The address of a release whose manifest is BODY."""
    with serving(lambda *_: (status, {}, body)) as port:
        yield f"http://127.0.0.1:{port}/standard-install.yaml"


class TestGatewayApi:
    def test_takes_what_has_the_checksum(self) -> None:
        """Byte for byte."""
        with published(MANIFEST) as url:
            assert gateway_api.download(url, hashlib.sha256(MANIFEST).hexdigest()) == MANIFEST

    def test_refuses_what_has_another(self) -> None:
        """The error says both."""
        with published(MANIFEST) as url, pytest.raises(UsageError, match=f"and not {gateway_api.SHA256}"):
            gateway_api.download(url)

    def test_says_what_to_do_without_the_network(self) -> None:
        """A file can be given."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
            with pytest.raises(UsageError, match="--gateway-api FILE"):
                gateway_api.download(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        with published(b"", 404) as url, pytest.raises(UsageError, match="404"):
            gateway_api.download(url)

    def test_a_file_of_other_bytes_is_its_givers_matter(self, tmp_path: Path) -> None:
        """It is said aloud that nobody checked it."""
        file = tmp_path / "gateway-api.yaml"
        file.write_bytes(MANIFEST)
        with logged() as warnings:
            assert gateway_api.read(file) == MANIFEST
        assert "unchecked" in warnings[0]
        assert gateway_api.version_of(MANIFEST) == "v1.6.1"

    def test_a_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        """And one that is not there."""
        file = tmp_path / "other.yaml"
        file.write_bytes(b"kind: Secret\n")
        for path in (file, tmp_path / "missing.yaml"):
            with pytest.raises(UsageError, match=f"--gateway-api {path}"):
                gateway_api.read(path)


class TestMonitoring:
    @pytest.fixture
    def applied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with what was applied, by a kubectl that renders and lets the cluster lack everything."""
        real, folder = need("kubectl"), tmp_path / "applied"
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        rendered = f'kustomize*) exec {real} "$@";; *diff*) cat >/dev/null; exit 1;;'
        asked = f'*apply*) cat >{folder}/$$;; *) echo "$*" >>{folder}/done;;'
        program(tmp_path, "kubectl", f'case "$*" in {rendered} {asked} esac')
        return folder

    @pytest.mark.needs("kubectl")
    def test_is_applied_with_what_lets_it_see_the_service(self, applied: Path) -> None:
        """And waited for."""
        kind = cluster.Cluster(ROOT, "shop", Progress(Console(quiet=True)), monitoring=True)
        assert kind.watch()
        waited = (applied / "done").read_text().splitlines()
        assert [re.findall(r"deployment/(\S+)", line) for line in waited] == [[name] for name in cluster.WATCHERS]
        texts = [path.read_text() for path in applied.iterdir() if path.name != "done"]
        assert sorted("name: monitoring-to-exporter" in text for text in texts) == [False, True]
        assert any("alert: Watchdog" in text for text in texts), "the rules are those of monitoring/"

    def test_a_difference_alone_is_applied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So a second run changes nothing, and pods stay."""
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        program(tmp_path, "kubectl", 'case "$*" in *diff*) cat >/dev/null;; *) exit 1;; esac')
        assert not kind_objects.differs("kind: Namespace")
        with pytest.raises(SlipwayError, match="rules could not be applied: it said nothing"):
            kind_objects.apply("kind: Namespace", "rules")
