"""A repository of an OCI registry, over its HTTP interface (distribution specification 1.1).

Built on httpx2, which the pipeline has anyway, and not on `oras` (PyPI, 0.2.43), which has no referrers API and no
fallback tag, most of what is needed here, and would bring requests, jsonschema and 3900 lines.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import httpx2

from pipeline.registry.connection import Connection, RegistryError, RegistryLacks, json_object
from pipeline.registry.reference import DIGEST, parse_reference

__all__ = ["ARTIFACT", "EMPTY", "EMPTY_TYPE", "INDEXES", "Manifest", "Repository", "digest_of", "written"]

ARTIFACT = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
ACCEPT = ", ".join((*INDEXES, ARTIFACT, "application/vnd.docker.distribution.manifest.v2+json"))
EMPTY = b"{}"  # the specification's config of an artifact without one, and below its type
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"

# A fallback list has no compare-and-swap: read it again after longer than a writer needs from reading to writing.
SETTLE_SECONDS = (0.5, 1.5)
LIST_ATTEMPTS = 12
PAGES = 50  # of referrers: a registry that has more is going round in circles


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index as it was sent."""

    digest: str
    media_type: str
    size: int
    content: dict[str, Any]
    raw: bytes = field(default=b"", repr=False, compare=False)

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The entries of an index that name something."""
        return _entries(self.content)


class Repository:
    """One repository, open for the length of a `with`; with `write`, it asks for a token that may push.

    Each method raises `RegistryError` where the registry is away, refuses or answers something else.
    """

    def __init__(self, name: str, *, write: bool = False) -> None:
        self.reference = parse_reference(name)
        self.name = self.reference.repository
        self._connection = Connection(self.reference, write=write)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def manifest(self, reference: str) -> Manifest:
        """Return the manifest or index of a tag or digest. Its bytes are checked against the digest."""
        answer = self._connection.ask("GET", f"manifests/{reference}", headers={"Accept": ACCEPT}, follow=True)
        what = f"{self.name}{'@' if DIGEST.fullmatch(reference) else ':'}{reference}"
        self._connection.expect(answer, what)
        digest = digest_of(answer.body)
        if DIGEST.fullmatch(reference) and digest != reference:
            raise RegistryError(f"{what}: the registry sent other content, {digest}: its storage or a proxy is broken")
        content = json_object(answer.body)
        if content is None:
            raise RegistryError(f"{what}: {self.reference.host} did not send a manifest: is it a registry?")
        kind = str(content.get("mediaType") or answer.headers.get("Content-Type", "").partition(";")[0])
        return Manifest(digest, kind, len(answer.body), content, answer.body)

    def blob(self, digest: str, *, limit: int) -> bytes:
        """Return the blob with `digest`, of at most `limit` bytes."""
        answer = self._connection.ask("GET", f"blobs/{digest}", follow=True, limit=limit)
        what = f"{self.name}: blob {digest}"
        self._connection.expect(answer, what)
        if digest_of(answer.body) != digest:
            raise RegistryError(f"{what}: the registry sent other content: its storage or a proxy is broken")
        return answer.body

    def has_blob(self, digest: str) -> bool:
        """Return whether the repository has the blob with `digest`."""
        return self._connection.ask("HEAD", f"blobs/{digest}").status == httpx2.codes.OK

    def put_blob(self, content: bytes) -> dict[str, Any]:
        """Upload `content` where the repository lacks it; return the digest and size of its descriptor."""
        digest = digest_of(content)
        if not self.has_blob(digest):
            begun = self._connection.ask("POST", "blobs/uploads/", content=b"")
            self._connection.expect(begun, self.name, httpx2.codes.ACCEPTED)
            place = httpx2.URL(urljoin(self._connection.root, begun.headers.get("Location", "")))
            done = self._connection.ask(
                "PUT",
                str(place.copy_merge_params({"digest": digest})),
                content=content,
                headers={"Content-Type": "application/octet-stream"},
            )
            self._connection.expect(done, f"{self.name}: {len(content)} bytes", httpx2.codes.CREATED)
        return {"digest": digest, "size": len(content)}

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> bool:
        """Upload `content` under a tag or its digest; return whether the registry itself lists it with its subject."""
        answer = self._connection.ask(
            "PUT", f"manifests/{reference}", content=content, headers={"Content-Type": media_type}
        )
        self._connection.expect(answer, f"{self.name}: {reference}", httpx2.codes.CREATED)
        return "OCI-Subject" in answer.headers

    def tag(self, digest: str, tag: str) -> None:
        """Make `tag` name `digest`."""
        # The same bytes again: a manifest that is serialized again may have another digest.
        manifest = self.manifest(digest)
        self.put_manifest(tag, manifest.raw, manifest.media_type)

    def attach(self, manifest: dict[str, Any]) -> str:
        """Push `manifest`, which has a `subject`, so that it can be found from that; return its digest."""
        content = written(manifest)
        digest = digest_of(content)
        # A registry without the referrers API (CNCF distribution 3, ghcr.io) does not answer `OCI-Subject`; there the
        # client keeps the list, an index under a tag made of the subject's digest.
        if not self.put_manifest(digest, content, manifest["mediaType"]):
            copied = ("mediaType", "artifactType", "annotations")
            descriptor = {key: manifest[key] for key in copied if key in manifest}
            self._list(manifest["subject"]["digest"], {**descriptor, "digest": digest, "size": len(content)})
        return digest

    def referrers(self, digest: str, artifact_type: str) -> list[dict[str, Any]]:
        """Return the descriptors of all artifacts whose subject is `digest`, and which may be of `artifact_type`.

        The manifest itself has the last word on its type.
        """
        # A registry may give the type of the (empty) config instead (go-containerregistry #1931), so it is not asked
        # to leave out the others.
        found = self._from_api(f"referrers/{digest}")
        if found is None:
            found = _entries(self._kept(digest) or {})
        return [descriptor for descriptor in found if descriptor.get("artifactType") in (artifact_type, EMPTY_TYPE)]

    def _from_api(self, path: str) -> list[dict[str, Any]] | None:
        """Return what the referrers API lists, None where the registry has no such API."""
        # Some registries without it answer with a page and 200.
        found: list[dict[str, Any]] = []
        for _ in range(PAGES):
            answer = self._connection.ask("GET", path, headers={"Accept": INDEX})
            page = json_object(answer.body) or {}
            if answer.status == httpx2.codes.TOO_MANY_REQUESTS or answer.status >= httpx2.codes.INTERNAL_SERVER_ERROR:
                self._connection.expect(answer, f"{self.name}: referrers")
            if answer.status != httpx2.codes.OK or not isinstance(page.get("manifests"), list):
                return None
            found += _entries(page)
            following = re.search(r'<([^>]+)>;\s*rel="?next', answer.headers.get("Link", ""))
            if not following:
                break
            path = following[1]
        return found

    def _kept(self, digest: str) -> dict[str, Any] | None:
        """Return the list that clients keep of what refers to `digest`, None where there is none."""
        tag = digest.replace(":", "-")
        try:
            content = self.manifest(tag).content
        except RegistryLacks:
            return None
        if not isinstance(content.get("manifests"), list):
            raise RegistryError(
                f"{self.name}:{tag}: not a list of referrers: delete that tag, which nothing else needs"
            )
        return content

    def _list(self, digest: str, descriptor: dict[str, Any]) -> None:
        """Add `descriptor` to the list of what refers to `digest`, and leave others' entries alone."""
        for _ in range(LIST_ATTEMPTS):
            kept = self._kept(digest) or {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
            if any(entry["digest"] == descriptor["digest"] for entry in _entries(kept)):
                return
            kept["manifests"] = [*kept["manifests"], descriptor]
            self.put_manifest(digest.replace(":", "-"), written(kept), INDEX)
            # Another client that read the list before this write overwrites it: look again, and repeat.
            time.sleep(random.uniform(*SETTLE_SECONDS))  # noqa: S311 - apart from each other, not secret
        raise RegistryError(
            f"{self.name}: another client overwrote the list of {digest} {LIST_ATTEMPTS} times: deploy again later"
        )


def digest_of(content: bytes) -> str:
    """Return the digest of `content`: `sha256:` and 64 digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def written(content: dict[str, Any]) -> bytes:
    """Serialize `content` to bytes that are always the same, and so have one digest."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    manifests = index.get("manifests")
    listed = [entry for entry in manifests if isinstance(entry, dict)] if isinstance(manifests, list) else []
    return [entry for entry in listed if DIGEST.fullmatch(str(entry.get("digest")))]
