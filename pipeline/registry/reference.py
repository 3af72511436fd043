"""The name of an image: which registry, repository, tag and digest it means, as docker reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.system.hosts import is_loopback

__all__ = ["DIGEST", "HUB", "PARTS", "Reference", "is_digest", "is_local", "parse_reference", "split_digest"]

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
BY_DIGEST = re.compile(rf"(?:(?P<repository>[a-z0-9][^@\s]*)@)?(?P<digest>{DIGEST.pattern})")
PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
NAME = re.compile(
    rf"(?P<repository>(?:[a-zA-Z0-9.-]+(?::\d+)?/|\[[0-9a-f:]+\](?::\d+)?/)?{PART}(?:/{PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
HUB = "docker.io"
# The images of a release, the service's first: the first digits of its digest are its tag, PART-DIGITS that of each
# other one.
PARTS = ("backend", "migrate", "frontend", "backup")
HUB_ADDRESS = "registry-1.docker.io"


@dataclass(frozen=True)
class Reference:
    """`[HOST/]PATH[:TAG][@DIGEST]`; `repository` is the part before the tag, as it was written."""

    repository: str
    tag: str | None
    digest: str | None

    @property
    def host(self) -> str:
        """The registry as docker reads it, `docker.io` where none is named."""
        first, slash, _ = self.repository.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else HUB

    @property
    def path(self) -> str:
        """The repository's name in its registry."""
        path = self.repository.removeprefix(f"{self.host}/")
        return f"library/{path}" if self.host == HUB and "/" not in path else path

    @property
    def address(self) -> str:
        """The registry's URL: `http` for one on this machine, as docker has it, `https` for every other."""
        if self.host == HUB:
            return f"https://{HUB_ADDRESS}"
        return f"{'http' if is_local(self.host) else 'https'}://{self.host}"


def parse_reference(text: str) -> Reference:
    """Read a reference to an image. Raise `UsageError` where `text` is not one."""
    found = NAME.fullmatch(text)
    if not found:
        raise UsageError(f"`{text}` is not an image reference: for example ghcr.io/owner/name@sha256:… (lower case)")
    return Reference(found["repository"], found["tag"], found["digest"])


def is_digest(text: str) -> bool:
    """Return whether `text` is an image digest, alone or after a repository."""
    return BY_DIGEST.fullmatch(text) is not None


def split_digest(text: str) -> tuple[str | None, str]:
    """Return the repository, None where there is none, and the digest of a `text` that `is_digest`."""
    found = BY_DIGEST.fullmatch(text)
    assert found, text
    return found["repository"], found["digest"]


def is_local(host: str) -> bool:
    """Return whether the registry `host` is on this machine."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return is_loopback(name.strip("[]").lower())
