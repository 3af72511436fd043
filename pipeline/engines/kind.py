"""A Kubernetes cluster on this machine, by kind: nodes, a registry, metrics-server, the Gateway API with Traefik.

Each step looks first and does only what is missing, so a second run changes nothing and a broken cluster is fixed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.engines import gateway_api
from pipeline.engines.docker import Docker
from pipeline.engines.kind_needs import cluster_problems, inotify_hint
from pipeline.engines.kind_objects import CLUSTER, CONTEXT, apply, differs, essence, kubectl_command, rendered
from pipeline.engines.occupant import occupant_of
from pipeline.errors import SlipwayError, UsageError
from pipeline.registry.reference import PARTS, parse_reference
from pipeline.system.ports import port_free
from pipeline.system.progress import Progress
from pipeline.system.run import CommandFailed, run
from pipeline.system.waiting import attempts

__all__ = ["CLUSTER", "CONTEXT", "EDGE_PORT", "REGISTRY", "Cluster", "cluster_problems", "full_name", "images_named"]

log = logging.getLogger(__name__)

NODES = tuple(f"{CLUSTER}-{role}" for role in ("control-plane", "worker", "worker2"))
NODE_IMAGE = "kindest/node:v1.37.0"  # KIND_NODE_IMAGE names another
EDGE_PORT = 8088  # k8s/cluster/kind.yaml maps it to Traefik's NodePort

REGISTRY_NAME = f"{CLUSTER}-registry"  # of the container, and of the volume with its images
REGISTRY_IMAGE = "registry:3"
REGISTRY_PORT = 5001
REGISTRY = f"localhost:{REGISTRY_PORT}"  # its name on this machine and on the nodes
HOSTS = f"/etc/containerd/certs.d/{REGISTRY}/hosts.toml"

MANIFESTS = "k8s/cluster"
BOOTSTRAP = "k8s/bootstrap/kind"
OVERLAY = "k8s/overlays/kind"
# What watches, and what this service's namespace has for it, with the nodes that run it.
MONITORING = {f"{MANIFESTS}/monitoring": NODES[:1], f"{MANIFESTS}/monitoring/service": NODES}
WATCHERS = ("prometheus", "alertmanager", "kube-state-metrics")
# The labels of the namespaces that an administrator's bootstrap makes.
BOOTSTRAPPED, SERVICE = "app.kubernetes.io/managed-by=administrator", "app.kubernetes.io/part-of"
ANSWER_SECONDS, ASK_SECONDS, CREATE_SECONDS, WAIT_SECONDS = 20, 60, 600, 180


def create_command(config: Path, image: str) -> list[str]:
    """Return the command line that makes the nodes, and ends when the control plane answers."""
    return ["kind", "create", "cluster", "--name", CLUSTER, "--config", str(config), "--image", image]


def registry_command() -> list[str]:
    """Return the arguments of `docker` that start the registry, which only this machine and the nodes reach."""
    return [
        "run",
        "--detach",
        "--name",
        REGISTRY_NAME,
        "--label",
        f"slipway.cluster={CLUSTER}",
        "--restart=always",
        "--network=kind",
        f"--publish=127.0.0.1:{REGISTRY_PORT}:5000",
        f"--volume={REGISTRY_NAME}:/var/lib/registry",
        "--env=REGISTRY_STORAGE_DELETE_ENABLED=true",
        REGISTRY_IMAGE,
    ]


def proxy_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for `kind create`, whose nodes take the proxy from it: none stands before the registry here."""
    direct = f"{REGISTRY_NAME},localhost,127.0.0.1"
    proxied = any(environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"))
    names = ("NO_PROXY", "no_proxy") if proxied else ()
    known = environ.get("NO_PROXY") or environ.get("no_proxy")
    return {**environ, **dict.fromkeys(names, f"{known},{direct}" if known else direct)}


def load_command(image: str, nodes: Iterable[str]) -> list[str]:
    """Return the command line that copies an image of this machine to `nodes`."""
    return ["kind", "load", "docker-image", "--name", CLUSTER, f"--nodes={','.join(nodes)}", image]


def images_named(manifest: str) -> list[str]:
    """Return the images of the rendered `manifest` that no deploy of ours fills in, each once, in order."""
    images = re.findall(r"^\s*(?:- )?image:\s*[\"']?([^\s\"']+)", manifest, re.MULTILINE)
    return list(dict.fromkeys(image for image in images if image not in PARTS))


def full_name(image: str) -> str:
    """Return the name of `image` as containerd has it: with its registry, Docker Hub where it names none."""
    named = parse_reference(image)
    return f"{named.host}/{named.path}{image.removeprefix(named.repository)}"


class Cluster:
    """The kind cluster of this machine, as the repository at `root` with the service `service` has it.

    Other services of this template share it, each with a namespace of its own.
    """

    def __init__(self, root: Path, service: str, progress: Progress, *, monitoring: bool = False) -> None:
        self.root, self.service, self.progress, self.monitoring = root, service, progress, monitoring
        self.docker = Docker(root)

    def up(self, file: Path | None) -> bool:
        """Make what is missing; return whether anything was.

        `file` is the Gateway API's manifest, by default its release's.
        """
        steps: list[tuple[str, Callable[[], bool]]] = [
            ("nodes", self._nodes),
            ("registry", self._registry),
            ("gateway", lambda: self._gateway(manifest)),
            ("images", self._images),
            ("add-ons", self._add_ons),
        ]
        if (self.root / BOOTSTRAP).is_dir():
            # What an administrator gives an environment: its namespace and the deployer's account.
            steps.append(("bootstrap", lambda: self._apply(self.root / BOOTSTRAP)))
        if self.monitoring:
            steps.append(("monitoring", self.watch))
        changed = False
        with self.progress.stage("plan"):
            self._plan()
            manifest = self._gateway_manifest(file)
        for name, step in steps:
            with self.progress.stage(name) as record:
                did = step()
                record.note = record.note or ("" if did else "already there")
            changed = changed or did
        return changed

    def down(self, *, everything: bool) -> bool:
        """Remove nodes, registry and images; return whether there was anything to remove.

        Raise `UsageError` where another service is in the cluster, unless `everything` is to go.
        """
        with self.progress.stage("down") as record:
            problems = [problem for problem in cluster_problems() if not (everything and problem.startswith("kubectl"))]
            if problems:
                raise UsageError(*problems)
            if self._existing() and not everything:
                self._refuse_others()
            there = bool(self._existing()) or bool(self.docker.inspect(REGISTRY_NAME)) or self._has_volume()
            if self._existing():
                self._kind("delete", "cluster", "--name", CLUSTER)
            if self.docker.inspect(REGISTRY_NAME):
                self.docker.do("rm", "--force", REGISTRY_NAME)
            if self._has_volume():
                self.docker.do("volume", "rm", REGISTRY_NAME)
            record.note = "" if there else "there was none"
        return there

    def _refuse_others(self) -> None:
        """Raise `UsageError` where the cluster has a namespace that is another service's."""
        selector = f"--selector={BOOTSTRAPPED},{SERVICE}!={self.service}"
        asked = kubectl_command("get", "namespaces", selector, "--output=name", f"--request-timeout={ANSWER_SECONDS}s")
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=ASK_SECONDS)
        every = "`nox -s cluster -- down --all` removes it with all that is in it"
        if done.returncode:
            unknown = f"the cluster cannot be asked who else is in it ({essence(done.stderr)})"
            raise UsageError(f"{unknown}: `nox -s cluster` mends it, or {every}")
        others = [name.partition("/")[2] for name in done.stdout.split()]
        if others:
            raise UsageError(f"other services are in the cluster, in namespace {', '.join(others)}: {every}")

    def _plan(self) -> None:
        problems = cluster_problems()
        if problems:
            raise UsageError(*problems)
        existing = self._existing()
        if existing and existing != set(NODES):
            raise UsageError(
                f"kind's cluster `{CLUSTER}` has the nodes {', '.join(sorted(existing))} and not {', '.join(NODES)}:"
                " something else made it, or only half of it was made: `nox -s cluster -- down --all`, then again"
            )
        ports = [] if existing else [(EDGE_PORT, "the edge")]
        registry = self.docker.inspect(REGISTRY_NAME)
        if not (registry and registry[0]["State"]["Running"]):
            ports.append((REGISTRY_PORT, "the registry"))
        problems = [problem for port, use in ports if (problem := self._port_problem(port, use))]
        if problems:
            raise UsageError(*problems)

    def _port_problem(self, port: int, use: str) -> str | None:
        if port_free(port):
            return None
        occupant = occupant_of(port, self.root)
        return f"port {port} of 127.0.0.1, for {use}, is taken by {occupant.who}: {occupant.frees}, then again"

    def _nodes(self) -> bool:
        existing = self._existing()
        if not existing:
            self._create()
            return True
        stopped = [node["Name"].strip("/") for node in self.docker.inspect(*NODES) if not node["State"]["Running"]]
        if stopped:
            self.docker.do("start", *stopped)
        contexts = run(["kubectl", "config", "get-contexts", "--output=name"], level=logging.DEBUG).split()
        if CONTEXT not in contexts:
            self._kind("export", "kubeconfig", "--name", CLUSTER)
        if stopped:
            self._answers()
        return bool(stopped) or CONTEXT not in contexts

    def _create(self) -> None:
        image = os.environ.get("KIND_NODE_IMAGE") or NODE_IMAGE
        try:
            command = create_command(self.root / MANIFESTS / "kind.yaml", image)
            run(command, env=proxy_environment(os.environ), timeout=CREATE_SECONDS)
        except BaseException as error:
            # Killed or failed in the middle, kind may leave nodes that the next try would stumble over.
            if self._existing():
                self._kind("delete", "cluster", "--name", CLUSTER)
            if isinstance(error, CommandFailed):
                raise SlipwayError(f"kind create cluster: {essence(error.output)}{inotify_hint()}") from None
            raise
        self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", f"--timeout={WAIT_SECONDS}s")

    def _answers(self) -> None:
        """Wait for the API server after its node was started again. Raise `SlipwayError` where it stays away."""
        for _ in attempts(WAIT_SECONDS, every=1):
            if not subprocess.run(kubectl_command("get", "--raw=/readyz"), capture_output=True, check=False).returncode:
                break
        else:
            raise SlipwayError(
                f"the API server of {CONTEXT} did not answer within {WAIT_SECONDS} s of its node's start:"
                f" `docker logs {NODES[0]}` says why; `nox -s cluster -- down --all`, then `nox -s cluster` again"
            )
        self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", f"--timeout={WAIT_SECONDS}s")

    def _registry(self) -> bool:
        registry = self.docker.inspect(REGISTRY_NAME)
        changed = True
        if not registry:
            self.docker.do(*registry_command())
        elif not registry[0]["State"]["Running"]:
            self.docker.do("start", REGISTRY_NAME)
        else:
            changed = False
        if registry and "kind" not in registry[0]["NetworkSettings"]["Networks"]:
            self.docker.do("network", "connect", "kind", REGISTRY_NAME)
            changed = True
        # `localhost` in a node is the node itself: this file makes the name mean the registry's container.
        hosts = f'[host."http://{REGISTRY_NAME}:5000"]'
        for node in NODES:
            if not self.docker.succeeds("exec", node, "grep", "--quiet", "--fixed-strings", hosts, HOSTS):
                script = f"mkdir -p {HOSTS.rpartition('/')[0]} && echo '{hosts}' >{HOSTS}"
                self.docker.do("exec", node, "sh", "-c", script)
                changed = True
        return changed

    def _gateway_manifest(self, file: Path | None) -> bytes | None:
        """Return the manifest of the Gateway API where the cluster lacks it: read before anything is touched."""
        manifest = gateway_api.read(file) if file else None
        if not self._existing():
            return manifest or gateway_api.download()
        wanted = gateway_api.version_of(manifest) if manifest else gateway_api.VERSION
        return None if self._gateway_version() == wanted else manifest or gateway_api.download()

    def _gateway_version(self) -> str | None:
        """Return the version of the Gateway API that all of the cluster's CRDs have.

        None where one is missing or of another version, and where the cluster does not answer yet.
        """
        asked = kubectl_command("get", "crd", *gateway_api.CRDS, "--output=json")
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=ASK_SECONDS)
        if done.returncode:
            return None
        annotations = [crd["metadata"].get("annotations", {}) for crd in json.loads(done.stdout)["items"]]
        versions = {each.get("gateway.networking.k8s.io/bundle-version") for each in annotations}
        return versions.pop() if len(versions) == 1 else None

    def _gateway(self, manifest: bytes | None) -> bool:
        if manifest is None:
            return False
        apply(manifest.decode(), "the Gateway API")
        crds = [f"crd/{name}" for name in gateway_api.CRDS]
        self._kubectl("wait", "--for=condition=Established", *crds, f"--timeout={ASK_SECONDS}s")
        return True

    def _images(self) -> bool:
        """Copy the cluster's images that this machine has to the nodes, which pull the rest; return if any was."""
        trees = [(MANIFESTS, NODES[:1]), (OVERLAY, NODES), *(MONITORING.items() if self.monitoring else ())]
        loaded = False
        for tree, nodes in trees:
            if (self.root / tree).is_dir():
                for image in images_named(rendered(self.root / tree)):
                    loaded = self._load(image, nodes) or loaded
        return loaded

    def _load(self, image: str, nodes: Sequence[str]) -> bool:
        lacking = [node for node in nodes if not self._node_has(node, image)]
        if not lacking:
            return False
        if self.docker.image(image) is None:
            log.info(f"{image} is not on this machine: the nodes pull it")
            return False
        try:
            self._kind(*load_command(image, lacking)[1:])
        except SlipwayError as error:
            # An engine with containerd's image store may list many platforms of an image and have only one of them.
            log.warning(f"{error.problems[0]}; the nodes pull it instead")
            return False
        return True

    def _node_has(self, node: str, image: str) -> bool:
        asked = ("exec", node, "ctr", "--namespace=k8s.io", "images", "ls", "--quiet", f"name=={full_name(image)}")
        return bool(self.docker.ask(*asked).strip())

    def _add_ons(self) -> bool:
        changed = self._apply(self.root / MANIFESTS)
        for namespace, name in (("traefik", "traefik"), ("kube-system", "metrics-server")):
            self._rolled_out(namespace, name)
        for condition, name in (
            ("Accepted", "gatewayclass/traefik"),
            ("Available", "apiservice/v1beta1.metrics.k8s.io"),
        ):
            self._kubectl("wait", f"--for=condition={condition}", name, f"--timeout={WAIT_SECONDS}s", quiet=not changed)
        return changed

    def _rolled_out(self, namespace: str, name: str) -> None:
        """Wait for the Deployment `name` of `namespace`. Raise `SlipwayError` where it does not get ready."""
        where = f"--namespace={namespace}"
        try:
            self._kubectl("rollout", "status", where, f"deployment/{name}", f"--timeout={WAIT_SECONDS}s")
        except SlipwayError:
            asked = " ".join(kubectl_command("describe", "pods", where))
            raise SlipwayError(
                f"{name} is not ready after {WAIT_SECONDS} s: `{asked}` says why; fix it, then `nox -s cluster`"
            ) from None

    def watch(self) -> bool:
        """Apply what watches, and what lets it see this service; wait until it runs. Return whether it changed."""
        changed = [self._apply(self.root / tree) for tree in MONITORING]
        for name in WATCHERS:
            self._rolled_out("monitoring", name)
        return any(changed)

    def _apply(self, folder: Path) -> bool:
        manifest = rendered(folder)
        if not differs(manifest):
            return False
        apply(manifest, str(folder.relative_to(self.root)))
        return True

    def _existing(self) -> set[str]:
        """Return the names of the cluster's nodes."""
        names = run(["kind", "get", "nodes", "--name", CLUSTER], level=logging.DEBUG, timeout=ASK_SECONDS)
        return set(names.split())

    def _has_volume(self) -> bool:
        return self.docker.succeeds("volume", "inspect", REGISTRY_NAME)

    def _kind(self, *arguments: str) -> None:
        self._do(["kind", *arguments])

    def _kubectl(self, *arguments: str, quiet: bool = False) -> str:
        return self._do(kubectl_command(*arguments), quiet=quiet)

    def _do(self, command: Sequence[str], *, quiet: bool = False) -> str:
        try:
            return run(command, level=logging.DEBUG if quiet else logging.INFO, cwd=self.root, timeout=CREATE_SECONDS)
        except CommandFailed as error:
            words = [word for word in command[:5] if not word.startswith("-")]
            raise SlipwayError(f"{' '.join(words)}: {essence(error.output)}") from error
