"""Whether the pods of a release would get the secrets that it needs: by the Secret, and by its manifests."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from pipeline.config.project import KubernetesEnvironment
from pipeline.config.settings import needed_secrets
from pipeline.engines.kubectl import Object
from pipeline.system.progress import Progress
from pipeline.targets.kubernetes import KubernetesTarget
from tests.project import PROJECT

ROOT = Path(__file__).parents[4]
KEY = "CARRIER_KEY"


def opened(context: str, **secrets: str) -> KubernetesTarget:
    """Open an environment whose Secret holds `secrets`, in the state that its plan leaves: no server is asked."""
    env = KubernetesEnvironment(
        name="here", url="http://shop.example", overlay="k8s/overlays/here", context=context, namespace="shop"
    )
    target = KubernetesTarget(PROJECT, env, Progress(Console(file=io.StringIO())))
    target.site.secrets = dict(secrets)
    target.site.objects = list(objects())
    return target


def objects() -> list[Object]:
    """Return the manifests of the service as they ship."""
    return list(yaml.safe_load_all((ROOT / "k8s/base/backend.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("context", ["kind-shop", "production"])
def test_what_is_declared_and_given_is_delivered(context: str) -> None:
    """On this machine and elsewhere."""
    given = dict.fromkeys(needed_secrets(), "x")
    assert opened(context, **given).fleet.undelivered(list(given), None) == []


@pytest.mark.parametrize(
    ("context", "begins"),
    [
        ("kind-shop", f".env: {KEY}: the service does not start without this secret"),
        ("production", "Secret {secret} in namespace shop has no CARRIER_KEY: `kubectl --context=production"),
    ],
)
def test_a_key_that_the_secret_lacks_is_named_with_its_command(context: str, begins: str) -> None:
    """On this machine `.env` is the place, elsewhere the Secret."""
    target = opened(context, SERVICE_TOKEN="x")
    [line] = target.fleet.undelivered([KEY], None)
    assert line.startswith(begins.format(secret=target.site.secret))


def test_a_key_that_no_pod_mounts_is_named_with_the_overlay() -> None:
    """The schema has it, the Secret has it, and the manifests were not written anew."""
    [line] = opened("production", **{KEY: "x"}).fleet.undelivered([KEY], None)
    assert line.startswith(f"k8s/overlays/here: {KEY}: this secret does not reach the service")
