"""The proofs of deploys that are attached to an image in its registry.

A proof is an artifact (an OCI referrer) whose `subject` is the image, so it lives and moves with the digest, and
whoever may read the image may read it: production asks no other cluster.

The newest digest that was proved in an environment is found by a tag, `proved-ENVIRONMENT`, that points at the proof
and is moved by each one. A tag and no index: moving it is one write that a registry does whole, where an index has to
be read, changed and written back without a compare-and-swap. What it points at is immutable and names the image's
digest. The environment's lock lets one deploy move it at a time; where two do so all the same, the later one stays, or
at worst the one just before it: each of them proved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.errors import UsageError
from pipeline.registry.connection import RegistryError, RegistryLacks
from pipeline.registry.reference import DIGEST, parse_reference
from pipeline.registry.repository import ARTIFACT, EMPTY, EMPTY_TYPE, Manifest, Repository, written

__all__ = ["PROOF", "VERDICTS", "ProofRecord", "attach_proof", "newest_proved", "proofs"]

PROOF = "application/vnd.slipway.proof.v1+json"
SCHEMA = "slipway.proof/1"
VERDICTS = ("proved", "rolled_back", "failed")  # those that say something of the digest
PROOF_BYTES = 2**16  # one is 1 KB
TITLE = {"org.opencontainers.image.title": "proof.json"}
TAG_LENGTH = 128
# What of a report is the same for whoever reads it: nothing of its addresses, requests and their answers.
FACTS = ("environment", "target", "number", "release", "commit", "dirty", "verdict", "started", "finished")
COUNTS = (
    "sent",
    "ok",
    "failed",
    "baseline",
    "latency_ms",
    "writes_acknowledged",
    "writes_lost",
    "websocket_reconnects",
)


@dataclass(frozen=True)
class ProofRecord:
    """A deploy of an image, as its registry has it. `artifact` is the digest of the proof's own manifest: what a
    signature of it signs. `images` are the digests of the release's other images by name (`migrate`, `frontend`).
    """

    repository: str
    digest: str
    environment: str
    verdict: str  # one of VERDICTS
    finished: datetime
    commit: str | None
    artifact: str
    images: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def reference(self) -> str:
        """The image by digest."""
        return f"{self.repository}@{self.digest}"


def attach_proof(reference: str, report: Mapping[str, Any], *, images: Mapping[str, str] | None = None) -> str:
    """Attach REPORT, of a deploy of REFERENCE (`repository@sha256:…`), to that image; the digest of the proof.

    IMAGES: the digests of the release's other images, by name. A verdict that judges nothing (`unchanged`,
    `interrupted`) is a ValueError. The same report twice is one proof. Raises `UsageError` for a reference without
    digest, or an environment that cannot be in a tag, and `RegistryError`.
    """
    if report["verdict"] not in VERDICTS:
        raise ValueError(report["verdict"])
    wanted, tag = parse_reference(reference), _tag(report["environment"])
    if wanted.digest is None:
        raise UsageError(f"{reference}: a proof is of a digest: name it {wanted.repository}@sha256:…")
    content = written({**_trimmed(report), "digest": wanted.digest, "images": dict(images or {})})
    with Repository(wanted.repository, write=True) as repository:
        subject = repository.manifest(wanted.digest)
        manifest = {
            "schemaVersion": 2,
            "mediaType": ARTIFACT,
            "artifactType": PROOF,
            "config": {"mediaType": EMPTY_TYPE, **repository.put_blob(EMPTY)},
            # The title is the file that `oras pull REPOSITORY:proved-ENVIRONMENT` writes.
            "layers": [{"mediaType": PROOF, **repository.put_blob(content), "annotations": TITLE}],
            "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
            "annotations": _annotations(report),
        }
        digest = repository.attach(manifest)
        # Last, so that the tag never names what is not listed.
        if report["verdict"] == "proved" and not _is_older(repository, tag, report["finished"]):
            repository.put_manifest(tag, written(manifest), ARTIFACT)
    return digest


def proofs(repository: str, digest: str) -> list[ProofRecord]:
    """The proofs that are attached to the image DIGEST, newest first. Empty where there are none.

    What cannot be read as a proof is none: anybody who may push can attach something. Raises `RegistryError`.
    """
    with Repository(repository) as opened:
        found = []
        for one in opened.referrers(digest, PROOF):
            try:
                record = _record(opened, opened.manifest(str(one.get("digest"))))
            except RegistryLacks:  # the list outlives what a registry's garbage collection took
                continue
            if record is not None and record.digest == digest:
                found.append(record)
    return sorted(found, key=lambda record: record.finished, reverse=True)


def newest_proved(repository: str, environment: str) -> ProofRecord | None:
    """The proof that moved `proved-ENVIRONMENT` last, None where there was none. Raises `RegistryError`."""
    tag = _tag(environment)
    with Repository(repository) as opened:
        try:
            record = _record(opened, opened.manifest(tag))
        except RegistryLacks:
            return None
    if record is None or (record.environment, record.verdict) != (environment, "proved"):
        raise RegistryError(
            f"{repository}:{tag} is no proof of {environment}: somebody else moved it;"
            f" `nox -s deploy -- {environment}` sets it"
        )
    return record


def _tag(environment: str) -> str:
    tag = f"proved-{environment}"
    if (
        not tag.isascii()
        or not tag.replace("-", "").replace("_", "").replace(".", "").isalnum()
        or len(tag) > TAG_LENGTH
    ):
        raise UsageError(f"pyproject.toml: environment `{environment}`: letters, digits, `.`, `_`, `-`: it names a tag")
    return tag


def _trimmed(report: Mapping[str, Any]) -> dict[str, Any]:
    traffic = report.get("traffic")
    return {
        "schema": SCHEMA,
        **{key: report.get(key) for key in FACTS},
        "traffic": {key: traffic.get(key) for key in COUNTS} if traffic else None,
    }


def _annotations(report: Mapping[str, Any]) -> dict[str, str]:
    return {
        "org.opencontainers.image.created": report["finished"],
        "vnd.slipway.proof.environment": report["environment"],
        "vnd.slipway.proof.finished": report["finished"],
        "vnd.slipway.proof.verdict": report["verdict"],
        **({"org.opencontainers.image.revision": report["commit"]} if report.get("commit") else {}),
    }


def _is_older(repository: Repository, tag: str, finished: str) -> bool:
    """Whether the proof of TAG is of a later deploy than one that FINISHED then: one whose upload took long."""
    try:
        record = _record(repository, repository.manifest(tag))
    except RegistryLacks:
        return False
    return record is not None and record.finished > datetime.fromisoformat(finished)


def _record(repository: Repository, manifest: Manifest) -> ProofRecord | None:
    """The proof in MANIFEST, None where it is none. Its content counts: annotations are for whoever looks by hand."""
    try:
        if manifest.content["artifactType"] != PROOF:
            return None
        subject, [layer] = manifest.content["subject"]["digest"], manifest.content["layers"]
        if layer["size"] > PROOF_BYTES or not DIGEST.fullmatch(layer["digest"]):
            return None
        content = json.loads(repository.blob(layer["digest"], limit=PROOF_BYTES))
        finished, images = datetime.fromisoformat(content["finished"]), content["images"]
        sound = (
            content["schema"] == SCHEMA
            and content["digest"] == subject
            and content["verdict"] in VERDICTS
            and finished.tzinfo is not None
            and isinstance(content["environment"], str)
            and isinstance(content["commit"], str | None)
            and all(DIGEST.fullmatch(one) for one in images.values())
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not sound:
        return None
    return ProofRecord(
        repository=repository.name,
        digest=subject,
        environment=content["environment"],
        verdict=content["verdict"],
        finished=finished,
        commit=content["commit"],
        artifact=manifest.digest,
        images=images,
        content=content,
    )
