"""HTTPS by the edge, for a name: deployed, updated and renewed under traffic, by an authority of Caddy's own."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest

from tests.conftest import AddRow
from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import wait_until
from tests.deploy.people import AUTH, PASSWORD, add
from tests.deploy.threads import running

pytestmark = pytest.mark.e2e

DOMAIN = "board.example.org"
ISSUER = """persist_config off
	skip_install_trust
	cert_issuer internal {
		lifetime 75s
	}
	renew_interval 5s
"""
DATA = "/var/lib/edge/caddy"
CERTIFICATE = f"{DATA}/certificates/local/{DOMAIN}/{DOMAIN}.crt"
HOST = {"Host": DOMAIN}
PER_SECOND = 100
CLIENTS = 4


class Browsers:
    """Requests by HTTPS, each over a connection of its own, and what became of them."""

    def __init__(self, authority: str, path: str) -> None:
        self.answers: Counter[str] = Counter()
        self._context = ssl.create_default_context(cadata=authority)
        self._path, self._over = path, threading.Event()

    def asking(self) -> AbstractContextManager[None]:
        """Ask `PER_SECOND` times a second while the block runs."""
        return running(self._ask, self._over, threads=CLIENTS)

    def _ask(self) -> None:
        while not self._over.wait(CLIENTS / PER_SECOND):
            try:
                self.answers[str(self.get().status_code)] += 1
            except httpx2.TransportError as error:
                self.answers[repr(error)] += 1

    def get(self) -> httpx2.Response:
        """Return the answer to what they ask all the time."""
        return self.send("GET", self._path)

    def send(self, method: str, path: str, *, headers: Mapping[str, str] = HOST, body: Any = None) -> httpx2.Response:
        """Return the answer to one request."""
        with httpx2.Client(verify=self._context, trust_env=False, timeout=10) as client:
            return client.request(
                method, f"https://127.0.0.1{path}", headers={**HOST, **headers}, json=body,
                extensions={"sni_hostname": DOMAIN},
            )  # fmt: skip


def signs_in(one: ComposeCheckout, browsers: Browsers) -> None:
    """Load the page and sign in there, as a browser does: the cookies are for https and for no script."""
    add(one, "erin")
    page = browsers.send("GET", "/")
    assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert "default-src" in page.headers["Content-Security-Policy"]
    given = {"username": "erin", "password": PASSWORD, "cookie": True}
    own = {"Origin": f"https://{DOMAIN}", "Sec-Fetch-Site": "same-origin"}
    answer = browsers.send("POST", f"{AUTH}/login", headers=own, body=given)
    assert answer.status_code == 200, answer.text
    lines = answer.headers.get_list("Set-Cookie")
    assert [line.partition("=")[0].rpartition("-")[2] for line in lines] == ["access", "refresh"]
    for line in lines:
        assert line.startswith("__Secure-")
        assert {"secure", "httponly", "samesite=strict"} <= {part.strip().lower() for part in line.split(";")}, line
    cookies = "; ".join(line.partition(";")[0] for line in lines)
    assert browsers.send("GET", f"{AUTH}/me", headers={"Cookie": cookies}).json()["name"] == "erin"
    elsewhere = {"Cookie": cookies, "Origin": f"http://{DOMAIN}"}
    assert browsers.send("POST", f"{AUTH}/refresh", headers=elsewhere).status_code == 403


def test_a_name_is_served_by_https(checkout: ComposeCheckout, add_row: AddRow) -> None:
    """A certificate that is renewed, and a rolling update, fail no request."""
    checkout.proved()
    checkout.patch("docker/edge/Caddyfile", "persist_config off\n", ISSUER)
    checkout.environ["EDGE_DOMAIN"] = DOMAIN
    outcome = checkout.deploy()
    assert outcome.code == 0, str(outcome)
    [edge] = checkout.containers("frontend")
    wait_until(lambda: docker("exec", edge, "ls", CERTIFICATE, check=False).strip() == CERTIFICATE, "a certificate", 20)
    browsers = Browsers(docker("exec", edge, "cat", f"{DATA}/pki/authorities/local/root.crt"), checkout.asked)
    answer = browsers.get()
    assert (answer.status_code, answer.headers["Strict-Transport-Security"]) == (200, "max-age=31536000")
    plain = httpx2.get("http://127.0.0.1/x", headers={"Host": DOMAIN}, trust_env=False)
    assert (plain.status_code, plain.headers["Location"]) == (308, f"https://{DOMAIN}/x")
    signs_in(checkout, browsers)

    def certificate() -> str:
        return docker("exec", edge, "cat", CERTIFICATE)

    first, began = certificate(), time.monotonic()
    with browsers.asking():
        checkout.change("by https")
        checkout.proved()
        wait_until(lambda: certificate() != first, "the certificate is another one", 90)
        time.sleep(5)
    seconds = time.monotonic() - began
    assert set(browsers.answers) == {"200"}, browsers.answers
    total = browsers.answers.total()
    add_row("HTTPS by the edge", f"an update and a renewal in {seconds:.0f} s: {total} requests, 0 failed")
    # Nobody knows the authority: that is said, and so it would be of a certificate that could not be renewed.
    report = checkout.run("doctor", "--json").report
    assert any(f"EDGE_DOMAIN: the certificate of {DOMAIN} is refused" in one for one in report["findings"]), report


def test_a_port_that_somebody_has_is_named(checkout: ComposeCheckout) -> None:
    """Before anything is built."""
    busy = docker("run", "--detach", "--publish", "443:443", "redis:8-trixie").strip()
    try:
        refused = checkout.deploy(EDGE_DOMAIN=DOMAIN)
    finally:
        docker("rm", "--force", "--volumes", busy)
    assert refused.code == 2, str(refused)
    assert "EDGE_DOMAIN: port 443 is taken by container" in refused.stderr
