"""The proofs of deploys that are attached to an image in its registry.

A proof is an artifact (an OCI referrer) whose `subject` is the image, so it lives and moves with the digest, and
whoever may read the image may read it: production does not need to ask another cluster.

The newest digest that was proved in an environment is found by a tag, `proved-ENVIRONMENT`, that points at the proof
and is moved by each new one. It is a tag and not an index: moving it is one atomic write, while an index has to be
read, changed and written back without a compare-and-swap. The proof that it points at is immutable and names the
image's digest. The environment's lock lets one deploy move it at a time; where two do so all the same, the later one
stays, or at worst the one just before it: each of them was proved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pipeline.errors import UsageError
from pipeline.registry.connection import RegistryError, RegistryLacks
from pipeline.registry.reference import DIGEST, parse_reference
from pipeline.registry.repository import ARTIFACT, EMPTY, EMPTY_TYPE, Manifest, Repository, written

__all__ = ["PROOF", "VERDICTS", "ProofCounts", "ProofFacts", "ProofRecord", "attach_proof", "newest_proved", "proofs"]

PROOF = "application/vnd.slipway.proof.v1+json"
SCHEMA = "slipway.proof/1"
VERDICTS = ("proved", "rolled_back", "failed")  # those that say something of the digest
PROOF_BYTES = 2**16  # one is 1 KB
TITLE = {"org.opencontainers.image.title": "proof.json"}
TAG_LENGTH = 128


@dataclass(frozen=True, kw_only=True)
class ProofCounts:
    """What a proof says of the traffic."""

    sent: int
    ok: int
    failed: int
    baseline: int
    latency_ms: Mapping[str, float] | None
    writes_acknowledged: int
    writes_lost: int


@dataclass(frozen=True, kw_only=True)
class ProofFacts:
    """What a proof says of a deploy. Times are RFC 3339."""

    environment: str
    target: str
    number: int
    release: str | None
    commit: str | None
    dirty: bool
    verdict: str
    started: str
    finished: str
    traffic: ProofCounts | None


@dataclass(frozen=True)
class ProofRecord:
    """A deploy of an image, as its registry has it.

    `artifact` is the digest of the proof's own manifest: what a signature of it signs. `images` are the digests of the
    release's other images by name (`migrate`, `frontend`, …).
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
        """The image's name by digest."""
        return f"{self.repository}@{self.digest}"


def attach_proof(reference: str, facts: ProofFacts, *, images: Mapping[str, str] | None = None) -> str:
    """Attach `facts` of a deploy of `reference` (`repository@sha256:…`) to that image; return the proof's digest.

    `images`: the digests of the release's other images, by name. The same facts twice are one proof. Raise `ValueError`
    for a verdict that judges nothing (`unchanged`, `interrupted`), `UsageError` for a reference without digest or an
    environment that cannot be in a tag, and `RegistryError` where the registry is away or refuses.
    """
    if facts.verdict not in VERDICTS:
        raise ValueError(facts.verdict)
    wanted, tag = parse_reference(reference), _tag(facts.environment)
    if wanted.digest is None:
        raise UsageError(f"{reference}: a proof is of a digest: name it {wanted.repository}@sha256:…")
    content = written({"schema": SCHEMA, **asdict(facts), "digest": wanted.digest, "images": dict(images or {})})
    with Repository(wanted.repository, write=True) as repository:
        subject = repository.manifest(wanted.digest)
        manifest = {
            "schemaVersion": 2,
            "mediaType": ARTIFACT,
            "artifactType": PROOF,
            "config": {"mediaType": EMPTY_TYPE, **repository.put_blob(EMPTY)},
            # The title names the file that `oras pull REPOSITORY:proved-ENVIRONMENT` writes.
            "layers": [{"mediaType": PROOF, **repository.put_blob(content), "annotations": TITLE}],
            "subject": {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size},
            "annotations": _annotations(facts),
        }
        digest = repository.attach(manifest)
        # Last, so that the tag never names a proof that is not listed.
        if facts.verdict == "proved" and not _is_older(repository, tag, facts.finished):
            repository.put_manifest(tag, written(manifest), ARTIFACT)
    return digest


def proofs(repository: str, digest: str) -> list[ProofRecord]:
    """Return the proofs that are attached to the image `digest`, newest first. Empty where there are none.

    Whatever cannot be read as a proof is left out: anybody who may push can attach something. Raise `RegistryError`
    where the registry is away or refuses.
    """
    with Repository(repository) as opened:
        found = []
        for descriptor in opened.referrers(digest, PROOF):
            try:
                record = _record(opened, opened.manifest(str(descriptor.get("digest"))))
            except RegistryLacks:  # the list outlives what a registry's garbage collection removed
                continue
            if record is not None and record.digest == digest:
                found.append(record)
    return sorted(found, key=lambda record: record.finished, reverse=True)


def newest_proved(repository: str, environment: str) -> ProofRecord | None:
    """Return the proof that moved `proved-ENVIRONMENT` last, None where there was none.

    Raise `RegistryError` where that tag is not such a proof, or the registry is away or refuses.
    """
    tag = _tag(environment)
    with Repository(repository) as opened:
        try:
            record = _record(opened, opened.manifest(tag))
        except RegistryLacks:
            return None
    if record is None or (record.environment, record.verdict) != (environment, "proved"):
        raise RegistryError(
            f"{repository}:{tag} is not a proof of {environment}: somebody else moved it;"
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
        raise UsageError(
            f"pyproject.toml: environment `{environment}`: use letters, digits, `.`, `_` and `-`, as it names a tag"
        )
    return tag


def _annotations(facts: ProofFacts) -> dict[str, str]:
    return {
        "org.opencontainers.image.created": facts.finished,
        "vnd.slipway.proof.environment": facts.environment,
        "vnd.slipway.proof.finished": facts.finished,
        "vnd.slipway.proof.verdict": facts.verdict,
        **({"org.opencontainers.image.revision": facts.commit} if facts.commit else {}),
    }


def _is_older(repository: Repository, tag: str, finished: str) -> bool:
    """Return whether a deploy that `finished` then is older than the one of `tag`: its upload took long."""
    try:
        record = _record(repository, repository.manifest(tag))
    except RegistryLacks:
        return False
    return record is not None and record.finished > datetime.fromisoformat(finished)


def _record(repository: Repository, manifest: Manifest) -> ProofRecord | None:
    """Return the proof in `manifest`, None where it is not one."""
    # The content counts: annotations are for people who look by hand.
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
            and all(DIGEST.fullmatch(image) for image in images.values())
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
