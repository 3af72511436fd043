"""The Gateway API's kinds: the manifest of the official release, checked against a pinned checksum, or a file."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

import httpx2

from pipeline.errors import UsageError

__all__ = ["CRDS", "SHA256", "URL", "VERSION", "download", "read", "version_of"]

log = logging.getLogger(__name__)

VERSION = "v1.6.1"  # what Traefik 3.7 is built on; the standard channel
URL = f"https://github.com/kubernetes-sigs/gateway-api/releases/download/{VERSION}/standard-install.yaml"
# Of the release's asset. hack/build-install-yaml.sh makes the same bytes from the sources at the tag.
SHA256 = "24d931f22abd8e40c973264319ead7cfa09d0fb7716b7ab1ee2ff174cb063a73"
# The kinds that Traefik watches: it serves no route before it can watch them all.
CRDS = tuple(
    f"{kind}.gateway.networking.k8s.io"
    for kind in (
        "backendtlspolicies",
        "gatewayclasses",
        "gateways",
        "grpcroutes",
        "httproutes",
        "referencegrants",
        "tlsroutes",
    )
)
DOWNLOAD_SECONDS = 30


def download(url: str = URL, checksum: str = SHA256) -> bytes:
    """Return the release's manifest. Raise `UsageError` where it cannot be fetched, or is not the pinned one."""
    try:
        answer = httpx2.get(url, follow_redirects=True, timeout=DOWNLOAD_SECONDS)
        answer.raise_for_status()
    except httpx2.HTTPError as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"Gateway API {VERSION}: {url} could not be read ({why}):"
            " fix the network, or pass a copy of the file: `nox -s cluster -- --gateway-api FILE`"
        ) from None
    found = hashlib.sha256(answer.content).hexdigest()
    if found != checksum:
        raise UsageError(
            f"Gateway API {VERSION}: the file from {url} has the SHA-256 {found} and not {checksum}:"
            " somebody changed it on the way; try another network"
        )
    return answer.content


def read(path: Path) -> bytes:
    """Return the manifest in the file `path`. Raise `UsageError` where it cannot be read or is not the Gateway API's.

    A file that is not the release's, byte for byte, is taken with a warning: the user vouches for it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--gateway-api {path}: {error.strerror}: pass a copy of {URL}") from None
    if b"gateways.gateway.networking.k8s.io" not in content:
        raise UsageError(f"--gateway-api {path}: does not contain the Gateway API: pass a copy of {URL}")
    if hashlib.sha256(content).hexdigest() != SHA256:
        log.warning(
            f"{path} is not the manifest of the Gateway API's release {VERSION}: used unchecked, because you passed it"
        )
    return content


def version_of(manifest: bytes) -> str | None:
    """Return the version that a `manifest` says it is of, None where it does not say."""
    found = re.search(rb"gateway\.networking\.k8s\.io/bundle-version: (\S+)", manifest)
    return found[1].decode() if found else None
