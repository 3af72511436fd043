"""Secrets from a vault by the External Secrets Operator, both real: the first deploy, and rotations in the vault."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.redis_users import digest, users
from pipeline.engines.kind import CLUSTER
from tests.conftest import AddRow
from tests.containers import docker
from tests.deploy.kind.stack import ELSEWHERE, KindCheckout, deployer_config, kubectl, second_environment
from tests.deploy.machine import wait_until
from tests.deploy.runs import Outcome, newest
from tests.project import NAME
from tests.tools import need

pytestmark = pytest.mark.e2e

OPERATOR = "SLIPWAY_TEST_EXTERNAL_SECRETS"  # its manifest, for machines that do not reach its chart
CHART = ("external-secrets", "--repo=https://charts.external-secrets.io", "--version=0.16.2", "--include-crds")
IMAGES = ("oci.external-secrets.io/external-secrets/external-secrets:v0.16.2", "openbao/openbao:2.7.2")
CONTEXT = "elsewhere"  # a context whose cluster is not taken for one of kind
VAULT, ROOT_TOKEN = "vault", "root-of-the-test"
# A server for tests, which may ask Kubernetes whose a token is.
BAO = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: openbao}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: openbao-asks-whose-a-token-is}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}}
subjects: [{{kind: ServiceAccount, name: openbao, namespace: {VAULT}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: openbao}}
spec: {{selector: {{app: openbao}}, ports: [{{port: 8200}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: openbao, labels: {{app: openbao}}}}
spec:
  serviceAccountName: openbao
  containers:
    - name: openbao
      image: {IMAGES[1]}
      imagePullPolicy: IfNotPresent
      env:
        - {{name: BAO_DEV_ROOT_TOKEN_ID, value: {ROOT_TOKEN}}}
        - {{name: BAO_DEV_LISTEN_ADDRESS, value: "0.0.0.0:8200"}}
        - {{name: BAO_ADDR, value: "http://127.0.0.1:8200"}}
        - {{name: BAO_TOKEN, value: {ROOT_TOKEN}}}
"""
LOGIN = """
bao auth enable kubernetes
bao write auth/kubernetes/config kubernetes_host=https://kubernetes.default.svc
echo 'path "secret/data/slipway" { capabilities = ["read"] }' | bao policy write slipway -
bao write auth/kubernetes/role/slipway bound_service_account_names=vault policies=slipway \
  bound_service_account_namespaces="$1"
"""


@pytest.fixture(scope="module", name="operator")
def _operator(made: str) -> Iterator[None]:
    """The operator in the cluster, and a vault."""
    assert made
    for image in IMAGES:  # where there is none here, the cluster pulls it
        if docker("images", "--quiet", image):
            subprocess.run(["kind", "load", "docker-image", "--name", CLUSTER, image], check=True, capture_output=True)
    if OPERATOR in os.environ:
        manifest = Path(os.environ[OPERATOR]).read_text(encoding="utf-8")
    else:
        command = [need("helm"), "template", CHART[0], *CHART, "--namespace=external-secrets"]
        manifest = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name in ("external-secrets", VAULT):
        kubectl("create", "namespace", name)
    kubectl("apply", "--server-side", "--filename=-", given=manifest, namespace="external-secrets")
    kubectl("apply", "--filename=-", given=BAO, namespace=VAULT)
    kubectl("wait", "pod/openbao", "--for=condition=Ready", "--timeout=120s", namespace=VAULT)
    wait_until(lambda: "secret/" in kubectl("exec", "openbao", "--", "bao", "secrets", "list", check=False,
                                            namespace=VAULT), "the vault does not answer", 60)  # fmt: skip
    kubectl("exec", "openbao", "--", "sh", "-ec", LOGIN, "sh", ELSEWHERE, namespace=VAULT)
    kubectl("wait", "deployment", "--all", "--for=condition=Available", "--timeout=170s", namespace="external-secrets")
    yield
    kubectl("delete", "--ignore-not-found", "--filename=-", given=BAO, namespace=VAULT)
    kubectl("delete", "--ignore-not-found", "--filename=-", given=manifest, namespace="external-secrets")
    kubectl("delete", "namespace", VAULT, "external-secrets", "--timeout=120s")


class Vaulted:
    """The clone, with an environment whose secrets are in a vault that nobody but a person writes to."""

    def __init__(self, one: KindCheckout, kubeconfig: Path) -> None:
        self.one, self.kubeconfig = one, kubeconfig

    def run(self, verb: str, *arguments: str) -> Outcome:
        """Run the pipeline as the account `deployer` of the namespace."""
        command = [sys.executable, "-m", "pipeline", verb, "vaulted", *arguments]
        return self.one.start_program(command, KUBECONFIG=str(self.kubeconfig)).finish(400)

    def report(self) -> dict[str, Any]:
        """Return the newest deploy's."""
        records = self.one.root / ".slipway/vaulted/releases"
        found: dict[str, Any] = json.loads((records / f"{newest(records)}/report.json").read_text(encoding="utf-8"))
        return found


@pytest.fixture(name="vaulted")
def _vaulted(operator: None, deployed: KindCheckout, tmp_path: Path) -> Iterator[Vaulted]:
    """A namespace as an administrator makes it, and nothing in it."""
    del operator
    with second_environment(
        deployed, "vaulted", context=CONTEXT, parts="components: [../../components/external-secrets]"
    ):
        yield Vaulted(deployed, deployer_config(tmp_path / "kubeconfig", {CONTEXT: ELSEWHERE}))


def put(**values: str) -> None:
    """Put `values` into the vault, beside what is there, as its administrator: by standard input."""
    bao = ("exec", "--stdin", "openbao", "--", "bao", "kv")
    there = kubectl(*bao, "get", "secret/slipway", check=False, namespace=VAULT)
    verb = "put" if "No value found" in there else "patch"
    kubectl(*bao, verb, "secret/slipway", "-", given=json.dumps(values), namespace=VAULT)


def secret() -> dict[str, str]:
    """Return what the Secret in the cluster has."""
    found = json.loads(kubectl("get", "secret", f"{NAME}-secrets", "--output=json", namespace=ELSEWHERE))
    return {name: base64.b64decode(value).decode() for name, value in found["data"].items()}


def test_a_vault_gives_the_secrets_and_a_rotation_waits_for_it(vaulted: Vaulted, add_row: AddRow) -> None:
    """The service is started from it; each rotation says what to put there, and goes on once it is."""
    fresh = secrets.token_urlsafe
    store = (vaulted.one.root / "k8s/components/external-secrets/stores/vault.yaml").read_text(encoding="utf-8")
    store = store.replace("https://vault.invalid:8200", f"http://openbao.{VAULT}:8200")
    kubectl("create", "serviceaccount", "vault", namespace=ELSEWHERE)
    kubectl("apply", "--filename=-", given=store, namespace=ELSEWHERE)
    redis, admin = fresh(36), fresh(36)
    first = vaulted.run("deploy", "--json")
    assert first.code == 2, str(first)
    assert "put it into the vault that ExternalSecret" in first.problems()[0]
    put(
        POSTGRES_OWNER=NAME, POSTGRES_OWNER_PASSWORD=fresh(36), POSTGRES_SUPERUSER_PASSWORD=fresh(36),
        POSTGRES_USER=f"{NAME}-app-1", POSTGRES_PASSWORD=fresh(36), SERVICE_TOKEN=fresh(36), JWT_SECRET_KEY=fresh(48),
        REDIS_PASSWORD=redis, REDIS_ADMIN_PASSWORD=admin, REDIS_ACL=users([digest(redis)], admin),
    )  # fmt: skip
    external = vaulted.one.root / "k8s/components/external-secrets/external-secret.yaml"
    kubectl("apply", "--server-side", "--field-manager=slipway", f"--filename={external}", namespace=ELSEWHERE)
    kubectl("wait", "externalsecret", "--all", "--for=condition=Ready", "--timeout=60s", namespace=ELSEWHERE)
    assert vaulted.run("deploy", "--json").verdict == "proved"

    refused = vaulted.run("rotate", "SERVICE_TOKEN")
    assert refused.code == 2, str(refused)
    assert all("put into the vault that ExternalSecret" in line for line in refused.problems()[:2]), str(refused)
    old = secret()
    put(SERVICE_TOKEN=fresh(36), SERVICE_TOKEN_PREVIOUS=old["SERVICE_TOKEN"])
    done = vaulted.run("rotate", "SERVICE_TOKEN", "--continue")
    assert done.code == 0, str(done)
    assert "give the new SERVICE_TOKEN to whoever calls the service" in done.stderr
    assert secret()["SERVICE_TOKEN"] != old["SERVICE_TOKEN"]
    sent, failed = vaulted.report()["traffic"]["sent"], vaulted.report()["traffic"]["failed"]
    assert failed == 0
    put(SERVICE_TOKEN_PREVIOUS="")
    assert vaulted.run("rotate", "SERVICE_TOKEN", "--continue").code == 0

    refused = vaulted.run("rotate", "POSTGRES_PASSWORD")
    assert refused.code == 2, str(refused)
    assert f"POSTGRES_USER: `{NAME}-app-2`" in " ".join(refused.problems())
    put(POSTGRES_USER=f"{NAME}-app-2", POSTGRES_PASSWORD=fresh(36))
    done = vaulted.run("rotate", "POSTGRES_PASSWORD", "--continue")
    assert done.code == 0, str(done)
    assert vaulted.report()["traffic"]["failed"] == 0
    add_row(
        "kind: a vault", f"started from OpenBao; the token rotated there: {sent} requests, 0 failed; the login, too"
    )
