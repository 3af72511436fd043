"""A clone that is deployed to the kind cluster of this machine, as the least-privileged account of its namespace."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import httpx2

from pipeline.engines.kind import CONTEXT, EDGE_PORT, REGISTRY
from tests.containers import docker
from tests.deploy.checkout import Checkout
from tests.deploy.compose.stack import AS_SUPERUSER
from tests.project import NAME

__all__ = ["ELSEWHERE", "NAMESPACE", "KindCheckout", "deployer_config", "image_ids", "kubectl", "second_environment"]

NAMESPACE, ELSEWHERE = NAME, f"{NAME}-production"
SECOND = f"""
[tool.slipway.environments.{{name}}]
target = "kubernetes"
url = "http://{{name}}.localhost:{EDGE_PORT}"
overlay = "k8s/overlays/{{name}}"
context = "{{context}}"
namespace = "{ELSEWHERE}"
repository = "{REGISTRY}/{NAME}"
rate = 50
bake_seconds = 3
timeout = 180
{{keys}}
"""
OVERLAY = f"""
namespace: {ELSEWHERE}
resources: [../kind]
{{parts}}
patches:
  - target: {{{{kind: HTTPRoute, name: {NAME}}}}}
    patch: |
      - {{{{op: add, path: /spec/hostnames, value: [{{name}}.localhost]}}}}
"""


def kubectl(*arguments: str, given: str | None = None, check: bool = True, namespace: str = NAMESPACE) -> str:
    """What kubectl says, as the cluster's administrator."""
    command = ["kubectl", f"--context={CONTEXT}", f"--namespace={namespace}", *arguments]
    done = subprocess.run(command, input=given, check=False, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr}"
    return (done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip()


def image_ids(namespace: str = NAMESPACE) -> set[str]:
    """What the service's pods run, by their own word."""
    path = "--output=jsonpath={.items[*].status.containerStatuses[*].imageID}"
    selector = "--selector=app.kubernetes.io/component=backend"
    return set(kubectl("get", "pods", selector, path, namespace=namespace).split())


def deployer_config(path: Path, namespaces: Mapping[str, str] = MappingProxyType({CONTEXT: NAMESPACE})) -> Path:
    """A kubeconfig, one line, whose contexts are each the account `deployer` of a namespace (NAMESPACES, by context),
    which may do what a deploy does.
    """
    config = json.loads(kubectl("config", "view", "--minify", "--raw", "--flatten", "--output=json"))
    cluster = config["clusters"][0]["name"]
    tokens = {
        name: kubectl("create", "token", "deployer", "--duration=4h", namespace=namespace)
        for name, namespace in namespaces.items()
    }
    config["users"] = [{"name": name, "user": {"token": token}} for name, token in tokens.items()]
    config["contexts"] = [{"name": name, "context": {"cluster": cluster, "user": name}} for name in tokens]
    config["current-context"] = next(iter(tokens))
    path.write_text(json.dumps(config), encoding="utf-8")
    path.chmod(0o600)
    return path


@dataclass
class KindCheckout(Checkout):
    """See `Checkout`; its environment is `kind`, where it is asked by its `host`."""

    environment: ClassVar[str] = "kind"
    host: str = f"{NAME}.localhost"  # by which the cluster's edge, which other services may share, knows it

    @classmethod
    def make(cls, template: Path, root: Path, *, rate: int = 50, bake_seconds: int = 3, own: bool = False) -> Self:
        """Copy TEMPLATE and commit it; it deploys as `deployer`."""
        # Half of what is sent elsewhere: a rollout takes long enough here to have its evidence by then.
        one = super().make(template, root, rate=rate, bake_seconds=bake_seconds, own=own)
        one.port = EDGE_PORT
        one.environ["KUBECONFIG"] = str(deployer_config(root.with_name(f"{root.name}-kubeconfig")))
        one.environ["PROJECT_NAME"] = "slipway-test-kind"
        return one

    @property
    def url(self) -> str:
        """Where the cluster's edge answers for it."""
        return f"http://{self.host}:{self.port}"

    def request(self, method: str, path: str, *, token: bool = False, **options: Any) -> httpx2.Response:
        """Send one request, as `Checkout` does, with its host."""
        headers = {"Host": f"{self.host}:{self.port}", **options.pop("headers", {})}
        return super().request(method, path, token=token, headers=headers, **options)

    def pods(self, component: str = "backend") -> list[dict[str, Any]]:
        """The pods of a component that have not ended."""
        found = json.loads(
            kubectl("get", "pods", f"--selector=app.kubernetes.io/component={component}", "--output=json")
        )
        return [one for one in found["items"] if one["status"]["phase"] not in ("Succeeded", "Failed")]

    def deployed_image(self) -> str:
        """What the service's Deployment runs."""
        return kubectl("get", "deployment", "backend", "--output=jsonpath={.spec.template.spec.containers[0].image}")

    def serves(self) -> bool:
        """Whether its edge answers, and the service is ready."""
        try:
            return self.request("GET", "/ready").status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    def sql(self, query: str) -> Any:
        """The first value that QUERY gives, as text."""
        return kubectl("exec", "service/postgres", "--", "sh", "-c", AS_SUPERUSER, NAME, query)

    def settle(self, **literals: str) -> None:
        """Change settings of its overlay."""
        path = self.root / "k8s/overlays/kind/kustomization.yaml"
        lines = path.read_text(encoding="utf-8").splitlines()
        for name, value in literals.items():
            lines = [line for line in lines if f"- {name}=" not in line]
            at = next(index for index, line in enumerate(lines) if "literals:" in line)
            lines.insert(at + 1, f"      - {name}={value}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def patch_backend(self, *operations: dict[str, Any]) -> None:
        """Patch the Deployment of its overlay."""
        text = json.dumps(list(operations))
        patch = f"  - target: {{kind: Deployment, name: backend}}\n    patch: '{text}'\n"
        path = self.root / "k8s/overlays/kind/kustomization.yaml"
        before = path.read_text(encoding="utf-8")
        assert "\npatches:\n" in before
        path.write_text(before + patch, encoding="utf-8")  # its patches stand last, and the last patch wins

    def restore(self) -> None:
        """Service, manifests and table as they were committed."""
        self.git("checkout", "--quiet", "--", "backend", "k8s", "pyproject.toml")
        self.git("clean", "--quiet", "--force", "-d", "backend", "k8s")

    def untidy(self) -> list[str]:
        """What a finished deploy must not leave: other pods, Jobs, a lock, throwaway parts, synthetic rows."""
        [release] = {one["metadata"]["annotations"]["slipway/release"] for one in self.pods()} or {"?"}
        wrong = [] if release in self.answering(5) else [f"pods of {release}"]
        wrong += self._leaving(30)
        holder = kubectl("get", "lease", "slipway-deploy", "--output=jsonpath={.spec.holderIdentity}")
        wrong += [f"the lock of {holder}"] if holder else []
        wrong += docker("ps", "--all", "--quiet", "--filter", "label=slipway.throwaway=slipway-test-kind-kind").split()
        wrong += [
            str(path) for path in self.home.rglob("*") if ".part" in path.name or path.name.endswith("writes.jsonl")
        ]
        rows = self.synthetic_rows()
        return wrong + ([f"{rows} synthetic rows"] if rows else [])

    def _leaving(self, seconds: float) -> list[str]:
        """The Jobs of deploys and their pods that stay: a kubelet takes its time to end one that was deleted."""
        deadline, label = time.monotonic() + seconds, "--selector=app.kubernetes.io"
        while True:
            found = kubectl("get", "jobs,pods", f"{label}/component in (migrate, vantage)", "--output=name").split()
            tried = ("jobs,pods,configmaps,networkpolicies", f"{label}/name in (try-backend, watch)")
            found += kubectl("get", *tried, "--output=name").split()
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def remove(self, scratch: set[Path]) -> None:
        """`down --volumes`, as the administrator: what a deployer may not delete is data."""
        del scratch
        for deploy in self.started:  # a test that failed may have left one that runs
            if deploy.process.poll() is None:
                deploy.kill()
        done = self.run("down", "--volumes", KUBECONFIG=str(Path.home() / ".kube/config"))
        assert done.code == 0, done.stderr
        kubectl("delete", "persistentvolumeclaim", "backups", "--ignore-not-found")  # which goes by hand alone
        kinds = (
            "deployments,statefulsets,services,cronjobs,jobs,persistentvolumeclaims,networkpolicies,httproutes,gateways"
        )
        assert kubectl("get", kinds, "--output=name") == ""
        assert not self.home.exists()


@contextmanager
def second_environment(
    one: KindCheckout, name: str, *, context: str, keys: str = "", parts: str = ""
) -> Iterator[None]:
    """Give `one` a second environment `name`, in namespace ELSEWHERE as an administrator makes it.

    One edge leads to both, each with its host. `keys` are lines more of its table, `parts` of its overlay.
    """
    kubectl("apply", "--server-side", f"--kustomize={one.root}/k8s/bootstrap/production", namespace=ELSEWHERE)
    path = one.root / "pyproject.toml"
    before = path.read_text(encoding="utf-8")
    path.write_text(before + SECOND.format(name=name, context=context, keys=keys), encoding="utf-8")
    one.write(f"k8s/overlays/{name}/kustomization.yaml", OVERLAY.format(name=name, parts=parts))
    yield
    path.write_text(before, encoding="utf-8")
    kubectl("delete", "namespace", ELSEWHERE, "--timeout=120s")
