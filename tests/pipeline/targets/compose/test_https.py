"""The edge with a domain: what a browser sees of it, and what is said where its certificate does not hold."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import yaml

from pipeline.engines.docker import Docker
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from pipeline.targets.compose import https
from pipeline.targets.compose.https import HTTPS_PORTS, certificate_problem
from pipeline.targets.compose.stack import HTTPS, Stack
from tests.deploy.machine import wait_until

ROOT = Path(__file__).parents[4]
CADDY = Path(sys.prefix) / "bin" / "caddy"
DOMAIN = "board.example.org"
ADDED = yaml.safe_load((ROOT / HTTPS).read_text())["services"]["frontend"]
INSIDE = {int(outer): inner for outer, _, inner in (port.partition(":") for port in ADDED["ports"])}


@dataclass(frozen=True)
class Edge:
    """An edge with `DOMAIN`; `ports` are those of HTTP with a redirect, of HTTPS and of plain HTTP."""

    ports: tuple[int, int, int]
    authority: Path

    def ask(self, url: str) -> httpx2.Response:
        """Return the answer to a browser that trusts its authority."""
        context = ssl.create_default_context(cafile=str(self.authority))
        with httpx2.Client(verify=context, trust_env=False) as client:
            return client.get(url, headers={"Host": DOMAIN}, extensions={"sni_hostname": DOMAIN})

    def has_certificate(self) -> bool:
        """Return whether it answers by HTTPS: its file is there before the edge has loaded it."""
        try:
            self.ask(f"https://127.0.0.1:{self.ports[1]}/")
        except (OSError, httpx2.ConnectError):
            return False
        return True


@contextlib.contextmanager
def running(home: Path) -> Iterator[Edge]:
    """Run the Caddyfile with what docker/compose.https.yml adds, on free ports, with an authority of Caddy's own."""
    ports = (free_port(), free_port(), free_port())
    text = (ROOT / "docker/edge/Caddyfile").read_text()
    text = text.replace("persist_config off", "persist_config off\n\tlocal_certs\n\tskip_install_trust")
    (home / "Caddyfile").write_text(text)
    (home / "page").mkdir()
    (home / "page/index.html").write_text("the page")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "EDGE_BIND": "127.0.0.1",
        "EDGE_PAGE": "page",
        "FRONTEND_PORT": str(ports[2]),
        **ADDED["environment"],
        "EDGE_DOMAIN": DOMAIN,
        "EDGE_HTTPS": f"http_port {ports[0]}\nhttps_port {ports[1]}",
    }
    command = [str(CADDY), "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    with held(command, log=home / "caddy.log", env=environment, cwd=str(home)):
        edge = Edge(ports, home / "caddy/pki/authorities/local/root.crt")
        wait_until(edge.has_certificate, "it has a certificate", 20)
        yield edge


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge with a certificate that only its own authority answers for."""
    with running(tmp_path_factory.mktemp("edge")) as one:
        yield one


class TestEdge:
    def test_serves_the_page_and_tells_browsers_to_come_by_https(self, edge: Edge) -> None:
        answer = edge.ask(f"https://127.0.0.1:{edge.ports[1]}/")
        assert (answer.status_code, answer.text) == (200, "the page")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"

    def test_redirects_who_comes_by_http(self, edge: Edge) -> None:
        """To the port that the world knows."""
        answer = edge.ask(f"http://127.0.0.1:{edge.ports[0]}/where?a=b")
        assert (answer.status_code, answer.headers["Location"]) == (308, f"https://{DOMAIN}/where?a=b")

    def test_serves_this_host_as_before(self, edge: Edge) -> None:
        """The proof, and a health check; neither is told to come by HTTPS."""
        answer = httpx2.get(f"http://127.0.0.1:{edge.ports[2]}/", trust_env=False)
        assert (answer.status_code, answer.text) == (200, "the page")
        assert "Strict-Transport-Security" not in answer.headers

    def test_has_no_port_that_a_deploy_does_not_open(self) -> None:
        """What is open on the host leads to where Caddy listens."""
        assert tuple(INSIDE) == HTTPS_PORTS
        assert ADDED["environment"]["EDGE_HTTPS"] == f"https_port {INSIDE[443]}\nhttp_port {INSIDE[80]}"


class TestCertificateProblem:
    def test_names_what_is_wrong(self, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
        """An authority that nobody knows, another name, no port."""
        monkeypatch.setattr(https, "HTTPS_PORTS", edge.ports)
        unknown = certificate_problem(DOMAIN, logs="docker logs x") or ""
        assert unknown.startswith(f"EDGE_DOMAIN: the certificate of {DOMAIN} is refused (")
        assert "`docker logs x`" in unknown
        other = certificate_problem("other.example.org", logs="") or ""
        assert other.startswith("EDGE_DOMAIN: the edge has no certificate of other.example.org yet (")
        monkeypatch.setattr(https, "HTTPS_PORTS", (80, free_port()))
        assert "yet ([Errno 111] Connection refused): the edge" in (certificate_problem(DOMAIN, logs="") or "")

    def test_says_of_one_that_holds_when_it_ends(self, edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
        """Caddy's own authority gives half a day, where a public one gives months."""
        monkeypatch.setattr(https, "HTTPS_PORTS", edge.ports)
        monkeypatch.setenv("SSL_CERT_FILE", str(edge.authority))
        assert "ends in 0 days" in (certificate_problem(DOMAIN, logs="") or "")


class TestStack:
    def test_has_the_file_of_https_only_with_a_domain(self, tmp_path: Path) -> None:
        """And to stop what had one: its volume goes with `--volumes`."""
        plain, named = (Stack(tmp_path, "shop", Docker(tmp_path), https=one) for one in (False, True))
        assert [HTTPS in one.command("up") for one in (plain, named)] == [False, True]
        assert HTTPS in plain.command("--profile", "*", "down")
