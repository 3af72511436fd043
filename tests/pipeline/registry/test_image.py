"""Proofs in a registry: the real one, in which clients keep the lists, and one with the referrers API."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import UsageError
from pipeline.registry import repository as oci
from pipeline.registry.connection import RegistryError, RegistryLacks
from pipeline.registry.image import image_ids, image_platforms, is_image, resolve
from pipeline.registry.proofs import PROOF, attach_proof, newest_proved, proofs
from pipeline.registry.repository import ARTIFACT, Repository, written
from tests.containers import docker
from tests.registries import played, push_image, push_index, report


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes to a test's registry."""
    monkeypatch.setattr(oci, "SETTLE_SECONDS", (0.01, 0.02))


class TestAttachProof:
    def test_is_found_from_the_digest(self, repository: str) -> None:
        """What was attached is read back, whole, by whoever knows the digest."""
        digest = push_image(repository)
        migrate = f"sha256:{'2' * 64}"
        attached = attach_proof(f"{repository}@{digest}", report(), images={"migrate": migrate})
        [record] = proofs(repository, digest)
        assert (record.artifact, record.reference) == (attached, f"{repository}@{digest}")
        assert (record.environment, record.verdict, record.commit) == ("staging", "proved", "0123abc")
        assert record.finished.isoformat() == "2026-11-24T12:00:00+00:00"
        assert record.images == {"migrate": migrate}
        assert record.content["traffic"]["sent"] == 900

    def test_says_nothing_that_is_for_the_environment_alone(self, repository: str) -> None:
        """Addresses, reasons and answers of a service can hold anything; annotations tell the rest by hand."""
        digest = push_image(repository)
        attached = attach_proof(f"{repository}@{digest}", report(verdict="failed"))
        with Repository(repository) as opened:
            manifest = opened.manifest(attached).content
            blob = opened.blob(manifest["layers"][0]["digest"], limit=10_000).decode()
        assert "hunter2" not in blob + json.dumps(manifest)
        assert manifest["artifactType"] == PROOF
        assert manifest["subject"]["digest"] == digest
        assert manifest["annotations"] == {
            "org.opencontainers.image.created": "2026-11-24T12:00:00+00:00",
            "org.opencontainers.image.revision": "0123abc",
            "vnd.slipway.proof.environment": "staging",
            "vnd.slipway.proof.finished": "2026-11-24T12:00:00+00:00",
            "vnd.slipway.proof.verdict": "failed",
        }

    def test_twice_is_one_proof(self, repository: str) -> None:
        """A deploy that repeats its upload adds nothing."""
        digest = push_image(repository)
        for _ in range(2):
            attach_proof(f"{repository}@{digest}", report())
        assert len(proofs(repository, digest)) == 1

    def test_newest_come_first(self, repository: str) -> None:
        """By when the deploys ended, not by when they were attached."""
        digest = push_image(repository)
        for minute in (3, 1):
            attach_proof(f"{repository}@{digest}", report(minute=minute))
        assert [record.finished.minute for record in proofs(repository, digest)] == [3, 1]

    def test_needs_a_digest(self) -> None:
        """A tag can be another image tomorrow."""
        with pytest.raises(UsageError, match=r"localhost:1/team/board@sha256:…"):
            attach_proof("localhost:1/team/board:latest", report())

    def test_needs_a_verdict_that_judges(self) -> None:
        """Nothing is known of a digest from a deploy that was interrupted."""
        with pytest.raises(ValueError, match="interrupted"):
            attach_proof(f"localhost:1/team/board@sha256:{'0' * 64}", report(verdict="interrupted"))

    def test_needs_an_environment_that_can_be_a_tag(self) -> None:
        """The line says where its name is."""
        with pytest.raises(UsageError, match=r"pyproject.toml: environment `my staging`: use letters"):
            attach_proof(f"localhost:1/team/board@sha256:{'0' * 64}", report("my staging"))

    def test_needs_the_image(self, repository: str) -> None:
        """Nothing is pushed for a digest that nobody has."""
        with pytest.raises(RegistryLacks, match=f"{repository}@sha256:0.*: not in the registry"):
            attach_proof(f"{repository}@sha256:{'0' * 64}", report())


class TestListsThatClientsKeep:
    def test_lose_nothing_to_each_other(self, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Deploys to several environments attach to one digest at once."""
        monkeypatch.setattr(oci, "SETTLE_SECONDS", (0.3, 0.9))
        repository = f"{registry}/team/at-once"
        digest = push_image(repository)
        names = [f"stage-{number}" for number in range(4)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: attach_proof(f"{repository}@{digest}", report(name)), names))
        assert sorted(record.environment for record in proofs(repository, digest)) == names

    def test_keep_what_others_attached(self, registry: str) -> None:
        """Signatures are in the same list, and are no proofs."""
        repository = f"{registry}/team/signed"
        digest = push_image(repository)
        entry = {
            "mediaType": ARTIFACT,
            "digest": push_image(repository, "a signature"),
            "size": 1,
            "artifactType": "x/y",
        }
        index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
        tag = digest.replace(":", "-")
        with Repository(repository, write=True) as opened:
            opened.put_manifest(tag, written(index), index["mediaType"])  # type: ignore[arg-type]
            attach_proof(f"{repository}@{digest}", report())
            listed = opened.manifest(tag).content["manifests"]
        assert listed[0] == entry
        assert [one["artifactType"] for one in listed] == ["x/y", PROOF]
        assert listed[1]["annotations"]["vnd.slipway.proof.verdict"] == "proved"
        assert len(proofs(repository, digest)) == 1

    def test_are_not_written_over_something_else(self, registry: str) -> None:
        """A tag of that name that is an image stays what it is."""
        repository = f"{registry}/team/taken"
        digest = push_image(repository)
        push_image(repository, "somebody's", tag=digest.replace(":", "-"))
        with pytest.raises(RegistryError, match=r"not a list of referrers: delete that tag"):
            attach_proof(f"{repository}@{digest}", report())

    def test_are_read_where_the_api_is_a_page(self) -> None:
        """Some registries answer what they do not know with 200 and HTML, or lead to one."""
        for answer in ((200, {}, b"<html>"), (303, {"Location": "https://example.com/"}, b"")):
            with played(api=False) as registry:
                repository = f"{registry.address}/team/board"
                digest = push_image(repository)
                registry.answers[f"GET /v2/team/board/referrers/{digest}"] = [answer]
                attach_proof(f"{repository}@{digest}", report())
                assert len(proofs(repository, digest)) == 1


class TestProofs:
    def test_are_found_where_the_registry_tells_another_type(self) -> None:
        """Some list an artifact by the type of its config, and tell nothing of its annotations."""
        with played(old=True) as registry:
            repository = f"{registry.address}/team/board"
            digest = push_image(repository)
            attached = attach_proof(f"{repository}@{digest}", report())
            assert [record.artifact for record in proofs(repository, digest)] == [attached]

    def test_are_none_of_an_image_without(self, repository: str) -> None:
        """Nor of one that is not there."""
        assert proofs(repository, push_image(repository)) == []
        assert proofs(repository, f"sha256:{'0' * 64}") == []

    @pytest.mark.parametrize(
        "content",
        [b"no json", b"[]", written({"schema": "slipway.proof/1", "digest": f"sha256:{'9' * 64}"}), b" " * 70_000],
    )
    def test_are_not_what_only_looks_like_one(self, content: bytes, repository: str) -> None:
        """Anybody who may push can attach something; what is no proof neither counts nor hides those that are."""
        digest = push_image(repository)
        with Repository(repository, write=True) as opened:
            subject = opened.manifest(digest)
            opened.attach(
                {
                    "schemaVersion": 2,
                    "mediaType": ARTIFACT,
                    "artifactType": PROOF,
                    "config": {"mediaType": "application/vnd.oci.empty.v1+json", **opened.put_blob(b"{}")},
                    "layers": [{"mediaType": PROOF, **opened.put_blob(content)}],
                    "subject": {"mediaType": subject.media_type, "digest": digest, "size": subject.size},
                }
            )
        attached = attach_proof(f"{repository}@{digest}", report())
        assert [record.artifact for record in proofs(repository, digest)] == [attached]

    def test_are_of_their_own_digest(self, repository: str) -> None:
        """A proof that was copied to another image is none of that."""
        first, second = push_image(repository, "first"), push_image(repository, "second")
        attached = attach_proof(f"{repository}@{first}", report())
        with Repository(repository, write=True) as opened:
            copy = opened.manifest(attached).content
            opened.attach({**copy, "subject": {**copy["subject"], "digest": second}})
        assert proofs(repository, second) == []


class TestNewestProved:
    def test_is_the_last_that_was(self, repository: str) -> None:
        """An older digest that was proved again is the newest; a failed deploy is none, nor is another's."""
        assert newest_proved(repository, "staging") is None
        first, second, third = (push_image(repository, name) for name in "abc")
        attach_proof(f"{repository}@{first}", report(minute=1))
        attach_proof(f"{repository}@{second}", report(minute=2))
        attach_proof(f"{repository}@{third}", report(minute=3, verdict="rolled_back"))
        attach_proof(f"{repository}@{third}", report("kind", minute=4))
        newest = newest_proved(repository, "staging")
        assert newest is not None
        assert newest.reference == f"{repository}@{second}"
        attach_proof(f"{repository}@{first}", report(minute=5))
        again = newest_proved(repository, "staging")
        assert again is not None
        assert again.reference == f"{repository}@{first}"

    def test_is_not_one_that_came_late(self, repository: str) -> None:
        """An upload that took long does not move the tag back."""
        first, second = push_image(repository, "first"), push_image(repository, "second")
        attach_proof(f"{repository}@{second}", report(minute=2))
        attach_proof(f"{repository}@{first}", report(minute=1))
        newest = newest_proved(repository, "staging")
        assert newest is not None
        assert newest.digest == second

    def test_is_no_image_that_got_the_tag(self, repository: str) -> None:
        """What moved it, and what sets it again."""
        push_image(repository, tag="proved-staging")
        with pytest.raises(
            RegistryError, match=r":proved-staging is not a proof of staging.*`nox -s deploy -- staging`"
        ):
            newest_proved(repository, "staging")


class TestTag:
    def test_names_the_same_bytes(self, repository: str) -> None:
        """An index that was pushed by digest is what its tag names."""
        index, _ = push_index(repository, "amd64", "arm64")
        with Repository(repository, write=True) as opened:
            opened.tag(index, "frontend-0123")
        assert resolve(f"{repository}:frontend-0123").digest == index


class TestResolve:
    def test_knows_each_platform_of_an_index(self, repository: str) -> None:
        """Its manifest and its config, and no attestation."""
        index, [amd64, arm64, attestation] = push_index(repository, "amd64", "arm64")
        image = resolve(f"{repository}:latest")
        assert (image.digest, image.reference) == (index, f"{repository}@{index}")
        assert [(one.name, one.digest) for one in image.platforms] == [("linux/amd64", amd64), ("linux/arm64", arm64)]
        configs = {one.config for one in image.platforms}
        assert image_ids(f"{repository}@{index}") == {index, amd64, arm64, *configs}
        assert attestation not in image.ids

    def test_knows_an_image_alone(self, repository: str) -> None:
        """By its manifest and its config."""
        digest = push_image(repository)
        image = resolve(f"{repository}@{digest}")
        assert image.media_type == ARTIFACT
        assert image.ids == {digest, image.platforms[0].config}

    def test_says_that_a_tag_was_moved(self, repository: str) -> None:
        """Which it is, which it was to be, and the name that cannot move."""
        before, now = push_image(repository, "before"), push_image(repository, "now")
        fix = f"{repository}:latest is {now} now and not {before}: the tag was moved; name {repository}@{before}"
        with pytest.raises(RegistryError, match=fix):
            resolve(f"{repository}:latest@{before}")
        assert resolve(f"{repository}:latest@{now}").digest == now

    def test_says_what_is_no_image(self) -> None:
        """A manifest without a config, which some registries take."""
        with played() as registry:
            odd = written({"schemaVersion": 2, "mediaType": ARTIFACT, "layers": []})
            with Repository(f"{registry.address}/team/board", write=True) as opened:
                opened.put_manifest("odd", odd, ARTIFACT)
            with pytest.raises(RegistryError, match="is not an image: name an image"):
                resolve(f"{registry.address}/team/board:odd")

    def test_knows_what_an_engine_calls_it(self, registry: str) -> None:
        """The names that a Docker Engine has for what it pushed are among the IDs."""
        reference = f"{registry}/team/engine:1"
        subprocess.run(
            ["docker", "build", "--quiet", "--tag", reference, "-"],
            input="FROM scratch\nLABEL slipway.test=engine\n",
            text=True,
            check=True,
            capture_output=True,
        )
        docker("push", "--quiet", reference)
        [name] = json.loads(docker("image", "inspect", "--format", "{{json .RepoDigests}}", reference))
        ident = docker("image", "inspect", "--format", "{{.Id}}", reference)
        docker("rmi", reference)
        ids = image_ids(reference)
        assert is_image(name, ids)
        assert is_image(ident, ids)
        assert is_image(f"docker-pullable://{name}", ids)
        assert not is_image(f"{registry}/team/engine@sha256:{'0' * 64}", ids)
        assert not is_image("", ids)


class TestImagePlatforms:
    def test_are_those_of_an_index_or_of_the_image_itself(self, repository: str) -> None:
        """An attestation is none."""
        index, _ = push_index(repository, "amd64", "arm64")
        assert image_platforms(f"{repository}@{index}") == {"linux/amd64", "linux/arm64"}
        assert image_platforms(f"{repository}@{push_image(repository)}") == {"linux/amd64"}
