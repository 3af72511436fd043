"""Names of images: what docker takes them for, and what counts as a digest."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.registry.reference import is_digest, parse_reference, split_digest

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize("reference", [DIGEST, f"ghcr.io/owner/name@{DIGEST}", f"localhost:5000/name@{DIGEST}"])
def test_a_whole_digest_is_one(reference: str) -> None:
    """Alone, or behind where it is."""
    assert is_digest(reference)


@pytest.mark.parametrize(
    "reference", ["7", DIGEST[:20], DIGEST.removeprefix("sha256:"), f"{DIGEST}+01234567", "ghcr.io/owner/name:latest"]
)
def test_what_only_a_record_can_explain_is_none(reference: str) -> None:
    """A number, the beginning of a name, a release with settings of its own, a tag."""
    assert not is_digest(reference)


def test_a_digest_is_split_from_where_it_is() -> None:
    """None where nobody says."""
    assert split_digest(f"localhost:5000/name@{DIGEST}") == ("localhost:5000/name", DIGEST)
    assert split_digest(DIGEST) == (None, DIGEST)


class TestReference:
    @pytest.mark.parametrize(
        ("text", "host", "path", "address"),
        [
            ("ghcr.io/owner/name:1", "ghcr.io", "owner/name", "https://ghcr.io"),
            ("localhost:5001/slipway", "localhost:5001", "slipway", "http://localhost:5001"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000", "a/b", "http://127.0.0.1:5000"),
            ("[::1]:5000/a", "[::1]:5000", "a", "http://[::1]:5000"),
            ("registry.localhost/a", "registry.localhost", "a", "http://registry.localhost"),
            ("localhost.example.com/a", "localhost.example.com", "a", "https://localhost.example.com"),
            ("owner/name", "docker.io", "owner/name", "https://registry-1.docker.io"),
            ("docker.io/owner/name", "docker.io", "owner/name", "https://registry-1.docker.io"),
            ("postgres:18-trixie", "docker.io", "library/postgres", "https://registry-1.docker.io"),
        ],
    )
    def test_is_read_as_docker_reads_it(self, text: str, host: str, path: str, address: str) -> None:
        """Plain HTTP for this machine alone."""
        found = parse_reference(text)
        assert (found.host, found.path, found.address) == (host, path, address)

    @pytest.mark.parametrize("text", ["", "Owner/Name", "a b", "x@sha256:12", "https://ghcr.io/a/b", "a/../b"])
    def test_is_refused_where_it_is_none(self, text: str) -> None:
        """The line shows one."""
        with pytest.raises(UsageError, match=r"for example ghcr.io/owner/name@sha256:…"):
            parse_reference(text)
