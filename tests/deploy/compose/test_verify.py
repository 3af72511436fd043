"""An environment with `verify` runs what is signed, and nothing else; going back asks nobody."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.test_registry import forget
from tests.pipeline.supply.releases import PASSWORD, key_pair
from tests.tools import need

pytestmark = pytest.mark.e2e


def test_only_what_is_signed_runs(checkout: ComposeCheckout, tmp_path: Path) -> None:
    """Refused before anything is there; shipped once signed; and back with the registry gone."""
    need("cosign")
    ours, other = key_pair(tmp_path, "ours"), key_pair(tmp_path, "other")
    shutil.copy(ours.with_suffix(".pub"), checkout.root / "cosign.pub")
    checkout.patch("pyproject.toml", 'target = "compose"\n', 'target = "compose"\nverify = { key = "cosign.pub" }\n')
    checkout.commit()
    ident = docker("run", "--detach", "--publish", "127.0.0.1::5000", "registry:3")
    repository = f"localhost:{docker('port', ident, '5000/tcp').splitlines()[0].rpartition(':')[2]}/team/board"
    try:
        first = push(checkout, repository)
        for arguments in (["--dry-run"], []):
            refused = checkout.deploy("--release", first, *arguments)
            assert refused.code == 1, str(refused)
            assert f"{first}: not signed: `nox -s sign -- {first}`" in refused.problems()[0]
        assert checkout.containers() == []
        assert checkout.deploy("--release", "1").code != 0, "the number of a refused record is no way round"
        assert checkout.containers() == []
        sign(checkout, first, other)
        assert "signed by another key" in checkout.deploy("--release", first).problems()[0]
        sign(checkout, first, ours)
        shipped = checkout.proved("--release", first)
        assert checkout.answering() == {first.rpartition("@")[2]}

        checkout.change("built here")
        built = checkout.deploy()
        assert built.code == 1, str(built)
        assert "was built here and is not signed; compose requires a signature" in built.problems()[0]
        checkout.commit()
        second = push(checkout, repository)
        sign(checkout, second, ours)
        checkout.proved("--release", second)
    finally:
        docker("rm", "--force", "--volumes", ident)
    back = checkout.run("rollback")
    assert (back.code, back.release) == (0, shipped.release), str(back)
    forget(repository)


def push(checkout: ComposeCheckout, repository: str) -> str:
    pushed = checkout.run("push", IMAGE_REPOSITORY=repository)
    assert pushed.code == 0, pushed.stderr
    return f"{repository}@{pushed.stdout.splitlines()[-1]}"


def sign(checkout: ComposeCheckout, reference: str, key: Path) -> None:
    done = checkout.run("sign", reference, COSIGN_KEY=str(key), COSIGN_PASSWORD=PASSWORD)
    assert done.code == 0, done.stderr
