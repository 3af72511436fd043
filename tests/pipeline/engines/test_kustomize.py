"""The rules of k8s/ that matter, asked of what kustomize makes of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from backend.settings import load_settings
from pipeline.config.managed import FILES, MIGRATORS, PASSWORDS
from pipeline.config.settings import grace_seconds, needed_secrets, service_secrets
from pipeline.engines.kustomize import Document, kubectl, render, trees, unfilled
from pipeline.errors import SlipwayError
from pipeline.registry.reference import PARTS
from tests.edge import CADDYFILE, adapted, handlers
from tests.pipeline.engines.rendered import OVERLAYS, ROOT, bootstrap, containers, one, overlay, pods, settings, stores
from tests.project import NAME, PROJECT


@pytest.mark.parametrize("tree", list(trees(ROOT)), ids=lambda tree: tree.name)
def test_every_tree_renders(tree: Any) -> None:
    assert render(tree.kustomization)


def test_a_tree_that_does_not_render_says_why(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"^kustomize: .*nowhere"):
        render({"resources": [tmp_path / "nowhere"]})


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_keeps_the_restricted_standard(name: str) -> None:
    for owner, spec in pods(overlay(name)):
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, owner
        assert context["runAsUser"] in {999, 10001}, owner
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        assert spec["automountServiceAccountToken"] is False, owner
        assert spec["enableServiceLinks"] is False, owner
        for container in containers(spec):
            own = dict(container["securityContext"])
            assert own.pop("runAsUser", 999) == own.pop("runAsGroup", 999) == 999, owner
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, owner
            assert container["resources"]["limits"]["memory"], owner
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, owner
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], owner


def test_the_route_of_kind_answers_to_the_address_of_the_environment() -> None:
    """The edge of that cluster is shared: a service that took every name would take another's requests."""
    hostnames = one(overlay("kind"), "HTTPRoute", NAME)["spec"]["hostnames"]
    assert urlsplit(PROJECT.environment("kind").url).hostname in hostnames


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_autoscaler_owns_the_replicas(name: str) -> None:
    documents = overlay(name)
    for scaler in (each for each in documents if each["kind"] == "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert "replicas" not in one(documents, target["kind"], target["name"])["spec"]
        assert scaler["spec"]["minReplicas"] >= 2
    budget = one(documents, "PodDisruptionBudget", "backend")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_rollout_takes_nothing_away(name: str) -> None:
    for deployment in (each for each in overlay(name) if each["kind"] == "Deployment"):
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        probes = [container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert probes[0] != probes[1] != probes[2] != probes[0]


@pytest.mark.parametrize("name", OVERLAYS)
def test_replicas_are_spread_over_nodes_whatever_labels_those_have(name: str) -> None:
    """The scheduler ignores every constraint on a node that lacks the label of one: nodes without zones are many."""
    for pod in [spec for component, spec in pods(overlay(name)) if component in ("backend", "frontend")]:
        assert [each["topologyKey"] for each in pod["topologySpreadConstraints"]] == ["kubernetes.io/hostname"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_grace_outlasts_the_drain_and_the_longest_request(name: str) -> None:
    spec = one(overlay(name), "Deployment", "backend")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] >= grace_seconds(settings(overlay(name)))
    assert "lifecycle" not in spec["containers"][0], "the service drains itself"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_database_has_room_for_every_pool(name: str) -> None:
    values = settings(overlay(name))
    most = one(overlay(name), "HorizontalPodAutoscaler", "backend")["spec"]["maxReplicas"]
    each = int(values["DATABASE_POOL_SIZE"]) + int(values["DATABASE_MAX_OVERFLOW"])
    reserve = 3 + 5  # superuser_reserved_connections, the migration and a look by hand
    assert each * (most + 1) <= 100 - reserve


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_is_reached_but_by_an_arrow(name: str) -> None:
    policies = [each for each in overlay(name) if each["kind"] == "NetworkPolicy"]
    deny = one(policies, "NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", []):
            assert rule.get("from") or rule.get("to"), f"{policy['metadata']['name']}: open to all"
            assert rule["ports"], policy["metadata"]["name"]
            assert {"port": 9090, "protocol": "TCP"} not in rule["ports"], "metrics are the component's to open"
    ways_out = [each for each in policies if "ipBlock" in str(each)]
    assert ways_out or stores(name) == {"postgres", "redis"}, "what is outside needs a way out"
    assert not ways_out or name != "kind"


@pytest.mark.parametrize("name", OVERLAYS)
def test_own_images_are_named_by_digest(name: str) -> None:
    used = [container["image"] for _, spec in pods(overlay(name)) for container in containers(spec)]
    own = {image for image in used if any(known in image for known in PARTS)}
    assert len(own) == len(PARTS) - (name == "production")  # whose database is backed up where it is
    assert all("@sha256:" in image for image in own)


@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_are_named_by_content_never_change_and_reach_the_service(name: str) -> None:
    documents = overlay(name)
    maps = [each for each in documents if each["kind"] == "ConfigMap"]
    assert all(each["immutable"] is True for each in maps)
    (known,) = [each["metadata"]["name"] for each in maps if each["metadata"]["name"].startswith("settings-")]
    for kind, owner in (("Deployment", "backend"), ("Job", "migrate")):
        (container,) = one(documents, kind, owner)["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": known}}]
    assert settings(documents)["RELEASE"].startswith("sha256:")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_service_accepts_its_settings(name: str, tmp_path: Path) -> None:
    for secret in needed_secrets():
        (tmp_path / secret).write_text(token_urlsafe(36), encoding="utf-8")
    loaded = load_settings(settings(overlay(name)), secrets_dir=tmp_path)
    assert loaded.environment == {"kind": "development"}.get(name, name)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_service_gets_its_secrets(name: str) -> None:
    """A pod waits for a key that the Secret lacks only if the service needs it."""
    (volume,) = [
        each for each in one(overlay(name), "Deployment", "backend")["spec"]["template"]["spec"]["volumes"]
        if each["name"] == "secrets"
    ]  # fmt: skip
    sources = [each["secret"] for each in volume["projected"]["sources"]]
    keys = {item["key"]: each.get("optional", False) for each in sources for item in each["items"]}
    assert {item["path"] for each in sources for item in each["items"]} == set(keys)
    stores = {*FILES, *PASSWORDS} - MIGRATORS  # one or the other: the plan knows which
    assert keys == {**{secret.name: not secret.needed for secret in service_secrets()}, **dict.fromkeys(stores, True)}


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_secret_is_in_the_tree(name: str) -> None:
    assert not [each for each in overlay(name) if each["kind"] == "Secret"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_migration_is_the_one_job(name: str) -> None:
    (job,) = [each for each in overlay(name) if each["kind"] == "Job"]
    assert job["metadata"]["labels"]["app.kubernetes.io/component"] == "migrate"
    assert job["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("name", OVERLAYS)
def test_postgres_makes_what_the_settings_name(name: str) -> None:
    if "postgres" not in stores(name):
        pytest.skip("its database is outside")
    stateful, values = one(overlay(name), "StatefulSet", "postgres")["spec"], settings(overlay(name))
    environment = {each["name"]: each["value"] for each in stateful["template"]["spec"]["containers"][0]["env"]}
    assert (environment["SLIPWAY_DB"], environment["SLIPWAY_USER"]) == (values["POSTGRES_DB"], values["POSTGRES_USER"])
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_another_release_does_not_touch_the_stores() -> None:
    again = {"resources": [ROOT / "k8s/overlays/kind"]}
    merge = {"name": "settings", "behavior": "merge", "literals": ["RELEASE=another"]}
    other = render({**again, "configMapGenerator": [merge]})
    for name in ("postgres", "redis"):
        assert one(other, "StatefulSet", name) == one(overlay("kind"), "StatefulSet", name)


def test_the_overlays_differ() -> None:
    environments = [settings(overlay(name))["ENVIRONMENT"] for name in OVERLAYS]
    spaces = [{each["metadata"]["namespace"] for each in overlay(name)} for name in OVERLAYS]
    assert environments == ["development", "staging", "production"]
    assert spaces == [{NAME}, {f"{NAME}-staging"}, {f"{NAME}-production"}]
    for name in OVERLAYS:
        assert (ROOT / "k8s/overlays" / name / "kustomization.yaml").read_text(encoding="utf-8").startswith("# ")


def test_what_nobody_filled_in_is_named() -> None:
    """Not by the overlays of this repository: whoever made a service of it has filled them in."""
    assert unfilled(overlay("kind")) == []
    values = {"POSTGRES_HOST": "postgres.invalid", "CORS_ORIGINS": "https://shop.example"}
    documents: list[Document] = [
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": values},
        {"kind": "NetworkPolicy", "metadata": {"name": "out"}, "spec": {"egress": [{"to": ["192.0.2.10/32"]}]}},
        {"kind": "Gateway", "metadata": {"name": "shop"}, "spec": {"listeners": [{"hostname": "shop.invalid"}]}},
    ]
    fix = "put your own into the overlay"
    assert unfilled(documents) == [
        f"ConfigMap settings: data.POSTGRES_HOST is still the example postgres.invalid: {fix}",
        f"NetworkPolicy out: spec.egress[0].to[0] is still the example 192.0.2.10/32: {fix}",
        f"Gateway shop: spec.listeners[0].hostname is still the example shop.invalid: {fix}",
    ]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_enforces_what_the_pods_keep(name: str) -> None:
    documents = bootstrap(name)
    space = NAME if name == "kind" else f"{NAME}-{name}"
    labels = one(documents, "Namespace", space)["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    assert one(documents, "RoleBinding", "deployer")["subjects"] == [
        {"kind": "ServiceAccount", "name": "deployer", "namespace": space}
    ]
    assert one(documents, "ResourceQuota", NAME)
    assert one(documents, "LimitRange", NAME)


def test_the_deployer_may_lose_no_data_and_raise_no_right() -> None:
    rules = one(bootstrap("kind"), "Role", "deployer")["rules"]
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not [pair for pair in granted if "*" in pair]
    for resource, verb in (
        ("statefulsets", "delete"), ("persistentvolumeclaims", "delete"), ("pods", "create"), ("pods/exec", "create"),
        ("secrets", "list"), ("secrets", "delete"), ("roles", "patch"), ("rolebindings", "create"),
        ("resourcequotas", "patch"), ("namespaces", "patch"),
    ):  # fmt: skip
        assert (resource, verb) not in granted
    [pods] = [rule for rule in rules if "pods" in rule["resources"] and "delete" in rule["verbs"]]
    assert {name.partition("-")[0] for name in pods["resourceNames"]} == {"postgres", "redis"}


def test_every_object_of_a_tree_is_the_deployers_to_apply() -> None:
    rules = one(bootstrap("kind"), "Role", "deployer")["rules"]
    granted = {(group, name, verb) for rule in rules for group in rule["apiGroups"]
               for name in rule["resources"] for verb in rule["verbs"]}  # fmt: skip
    plural = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
    for tree in trees(ROOT):
        if tree.name.startswith(("k8s/bootstrap", "k8s/cluster")):  # an administrator's
            continue
        for document in render(tree.kustomization):
            group = document["apiVersion"].rpartition("/")[0]
            name = plural.get(document["kind"], f"{document['kind'].lower()}s")
            assert {(group, name, verb) for verb in ("get", "create", "patch")} <= granted, document["kind"]


def test_the_init_scripts_are_those_of_compose() -> None:
    scripts = sorted((ROOT / "docker/postgres/init-scripts").iterdir())
    rendered = one_init(overlay("kind"))
    assert rendered == {path.name: path.read_text(encoding="utf-8") for path in scripts}


def one_init(documents: list[Document]) -> dict[str, str]:
    (found,) = [each for each in documents if each["metadata"]["name"].startswith("postgres-init-")]
    data: dict[str, str] = found["data"]
    return data


def test_the_page_is_served_as_by_composes_edge(tmp_path: Path) -> None:
    file = ROOT / "k8s/base/page.Caddyfile"
    page, edge = adapted(tmp_path, file), adapted(tmp_path)
    assert list(handlers(page, "reverse_proxy")) == []
    for config, caddyfile in ((page, file), (edge, CADDYFILE)):
        [server] = config["apps"]["http"]["servers"].values()
        assert server["routes"].pop()["handle"][0]["handler"] == "subroute"  # the paths that are no file of the page
        [files] = handlers(config, "file_server")
        assert files.pop("hide") == [str(caddyfile)]
        for name in ("errors", "trusted_proxies", "trusted_proxies_strict"):  # these are of a proxy
            server.pop(name, None)
        for each in server["routes"]:
            each.pop("group")
    [files] = edge["apps"]["http"]["servers"]["srv0"]["routes"][0]["handle"]
    files["routes"] = [each for each in files["routes"] if "Strict-Transport-Security" not in str(each)]  # a Gateway's
    assert page == edge


def test_the_edges_send_the_pages_files_to_it_and_retry_nothing() -> None:
    top = (ROOT / "docker/frontend").iterdir()
    files = {("/", "Exact")} | {(f"/{path.name}", "PathPrefix" if path.is_dir() else "Exact") for path in top}
    route = one(overlay("kind"), "HTTPRoute", NAME)["spec"]["rules"]
    assert {(each["path"]["value"], each["path"]["type"]) for each in route[0]["matches"]} == files
    assert all("retry" not in rule for rule in route)
    ingress = next(each for each in trees(ROOT) if each.name == "k8s/components/ingress")
    paths = one(render(ingress.kustomization), "Ingress", NAME)["spec"]["rules"][0]["http"]["paths"]
    of_page = [each for each in paths if each["backend"]["service"]["name"] == "frontend"]
    assert {(each["path"], each["pathType"].replace("Prefix", "PathPrefix")) for each in of_page} == files
    assert paths[-1] == {
        "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "backend", "port": {"name": "http"}}}
    }  # fmt: skip


def test_kubectl_is_the_environments_own() -> None:
    command = [kubectl(), "version", "--client", "-o", "yaml"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    assert int(yaml.safe_load(told)["clientVersion"]["minor"].rstrip("+")) >= 35


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "k8s/components").iterdir())])
def test_every_component_says_what_when_and_how(name: str) -> None:
    text = (ROOT / "k8s/components" / name / "README.md").read_text(encoding="utf-8")
    assert all(f"**{word}.**" in text for word in ("What", "When", "How"))
