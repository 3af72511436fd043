"""A repository of an OCI registry, over its HTTP interface (distribution specification 1.1).

Written on httpx2, which the pipeline has anyway, and not on `oras` (PyPI, 0.2.43): that has no referrers API and no
fallback tag, which is most of what is needed here, and would bring requests, jsonschema and 3900 lines.
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
EMPTY = b"{}"  # the specification's config of an artifact that has none, and its type
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"

# A fallback list has no compare-and-swap: read again after longer than a writer needs from reading to writing.
SETTLE_SECONDS = (0.5, 1.5)
LIST_ATTEMPTS = 12
PAGES = 50  # of referrers: where a registry has more, it goes round in circles


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
    """One repository, open for the length of a `with`. WRITE: a token is asked for that may push.

    Everything raises `RegistryError` where the registry is away, refuses or answers something else.
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
        """The manifest or index of a tag or digest, whose bytes are what its digest says."""
        answer = self._connection.ask("GET", f"manifests/{reference}", headers={"Accept": ACCEPT}, follow=True)
        what = f"{self.name}{'@' if DIGEST.fullmatch(reference) else ':'}{reference}"
        self._connection.expect(answer, what)
        digest = digest_of(answer.body)
        if DIGEST.fullmatch(reference) and digest != reference:
            raise RegistryError(f"{what}: the registry sent other content, {digest}: its storage or a proxy is broken")
        content = json_object(answer.body)
        if content is None:
            raise RegistryError(f"{what}: no manifest came from {self.reference.host}: is it a registry?")
        kind = str(content.get("mediaType") or answer.headers.get("Content-Type", "").partition(";")[0])
        return Manifest(digest, kind, len(answer.body), content, answer.body)

    def blob(self, digest: str, *, limit: int) -> bytes:
        """The blob with DIGEST, of LIMIT bytes at most."""
        answer = self._connection.ask("GET", f"blobs/{digest}", follow=True, limit=limit)
        what = f"{self.name}: blob {digest}"
        self._connection.expect(answer, what)
        if digest_of(answer.body) != digest:
            raise RegistryError(f"{what}: the registry sent other content: its storage or a proxy is broken")
        return answer.body

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob with DIGEST."""
        return self._connection.ask("HEAD", f"blobs/{digest}").status == httpx2.codes.OK

    def put_blob(self, content: bytes) -> dict[str, Any]:
        """Have CONTENT in the repository; the digest and size of its descriptor."""
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
        """Have CONTENT under a tag or its digest; whether the registry lists it with its subject by itself."""
        answer = self._connection.ask(
            "PUT", f"manifests/{reference}", content=content, headers={"Content-Type": media_type}
        )
        self._connection.expect(answer, f"{self.name}: {reference}", httpx2.codes.CREATED)
        return "OCI-Subject" in answer.headers

    def tag(self, digest: str, tag: str) -> None:
        """Let TAG name DIGEST: the same bytes again, since a manifest that is written anew may have another digest."""
        found = self.manifest(digest)
        self.put_manifest(tag, found.raw, found.media_type)

    def attach(self, manifest: dict[str, Any]) -> str:
        """Push MANIFEST, which has a `subject`, so that it is found from that; its digest.

        A registry without the referrers API (CNCF distribution 3, ghcr.io) does not say `OCI-Subject`; there the client
        keeps the list, an index under a tag made of the subject's digest.
        """
        content = written(manifest)
        digest = digest_of(content)
        if not self.put_manifest(digest, content, manifest["mediaType"]):
            told = ("mediaType", "artifactType", "annotations")
            descriptor = {key: manifest[key] for key in told if key in manifest}
            self._list(manifest["subject"]["digest"], {**descriptor, "digest": digest, "size": len(content)})
        return digest

    def referrers(self, digest: str, artifact_type: str) -> list[dict[str, Any]]:
        """The descriptors of all artifacts whose subject is DIGEST, and which may be of ARTIFACT_TYPE: a registry may
        tell the type of the (empty) config instead (go-containerregistry #1931), so it is not asked to leave out the
        others, and the manifest itself has the last word.
        """
        found = self._from_api(f"referrers/{digest}")
        if found is None:
            found = _entries(self._kept(digest) or {})
        return [one for one in found if one.get("artifactType") in (artifact_type, EMPTY_TYPE)]

    def _from_api(self, path: str) -> list[dict[str, Any]] | None:
        """What the referrers API lists, None where there is none: some answer that with a page and 200."""
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
        """The list that clients keep of what refers to DIGEST."""
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
        """Add DESCRIPTOR to the list of what refers to DIGEST, others' entries untouched."""
        for _ in range(LIST_ATTEMPTS):
            kept = self._kept(digest) or {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
            if any(one["digest"] == descriptor["digest"] for one in _entries(kept)):
                return
            kept["manifests"] = [*kept["manifests"], descriptor]
            self.put_manifest(digest.replace(":", "-"), written(kept), INDEX)
            # Somebody who read before this was written overwrites it: seen by looking again, and mended.
            time.sleep(random.uniform(*SETTLE_SECONDS))  # noqa: S311 - apart from each other, not secret
        raise RegistryError(
            f"{self.name}: {LIST_ATTEMPTS} times another client overwrote the list of {digest}: deploy again later"
        )


def digest_of(content: bytes) -> str:
    """`sha256:` and 64 digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def written(content: dict[str, Any]) -> bytes:
    """CONTENT as bytes that are always the same, and so have one digest."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    found = index.get("manifests")
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [one for one in listed if DIGEST.fullmatch(str(one.get("digest")))]
