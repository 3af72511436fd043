"""The component external-secrets and the stores beside it fit together, and speak the operator's API v1 alone."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.targets.kubernetes.secret import secret_name
from tests.project import NAME
from tests.services import ROOT

FOLDER = ROOT / "k8s/components/external-secrets"
STORES = sorted(FOLDER.glob("stores/*.yaml"))


def read(name: str) -> dict[str, Any]:
    """Return the one object of a file."""
    one: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return one


def test_the_component_fills_the_secret_of_the_service() -> None:
    """Its name is that which a rotation refreshes."""
    one = read("external-secret.yaml")
    assert (one["apiVersion"], one["kind"]) == ("external-secrets.io/v1", "ExternalSecret")
    assert one["spec"]["target"]["name"] == one["metadata"]["name"] == secret_name(NAME)


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.stem)
def test_a_store_is_the_one_that_the_component_names(path: Any) -> None:
    """So that an administrator can apply it as it is, but for the place of the vault."""
    store, reference = read(f"stores/{path.name}"), read("external-secret.yaml")["spec"]["secretStoreRef"]
    assert store["apiVersion"] == "external-secrets.io/v1"
    assert {"kind": store["kind"], "name": store["metadata"]["name"]} == reference
    assert len(store["spec"]["provider"]) == 1


def test_there_is_a_store_for_aws_and_one_for_vault() -> None:
    """The page leads to both."""
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.stem for path in STORES] == ["aws", "vault"]
    assert not [path.name for path in STORES if f"(stores/{path.name})" not in page]
