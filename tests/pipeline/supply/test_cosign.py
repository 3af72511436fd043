"""cosign's command line, and its words (recorded from version 3.1.3) as lines with a fix."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pipeline.config.policy import Policy
from pipeline.errors import SlipwayError, UsageError
from pipeline.supply import cosign
from pipeline.supply.cosign import PROVENANCE, Cosign, Signer, complaint, signer, verify_command
from tests.logs import logged

PLACE = f"ghcr.io/owner/board@sha256:{'1' * 64}"
MAIN = "https://github.com/owner/board/.github/workflows/cd.yml@refs/heads/main"
RELEASE = PLACE.replace("1", "2")  # whose frontend, say, PLACE is
KEYLESS = Policy(identity=MAIN)
# What it said to a certificate with the identity MAIN, where another one was expected.
ANOTHER = (
    "Error: no matching attestations: failed to verify certificate identity: no matching CertificateIdentity found,"
    ' last error: expected SAN value "https://github.com/other/x", got'
    f' "{MAIN}"\nerror during command execution: no matching attestations: …'
)
NO_ROOT = (
    "Error: setting trusted material: getting trusted root from TUF for new bundle verification: error getting live"
    " trusted root: failed to create TUF client failed to load metadata: tuf refresh failed: Get"
    ' "https://tuf-repo-cdn.sigstore.dev/15.root.json": dial tcp: lookup tuf-repo-cdn.sigstore.dev: no such host'
)
NOT_IN_LOG = (
    "Error: no matching attestations: failed to verify log inclusion: not enough verified log entries from"
    " transparency log: 0 < 1"
)


class TestCommands:
    def test_verify_a_key_without_a_log(self) -> None:
        """There is none where a key signs."""
        assert verify_command(Policy(key="cosign.pub"), PLACE) == [
            "cosign", "verify", "--output", "json", "--key", "cosign.pub", "--insecure-ignore-tlog", PLACE,
        ]  # fmt: skip

    def test_verify_an_identity_to_the_letter_and_in_the_log(self) -> None:
        """No pattern, and nothing is left out."""
        assert verify_command(KEYLESS, PLACE, attestation=PROVENANCE) == [
            "cosign", "verify-attestation", "--type", PROVENANCE, "--certificate-identity", MAIN,
            "--certificate-oidc-issuer", "https://token.actions.githubusercontent.com", PLACE,
        ]  # fmt: skip

    def test_sign_with_a_key_and_no_service(self) -> None:
        """Keyless asks Sigstore for all of it."""
        assert Signer("k").arguments(Path("/f")) == [
            "--yes", "--key", "k", "--signing-config=/f/signing-config", "--trusted-root=/f/trusted-root",
        ]  # fmt: skip
        assert Signer(None).arguments(Path("/f")) == ["--yes"]


class TestSigner:
    def test_is_the_key_that_is_named(self, tmp_path: Path) -> None:
        """On GitHub, too."""
        key = tmp_path / "cosign.key"
        key.touch()
        both = {"COSIGN_KEY": str(key), "COSIGN_PASSWORD": "", "ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"}
        assert signer(both) == Signer(str(key))
        assert signer({"COSIGN_KEY": "awskms:///alias/x"}) == Signer("awskms:///alias/x")

    def test_is_the_job_on_github(self) -> None:
        """By the identity that GitHub gives it."""
        assert signer({"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"}) == Signer(None)

    @pytest.mark.parametrize(
        ("variables", "says"),
        [
            ({}, "COSIGN_KEY: not set: the private key to sign with; `cosign generate-key-pair` makes one"),
            ({"GITHUB_ACTIONS": "true"}, "give it the permission `id-token: write`"),
            ({"COSIGN_KEY": "nowhere.key", "COSIGN_PASSWORD": ""}, "COSIGN_KEY: there is no nowhere.key"),
            ({"COSIGN_KEY": "env://KEY"}, "COSIGN_PASSWORD: not set"),
        ],
    )
    def test_is_said_to_be_missing(self, variables: dict[str, str], says: str) -> None:
        """One line with what to do."""
        with pytest.raises(UsageError) as caught:
            signer(variables)
        assert says in str(caught.value)


class TestComplaint:
    def test_names_who_signed_and_who_should_have(self) -> None:
        """The identity of a certificate, as cosign found it."""
        line = complaint(ANOTHER, PLACE, PLACE, Policy(identity="https://github.com/other/x"))
        assert line == (
            f"{PLACE}: signed by {MAIN} and not by https://github.com/other/x: use the image that the latter made"
        )

    @pytest.mark.parametrize(
        ("said", "means"),
        [
            (NO_ROOT, "Sigstore's trusted root cannot be fetched (tuf-repo-cdn.sigstore.dev): try again when it can"),
            (NOT_IN_LOG, f"no entry of Sigstore's log vouches for its signature: `nox -s sign -- {RELEASE}` again"),
            ("Error: no signatures found", f"not signed: `nox -s sign -- {RELEASE}` as {KEYLESS.signer}"),
            (
                "Error: no matching attestations: expected key signature, not certificate",
                (
                    f"signed by an identity and not by {KEYLESS.signer}: use an image that is,"
                    f" or `nox -s sign -- {RELEASE}`"
                ),
            ),
            ("Error: something new\nerror during command execution: something new", "cosign: something new"),
            ("", "cosign: it said nothing"),
        ],
    )
    def test_is_one_line_with_a_fix(self, said: str, means: str) -> None:
        """The image first; what is not known is passed on."""
        assert complaint(said, PLACE, RELEASE, KEYLESS) == f"{PLACE}: {means}"


class TestARegistryThatHasEnough:
    @pytest.mark.parametrize("times", [1, 3])
    def test_is_asked_again_later(self, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As GHCR answers who asks much; and for good it is a line."""
        said = 'echo "Error: GET https://ghcr.io/v2/x: TOOMANYREQUESTS: retry-after: 1s" >&2; exit 1'
        count = f'echo >>{tmp_path}/asked; [ "$(wc -l <{tmp_path}/asked)" -gt {times} ] && exit 0'
        (tmp_path / "cosign").write_text(f"#!/bin/sh\n{count}\n{said}\n")
        (tmp_path / "cosign").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(cosign, "PAUSES", (0, 0))
        one = Cosign(PLACE)
        if times == 1:
            with logged(logging.INFO) as told:
                one.sign(Signer("k"), [PLACE])
            assert "the registry wants fewer requests: asking again in 0 s" in told
        else:
            with pytest.raises(SlipwayError, match=f"^{PLACE}: the registry answers no more for now"):
                one.sign(Signer("k"), [PLACE])


class TestMissing:
    def test_is_said_with_where_to_get_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Before anything else."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(
            UsageError, match=r"cosign: not installed \(or not on the PATH\), version 3 is needed: http"
        ):
            Cosign(PLACE).sign(Signer("k"), [PLACE])
