"""What an environment may run that promotes from another one."""

from __future__ import annotations

import pytest

from pipeline.config.project import KubernetesEnvironment
from pipeline.errors import UsageError
from pipeline.images.promotion import admit
from pipeline.registry import repository as oci
from pipeline.registry.proofs import attach_proof
from tests.registries import played, push_image, report

PRODUCTION = KubernetesEnvironment(
    name="production", url="https://example.com", overlay="o", context="c", namespace="n", promote_from="staging"
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes to a test's registry."""
    monkeypatch.setattr(oci, "SETTLE_SECONDS", (0.01, 0.02))


class TestAdmit:
    def test_takes_the_newest_that_was_proved(self, repository: str) -> None:
        """Nobody names it, and no cluster is asked."""
        older, newer = push_image(repository, "older"), push_image(repository, "newer")
        attach_proof(f"{repository}@{older}", report(minute=1))
        attach_proof(f"{repository}@{newer}", report(minute=2), images={"migrate": older})
        admitted = admit(PRODUCTION, None, repository=repository)
        assert admitted is not None
        assert admitted.reference == f"{repository}@{newer}"
        assert admitted.images == {"migrate": older}

    def test_takes_an_older_one_that_is_named(self, repository: str) -> None:
        """By its digest alone, or with the repository."""
        older, newer = push_image(repository, "older"), push_image(repository, "newer")
        attach_proof(f"{repository}@{older}", report(minute=1))
        attach_proof(f"{repository}@{newer}", report(minute=2))
        for reference in (older, f"{repository}@{older}", f"{repository}:1.2@{older}"):
            admitted = admit(PRODUCTION, reference, repository=repository)
            assert admitted is not None
            assert admitted.digest == older

    def test_takes_the_newest_while_a_list_misses_it(self) -> None:
        """Where clients keep the lists, one may overwrite another's entry for a moment; the tag has it."""
        with played(api=False) as registry:
            repository = f"{registry.address}/team/board"
            digest = push_image(repository)
            attach_proof(f"{repository}@{digest}", report())
            del registry.manifests[digest.replace(":", "-")]
            for reference in (digest, None):
                assert admit(PRODUCTION, reference, repository=repository) is not None

    def test_has_nothing_to_say_where_nothing_is_promoted(self) -> None:
        """No registry is asked."""
        anywhere = PRODUCTION.model_copy(update={"promote_from": None})
        assert admit(anywhere, "anything", repository="localhost:1/a") is None

    def test_takes_nothing_before_the_first_proof(self, repository: str) -> None:
        """A proof of another environment, and a failed deploy, are none."""
        digest = push_image(repository)
        attach_proof(f"{repository}@{digest}", report("kind"))
        attach_proof(f"{repository}@{digest}", report(verdict="failed"))
        says = f"{repository}: no digest was proved in staging yet, .*: `nox -s deploy -- staging` first"
        with pytest.raises(UsageError, match=says):
            admit(PRODUCTION, None, repository=repository)

    def test_refuses_what_was_not_proved_there(self, repository: str) -> None:
        """The digest, the environment, and what to do, in one line."""
        proved, other = push_image(repository, "proved"), push_image(repository, "other")
        attach_proof(f"{repository}@{proved}", report())
        attach_proof(f"{repository}@{other}", report("kind"))
        with pytest.raises(UsageError) as raised:
            admit(PRODUCTION, other, repository=repository)
        assert str(raised.value) == (
            f"{repository}@{other} was not proved in staging, and production takes only what was:"
            f" `nox -s deploy -- staging --release {repository}@{other}` first"
        )

    @pytest.mark.parametrize("named", [True, False])
    def test_refuses_what_failed_after_it_was_proved(self, named: bool, repository: str) -> None:
        """The last deploy there counts, for the newest one too."""
        digest = push_image(repository)
        attach_proof(f"{repository}@{digest}", report(minute=1))
        attach_proof(f"{repository}@{digest}", report(minute=2, verdict="rolled_back"))
        says = rf"@{digest}: its last deploy to staging \(2026-11-24 12:02 UTC\) was rolled back, and production takes"
        with pytest.raises(UsageError, match=says):
            admit(PRODUCTION, digest if named else None, repository=repository)
        attach_proof(f"{repository}@{digest}", report(minute=3))
        assert admit(PRODUCTION, digest if named else None, repository=repository) is not None

    def test_refuses_a_tag(self) -> None:
        """It can be another image tomorrow."""
        with pytest.raises(UsageError, match=r"production takes a digest.*`--release localhost:1/team/board@sha256:…`"):
            admit(PRODUCTION, "localhost:1/team/board:1.2", repository="localhost:1/team/board")

    def test_refuses_another_repository(self, registry: str) -> None:
        """Who may push there could prove anything."""
        repository = f"{registry}/team/own"
        digest = push_image(f"{repository}-mine")
        attach_proof(f"{repository}-mine@{digest}", report())
        with pytest.raises(UsageError, match=f"production takes images of {repository} alone"):
            admit(PRODUCTION, f"{repository}-mine@{digest}", repository=repository)

    def test_leaves_out_what_is_not_trusted(self, repository: str) -> None:
        """A record that somebody else attached is as if it were not there, whether it says proved or not."""
        digest = push_image(repository)
        attach_proof(f"{repository}@{digest}", report(minute=1))
        forged = attach_proof(f"{repository}@{digest}", report(minute=2, verdict="failed"))
        admitted = admit(PRODUCTION, digest, repository=repository, trusted=lambda record: record.artifact != forged)
        assert admitted is not None
        with pytest.raises(UsageError, match="no digest was proved in staging"):
            admit(PRODUCTION, None, repository=repository, trusted=lambda _: False)
