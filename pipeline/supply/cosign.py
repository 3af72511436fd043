"""The cosign command line, version 3: how it signs and verifies, and its complaint about an image in one line.

A key pair works without Sigstore's services: an empty signing configuration and an empty trusted root keep cosign from
using them, and no name of a private image gets into a public log. Keyless signing rests on those services alone.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.policy import Policy
from pipeline.errors import SlipwayError, UsageError
from pipeline.system.run import CommandFailed, run
from pipeline.system.text import shorten

__all__ = ["CYCLONEDX", "PROVENANCE", "SIGNATURE", "Cosign", "Signer", "complaint", "signer", "verify_command"]

log = logging.getLogger(__name__)

SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
PROVENANCE = "https://slsa.dev/provenance/v1"
NO_SERVICES = {
    "signing-config": '{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json",'
    '"rekorTlogConfig":{},"tsaConfig":{}}',
    "trusted-root": '{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}',
}
TIMEOUT_SECONDS = 240  # cosign gives up by itself after 180
ISSUED = "https://docs.sigstore.dev/cosign/system_config/installation"


@dataclass(frozen=True)
class Signer:
    """The key or identity that signs.

    That is the private key that `key` names (a file, `env://NAME`, an address of a KMS), or, with None, the identity
    that GitHub Actions gives a job.
    """

    key: str | None

    def arguments(self, folder: Path) -> list[str]:
        """Return the options of `cosign sign` and `cosign attest`; `folder` holds the files of `NO_SERVICES`."""
        if self.key is None:
            return ["--yes"]
        return ["--yes", "--key", self.key, *(f"--{name}={folder / name}" for name in NO_SERVICES)]


def signer(environment: Mapping[str, str]) -> Signer:
    """Return who signs in this place, by the variables of the process. Raise `UsageError` where nobody can."""
    key = environment.get("COSIGN_KEY")
    if key:
        if "://" not in key and not Path(key).is_file():
            raise UsageError(f"COSIGN_KEY: there is no {key}: `cosign generate-key-pair` makes cosign.key, cosign.pub")
        if ("://" not in key or key.startswith("env://")) and "COSIGN_PASSWORD" not in environment:
            raise UsageError("COSIGN_PASSWORD: not set: the password of COSIGN_KEY, empty where it has none")
        return Signer(key)
    if "ACTIONS_ID_TOKEN_REQUEST_URL" in environment:
        return Signer(None)
    if environment.get("GITHUB_ACTIONS"):
        raise UsageError("sign: the job has no identity to sign with: give it the permission `id-token: write`")
    raise UsageError(
        "COSIGN_KEY: not set: the private key to sign with; `cosign generate-key-pair` makes one"
        " (cosign.key is a secret, cosign.pub goes into the repository)"
    )


def verify_command(policy: Policy, reference: str, *, attestation: str | None = None) -> list[str]:
    """Return the command line that verifies all that is signed of `reference`, or its attestations of one type."""
    verb = ["verify-attestation", "--type", attestation] if attestation else ["verify", "--output", "json"]
    # Without Sigstore's services, a signature by a key is not in any log that could be checked.
    by_key = ["--key", str(policy.key), "--insecure-ignore-tlog"]
    by_name = ["--certificate-identity", str(policy.identity), "--certificate-oidc-issuer", policy.issuer]
    return ["cosign", *verb, *(by_key if policy.key else by_name), reference]


@dataclass(frozen=True)
class Cosign:
    """Runs cosign for the images of a `release` (its service's, by digest: what `nox -s sign` takes).

    Each method raises `SlipwayError` with one line.
    """

    release: str

    def sign(self, signer: Signer, references: Sequence[str]) -> None:
        """Sign the images `references` (by digest)."""
        with _folder() as folder:
            self._run(["cosign", "sign", *signer.arguments(folder), *references], references[0])

    def attest(self, signer: Signer, reference: str, kind: str, predicate: Path) -> None:
        """Attach an attestation of `kind`, with the content of the file `predicate`, to `reference`."""
        options = ["--type", kind, "--predicate", str(predicate)]
        with _folder() as folder:
            self._run(["cosign", "attest", *signer.arguments(folder), *options, reference], reference)

    def signed(self, policy: Policy, reference: str) -> set[str]:
        """Return the types (SIGNATURE, CYCLONEDX, …) of what the signer of `policy` has signed of `reference`."""
        # `cosign verify` accepts any attestation as a signature; its answer says which it was.
        answer = self._run(verify_command(policy, reference), reference, policy)
        return {entry["critical"]["type"] for entry in json.loads(answer)}

    def attestations(self, policy: Policy, reference: str, kind: str) -> list[dict[str, Any]]:
        """Return the verified predicates of one `kind`."""
        answer = self._run(verify_command(policy, reference, attestation=kind), reference, policy)
        envelopes = [json.loads(line) for line in answer.splitlines() if line.strip()]
        statements = [json.loads(base64.b64decode(envelope["payload"])) for envelope in envelopes]
        return [statement["predicate"] for statement in statements if statement.get("predicateType") == kind]

    def _run(self, command: list[str], reference: str, policy: Policy | None = None) -> str:
        if shutil.which("cosign") is None:
            raise UsageError(f"cosign: not installed (or not on the PATH), version 3 is needed: {ISSUED}")
        # cosign reads each option from a variable, too: COSIGN_KEY would decide who must have signed.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("COSIGN_") or name in KEPT
        }
        for pause in (*PAUSES, None):
            try:
                return run(command, output_level=logging.DEBUG, env=environment, timeout=TIMEOUT_SECONDS)
            except CommandFailed as error:
                failed = error
            if pause is None or not any(sign in failed.output for sign in TOO_MANY):
                break
            log.info(f"the registry wants fewer requests: asking again in {pause} s")
            time.sleep(pause)
        raise SlipwayError(complaint(failed.output, reference, self.release, policy)) from failed


PAUSES = (5, 20)  # seconds: GHCR accepts requests again after a few
TOO_MANY = ("TOOMANYREQUESTS", "429 Too Many Requests")
KEPT = ("COSIGN_PASSWORD", "COSIGN_PRIVATE_KEY", "COSIGN_MAX_ATTACHMENT_SIZE")


def complaint(said: str, reference: str, release: str, policy: Policy | None = None) -> str:
    """Return in one line, with its fix, what cosign `said` against `reference` of a `release`.

    `policy`: who should have signed it.
    """
    who = policy.signer if policy else ""
    again = f"`nox -s sign -- {release}`"
    identity = re.search(r'expected (?:SAN|issuer) value "([^"]*)", got "([^"]*)"', said)
    if identity:
        return f"{reference}: signed by {identity[2]} and not by {identity[1]}: use the image that the latter made"
    known = {  # the graver ones first: cosign prints a line for each signature that does not hold
        "does not match any digest in statement": "its signature is of another image and was copied: do not run it;"
        " find out who pushed it",
        "no signatures found": f"not signed: {again} as {who}",
        "expected key signature": f"signed by an identity and not by {who}: use an image that is, or {again}",
        "expected certificate signature": f"signed by a key and not by {who}: use an image that is",
        "signatures do not match threshold": f"signed by another key than {who}: use an image that is, or {again}",
        "transparency log": f"no entry of Sigstore's log vouches for its signature: {again} again",
        "no matching attestations": f"{who} signed nothing of it: {again}",
        "none of the attestations matched": f"it has no such attestation: {again}",
        "MANIFEST_UNKNOWN": "not in the registry: is its name right, and was it pushed?",
        "NAME_UNKNOWN": "not in the registry: is its name right, and was it pushed?",
        **dict.fromkeys(TOO_MANY, "the registry answers no more for now (too many requests): try again in a minute"),
        "UNAUTHORIZED": "the registry wants a login: `docker login` there",
        "DENIED": "the registry does not allow it: `docker login` there as a user who may write",
        "connection refused": "the registry does not answer: is it up, and its name right?",
        "decryption failed": "COSIGN_PASSWORD is not the password of COSIGN_KEY: set the right one",
        "unsupported pem type": "COSIGN_KEY is not a private key of cosign: `cosign generate-key-pair` makes one",
        "from TUF": "Sigstore's trusted root cannot be fetched (tuf-repo-cdn.sigstore.dev): try again when it can",
        "rekor.sigstore.dev": "Sigstore's log refused it: try again later; an attestation of some MiB is too large",
    }
    for sign, meaning in known.items():
        if sign in said:
            return f"{reference}: {meaning}"
    lines = [line.removeprefix("Error: ") for line in said.splitlines() if line.startswith("Error: ")]
    return f"{reference}: cosign: {shorten((lines or [said.strip() or 'it said nothing'])[-1])}"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="slipway-") as name:
        for file, text in NO_SERVICES.items():
            (Path(name) / file).write_text(text, encoding="utf-8")
        yield Path(name)
