"""Certificates for a server of a test's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["certificates"]


def certificates(folder: Path, host: str = "localhost") -> Path:
    """Make an authority, `ca.pem`, and what it says of `host`, `own.pem` and `own.key`; return the first."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # Python 3.13 is strict (RFC 5280): an authority says what its key is for, a certificate who has signed it.
    authority = ("-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *key, *authority, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    openssl("req", "-new", *key, "-subj", f"/CN={host}", "-keyout", "own.key", "-out", "own.csr")
    kind = "IP" if host.replace(".", "").isdecimal() else "DNS"
    names = f"subjectAltName={kind}:{host}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    (folder / "own.ext").write_text(names)
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "own.ext", "-days", "2")
    openssl("x509", "-req", "-in", "own.csr", *signing, "-out", "own.pem")
    return folder / "ca.pem"
