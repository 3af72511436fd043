"""Certificates as browsers judge them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.system.certificates import certificate_finding, handshake_finding

DAY = 86400.0


class TestCertificateFinding:
    @pytest.mark.parametrize(("days", "says"), [(3, "ends in 3 days"), (-2, "ended 2 days ago")])
    def test_names_a_certificate_that_nobody_renewed(self, days: int, says: str) -> None:
        """Before it ends, while there is time."""
        assert says in (certificate_finding("shop.example.com", 1000 + days * DAY, 1000) or "")

    def test_is_none_for_a_fresh_one(self) -> None:
        """Issuers renew a month before the end."""
        assert certificate_finding("shop.example.com", 1000 + 30 * DAY, 1000) is None


@pytest.fixture(name="serve", scope="module")
def _serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, int], int]]:
    """Serves TLS with a certificate for a NAME, for DAYS, of an issuer that is trusted here; gives the port."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        "req", "-x509", *key, "-subj", "/CN=a tests' issuer", "-keyout", "ca.key", "-out", "ca.pem", "-days", "9999"
    )
    servers: list[socket.socket] = []

    def serve(name: str, days: int) -> int:
        (folder / "extensions").write_text(f"subjectAltName=DNS:{name}\n")
        openssl("req", "-new", *key, "-subj", f"/CN={name}", "-keyout", "own.key", "-out", "own.csr")
        sign = ("x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "own.pem", "-extfile",
                "extensions")  # fmt: skip
        try:
            openssl(*sign, "-days", str(days))
        except subprocess.CalledProcessError:  # from 3.4 on, none that has ended is made like this
            now = datetime.now(UTC)
            begun, ended = (f"{now + timedelta(days=more):%Y%m%d%H%M%SZ}" for more in (days - 1, days))
            openssl(*sign, "-not_before", begun, "-not_after", ended)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "own.pem", folder / "own.key")
        servers.append(context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True))
        threading.Thread(target=_accept, args=(servers[-1],), daemon=True).start()
        return int(servers[-1].getsockname()[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        yield serve
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def _accept(server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # a client that refuses the certificate, and then the end of the test
        while True:
            with contextlib.suppress(ssl.SSLError):
                server.accept()[0].close()


@pytest.mark.needs("openssl")  # makes certificates
class TestHandshakeFinding:
    @pytest.mark.parametrize(
        ("name", "days", "says"),
        [
            ("localhost", 90, None),
            ("localhost", 4, "ends in 4 days: its issuer should have renewed it"),
            ("localhost", -1, "is refused (certificate has expired): renew it"),
            ("shop.example.com", 90, "give the edge (the Gateway's or Ingress' Secret) one that names this host"),
        ],
    )
    def test_says_what_users_see(
        self, serve: Callable[[str, int], int], name: str, days: int, says: str | None
    ) -> None:
        """Of a certificate that is shown for real."""
        finding = handshake_finding("localhost", serve(name, days))
        assert (says in (finding or "")) if says else finding is None, finding

    def test_knows_an_issuer_that_nobody_trusts(
        self, serve: Callable[[str, int], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A certificate of the controller's own, because its Secret is not there."""
        port = serve("localhost", 90)
        monkeypatch.delenv("SSL_CERT_FILE")
        assert "one from an issuer that its users trust" in (handshake_finding("localhost", port) or "")

    def test_is_silent_where_nobody_answers(self) -> None:
        """Who asks for an answer says that."""
        with pytest.raises(ConnectionRefusedError):
            handshake_finding("localhost", 1)
