"""Images in a registry: pushed, shipped by digest, pinned; and what is said when there is none."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.images.pins import find_pins
from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import free_port
from tests.registries import played, running_registry

pytestmark = pytest.mark.e2e

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture(scope="module", name="registry")
def _registry() -> Iterator[str]:
    """An empty registry of this module's own: its address."""
    with running_registry() as address:
        yield address
        forget(f"{address}/team/board")


def forget(repository: str) -> None:
    """Remove the names that REPOSITORY has here: by tag, and by digest where that is all there is."""
    listed = docker("images", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}", repository)
    for name, digest in (line.split() for line in listed.splitlines()):
        docker("rmi", f"{repository}@{digest}" if name.endswith(":<none>") else name)


def test_what_was_pushed_is_shipped_by_its_digest(registry: str, checkout: ComposeCheckout) -> None:
    """The digest is the last line; another machine needs nothing but that to ship it, and to go back to it."""
    repository = f"{registry}/team/board"
    pushed = checkout.run("push", IMAGE_REPOSITORY=repository)
    assert pushed.code == 0, pushed.stderr
    digest = pushed.stdout.splitlines()[-1]
    assert DIGEST.fullmatch(digest)
    checkout.forget_images()
    forget(repository)
    shipped = checkout.proved("--release", f"{repository}@{digest}")
    assert shipped.release == digest
    assert checkout.answering() == {digest}
    checkout.change("built here")
    built = checkout.proved()
    back = checkout.run("rollback")
    assert (back.code, back.release) == (0, shipped.release), str(back)
    assert built.release != shipped.release


@pytest.mark.parametrize(
    ("repository", "code", "says"),
    [
        ("", 2, "IMAGE_REPOSITORY: not set"),
        ("ghcr.io/owner/name:1", 2, "for example ghcr.io/owner/name"),
        ("localhost:{port}/team/board", 1, "docker push: "),
    ],
)
def test_a_push_that_cannot_be_says_why(repository: str, code: int, says: str, checkout: ComposeCheckout) -> None:
    """No repository, a name that is none, a registry that is away: one line each."""
    place = repository.format(port=free_port())
    refused = checkout.run("push", IMAGE_REPOSITORY=place)
    if code == 1:
        forget(place)
    assert refused.code == code, str(refused)
    assert says in refused.problems()[0]
    assert refused.stdout == ""


def test_a_digest_that_nobody_has_is_said(registry: str, checkout: ComposeCheckout) -> None:
    """Nothing is touched for a release that cannot be had."""
    nowhere = f"{registry}/team/board@sha256:{'0' * 64}"
    refused = checkout.deploy("--release", nowhere)
    assert refused.code in (1, 2), str(refused)
    assert "docker pull" in refused.problems()[0]
    assert checkout.containers() == []


def test_a_moved_tag_is_noticed(registry: str, checkout: ComposeCheckout) -> None:
    """The service is found by its digest, its migrations by a tag beside it: those of another release are refused."""
    repository = f"{registry}/team/moved"
    digest = checkout.run("push", IMAGE_REPOSITORY=repository).stdout.splitlines()[-1]
    tag = f"{repository}:migrate-{digest.removeprefix('sha256:')[:12]}"
    docker("tag", "redis:8-trixie", tag)
    docker("push", "--quiet", tag)
    docker("rmi", tag)
    refused = checkout.deploy("--release", f"{repository}@{digest}")
    assert refused.code == 2, str(refused)
    assert f"{tag} is not of the release {digest}: its tag was moved" in refused.problems()[0]
    assert checkout.containers() == []
    forget(repository)
    checkout.forget_images()


@pytest.mark.parametrize("login", [None, "deployer:not-the-password"])
def test_a_registry_that_refuses_us_is_named_with_the_fix(
    login: str | None, checkout: ComposeCheckout, tmp_path: Path
) -> None:
    """Without a login, and with a wrong one; and the password is not said."""
    with played(auth="Basic") as closed:
        known = {closed.address: {"auth": base64.b64encode(login.encode()).decode()}} if login else {}
        (tmp_path / "config.json").write_text(json.dumps({"auths": known}))
        repository, digest = f"{closed.address}/team/board", f"sha256:{'0' * 64}"
        environ = {"DOCKER_CONFIG": str(tmp_path), "IMAGE_REPOSITORY": repository}
        pushed, shipped = checkout.run("push", **environ), checkout.deploy("--release", digest, **environ)
    for verb, refused in (("push", pushed), ("pull", shipped)):
        [problem] = refused.problems()
        assert refused.code == 1, str(refused)
        assert f": `docker login {closed.address}` as somebody who may {verb} {repository}" in problem
        assert "not-the-password" not in refused.stderr
    assert checkout.containers() == []
    forget(repository)
    checkout.forget_images()


def test_base_images_are_pinned_where_a_registry_answers(registry: str, checkout: ComposeCheckout) -> None:
    """Each named image gets its digest; without an answer nothing is changed; pinned once, there is nothing to do."""
    tagged = set[str]()
    for pin in find_pins(checkout.root):
        ours = pin.name.startswith(("python:", "caddy:", "postgres:", "redis:"))
        name = pin.name if ours else "postgres:18-trixie"  # that registry has no other
        path = checkout.root / pin.file
        path.write_text(re.sub(rf"(?<![\w/]){re.escape(pin.name)}", f"{registry}/{name}", path.read_text()))
        tagged.add(re.sub(r"\$\{PYTHON_VERSION(:-3.13)?\}", "3.13", name))
    for real in tagged - {"redis:8-trixie"}:
        docker("tag", real, f"{registry}/{real}")
        docker("push", "--quiet", f"{registry}/{real}")
        docker("rmi", f"{registry}/{real}")
    before = (checkout.root / "docker-compose.yml").read_text()
    refused = checkout.run("pins", "--write")
    assert refused.code == 1, str(refused)
    assert f"no registry answered for {registry}/redis:8-trixie" in refused.problems()[0]
    assert (checkout.root / "docker-compose.yml").read_text() == before
    docker("tag", "redis:8-trixie", f"{registry}/redis:8-trixie")
    docker("push", "--quiet", f"{registry}/redis:8-trixie")
    docker("rmi", f"{registry}/redis:8-trixie")
    assert checkout.run("pins").code == 1
    assert checkout.run("pins", "--write").code == 0
    assert checkout.run("pins").code == 0
    pins = find_pins(checkout.root)
    assert [pin for pin in pins if not DIGEST.fullmatch(pin.digest or "")] == []
    assert Counter(pin.file for pin in pins)["docker-compose.yml"] == 4  # PostgreSQL's twice
    built = checkout.run("build")
    assert built.code == 0, str(built)
    checkout.forget_images()
