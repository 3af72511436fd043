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
    openssl("req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    kind = "IP" if host.replace(".", "").isdecimal() else "DNS"
    names = ("-addext", f"subjectAltName={kind}:{host}")
    openssl("req", "-new", *key, "-subj", f"/CN={host}", *names, "-keyout", "own.key", "-out", "own.csr")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-copy_extensions", "copy", "-days", "2")
    openssl("x509", "-req", "-in", "own.csr", *signing, "-out", "own.pem")
    return folder / "ca.pem"
