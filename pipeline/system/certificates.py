"""Whether browsers accept the certificate that a server shows, and for how long."""

from __future__ import annotations

import socket
import ssl
import time

__all__ = ["certificate_finding", "handshake_finding"]

SECONDS = 5
CERTIFICATE_DAYS = 14  # issuers renew a month before the end; this late, renewal has failed
EXPIRED, WRONG_HOST = 10, 62  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_HOSTNAME_MISMATCH (openssl/x509_vfy.h)


def certificate_finding(host: str, expires: float, now: float) -> str | None:
    """Return a finding if the certificate of `host` is within two weeks of its end or past it, otherwise None.

    `expires` and `now` are seconds since the Unix epoch.
    """
    days = (expires - now) / 86400
    if days > CERTIFICATE_DAYS:
        return None
    when = f"ends in {days:.0f} days" if days > 0 else f"ended {-days:.0f} days ago"
    return f"the certificate of {host} {when}: its issuer should have renewed it by now: find out why it did not"


def handshake_finding(host: str, port: int, *, address: str | None = None, fix: str | None = None) -> str | None:
    """Return what is wrong with the certificate of `host`, in one line with its `fix`; None if nothing is.

    `address`: who is asked, if not whatever the name `host` leads to. Raise `OSError` where nobody answers.
    """
    try:
        with (
            socket.create_connection((address or host, port), timeout=SECONDS) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert()
    except ssl.SSLCertVerificationError as error:
        fix = fix or {
            EXPIRED: "renew it, and find out why its issuer did not",
            WRONG_HOST: "give the edge (the Gateway's or Ingress' Secret) one that names this host",
        }.get(error.verify_code, "give the edge one from an issuer that its users trust, with the intermediates")
        return f"the certificate of {host} is refused ({error.verify_message.rstrip('.')}): {fix}"
    return certificate_finding(host, float(ssl.cert_time_to_seconds(str((certificate or {})["notAfter"]))), time.time())
