"""cd.yml with the cluster that it makes, then with staging and production in it, then back, and looked at on a Monday:
nothing but GitHub's own services is played, and what knows advisories.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from pipeline.config.settings import variables
from pipeline.engines.kind import CLUSTER, EDGE_PORT, REGISTRY
from pipeline.registry.image import resolve
from tests.conftest import AddRow
from tests.deploy.kind.stack import deployer_config, image_ids, kubectl
from tests.pipeline.supply.osv import osv_variables, played_osv
from tests.project import NAME
from tests.tools import missing, need
from tests.workflows.act import Checkout, Run
from tests.workflows.conftest import Place, a_place
from tests.workflows.test_cd import ATTEST, LOGIN, TABLE, UPLOAD, attested

pytestmark = pytest.mark.e2e

BY_HAND = (*(one.name for one in variables() if one.generate), "POSTGRES_SUPERUSER_PASSWORD")
GATEWAY_API = "SLIPWAY_TEST_GATEWAY_API"  # a manifest of it, for machines that do not reach GitHub
# One edge for both: each has its host.
HOSTS = {name: f"{name}.localhost:{EDGE_PORT}" for name in ("staging", "production")}
URLS = {name: f"http://{host}" for name, host in HOSTS.items()}
ONLY_FOR = """
patches:
  - target: {{kind: HTTPRoute, name: {name}}}
    patch: |
      - {{op: add, path: /spec/hostnames, value: [{environment}.localhost]}}
"""


@dataclass
class Pushed:
    """A clone, where it is pushed to, and what the run of the push did."""

    checkout: Checkout
    place: Place
    done: Run

    def pipeline(self, *arguments: str, **environ: str) -> str:
        """Run a verb in the clone, as whoever set the cluster up."""
        return self.place.pipeline(self.checkout, *arguments, **environ)


@pytest.fixture(name="first", scope="module")
def _first(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """A first push, with nothing configured. Its cluster goes in the end; somebody else's is not touched."""
    need("kind")
    there = subprocess.run(["kind", "get", "clusters"], capture_output=True, text=True, check=True).stdout.split()
    if CLUSTER in there:
        missing("there is a cluster, and it may be dear to somebody: `nox -s cluster -- down`")
    folder = tmp_path_factory.mktemp("first")
    with a_place(folder) as place, pytest.MonkeyPatch.context() as monkeypatch:
        one = Checkout.make(template, folder, cluster=True, gateway_api=os.environ.get(GATEWAY_API))
        # Where kind writes it in the run, whose home this is: so that these tests are its administrator, too.
        monkeypatch.setenv("KUBECONFIG", str(one.home / ".kube/config"))
        try:
            yield Pushed(one, place, place.run(one))
        finally:
            down = [sys.executable, "-m", "pipeline", "cluster", "down", "--all"]
            subprocess.run(down, cwd=one.root, env={**os.environ, "HOME": str(one.home)}, check=True, timeout=300)


def test_a_push_is_proved_in_a_cluster_of_the_runner(first: Pushed, add_row: AddRow) -> None:
    """On a fresh clone with nothing configured: the pods run the digest that was pushed and signed."""
    done = first.done
    assert done.code == 0, str(done)
    assert done.jobs["kind"] == "success"
    digest = attested(done)
    image = f"{REGISTRY}/{NAME}@{digest}"
    assert resolve(image).digest == digest
    assert image_ids() == {image}
    assert "0 failed" in done.summary or "none failed" in done.summary, done.summary
    assert (done.played("kind")[UPLOAD], done.played("kind")[ATTEST]) == (1, 1)
    add_row(TABLE, f"cd, a push, with a cluster  green in {done.seconds:3.0f} s: {digest[:19]}… is every pod's imageID")


@dataclass
class Configured:
    """The clone with staging and production; `before` is what staging has proved already."""

    pushed: Pushed
    before: str
    secrets: dict[str, str]

    def run(self, workflow: str, event: str = "push", **how: object) -> Run:
        """Run a workflow with what the repository's settings say."""
        variables = {"IMAGE_REPOSITORY": f"{REGISTRY}/Acme/App"}
        variables |= {f"{name.upper()}_URL": url for name, url in URLS.items()}
        given: dict[str, object] = {"variables": variables, "secrets": self.secrets, **how}
        return self.pushed.checkout.run(workflow, event, **{**self.pushed.place.environ, **given})  # type: ignore[arg-type]

    def serves(self, name: str) -> str:
        """The release that answers in the environment NAME."""
        asked = httpx2.get(f"http://127.0.0.1:{EDGE_PORT}/health", headers={"Host": HOSTS[name]}, trust_env=False)
        return str(asked.headers["x-release"])


@pytest.fixture(name="configured", scope="module")
def _configured(first: Pushed) -> Configured:
    """Staging and production, as docs/8-github.md sets them up: two namespaces of the cluster, production takes only
    what a workflow signed. Staging runs what the first push made.
    """
    assert first.done.code == 0, str(first.done)
    first.pipeline("down", "kind", "--volumes")  # one small cluster has no room for three
    before, checkout = attested(first.done), first.checkout
    for name in URLS:
        bootstrap = f"--kustomize={checkout.root}/k8s/bootstrap/{name}"
        kubectl("apply", "--server-side", bootstrap, namespace=f"{NAME}-{name}")
        _make_secret(f"{NAME}-{name}")
        _configure(checkout, name)
    public = first.place.key.with_suffix(".pub").read_text()
    (checkout.root / "cosign.pub").write_text(public)
    # The tests were run, and the cluster of the runner was seen to serve: from here on it is about what comes after.
    cd, waits = ".github/workflows/cd.yml", "!cancelled() && needs.{}.result == 'success'"
    checkout.replace(cd, f"    if: ${{{{ {waits.format('ci')} }}}}\n    needs: [ci]\n", "")
    checkout.replace(cd, f"{waits.format('kind')} && vars.STAGING_URL", f"{waits.format('sign')} && vars.STAGING_URL")
    checkout.replace(cd, "needs: [push, kind]", "needs: [push, sign]")
    checkout.commit("staging and production")
    repository = f"{REGISTRY}/acme/app"
    first.pipeline("copy", f"{REGISTRY}/{NAME}@{before}", repository)
    path = deployer_config(checkout.home / "deployers", {name: f"{NAME}-{name}" for name in URLS})
    one = Configured(first, before, {"KUBECONFIG": path.read_text(encoding="utf-8")})
    account = {"KUBECONFIG": str(path), "IMAGE_REPOSITORY": repository}
    first.pipeline("deploy", "staging", "--release", f"{repository}@{before}", **account)
    assert one.serves("staging") == before
    return one


def test_staging_then_production_then_back(configured: Configured, tmp_path: Path, add_row: AddRow) -> None:
    """One digest, signed and proved, in both; by hand staging goes back, whatever the reason says."""
    checkout, before, mark = configured.pushed.checkout, configured.before, tmp_path / "injected"
    with (checkout.root / "backend/__init__.py").open("a") as file:
        file.write("# a change\n")
    checkout.commit("a change")
    done = configured.run("cd.yml", job="production")
    assert done.code == 0, str(done)
    assert (done.jobs["staging"], done.jobs["production"]) == ("success", "success")
    digest = attested(done)
    assert configured.serves("staging") == configured.serves("production") == digest != before
    image = f"{REGISTRY}/acme/app@{digest}"
    assert image_ids(f"{NAME}-staging") == image_ids(f"{NAME}-production") == {image}
    given = [call["with"] for call in done.calls if (call["job"], call["action"]) == ("deploy", UPLOAD)]
    assert [one["name"] for one in given] == ["staging", "production"]
    assert (done.played("deploy")[ATTEST], done.played("deploy")[LOGIN]) == (2, 2)
    add_row(
        TABLE,
        f"cd, configured               green in {done.seconds:3.0f} s: {digest[:19]}… rolled out in staging, promoted to production",
    )

    reason = f"it is slow $(touch {mark}) `touch {mark}`"
    back = configured.run("rollback.yml", "workflow_dispatch", inputs={"environment": "staging", "reason": reason})
    assert back.code == 0, str(back)
    assert "production" not in back.jobs
    assert (configured.serves("staging"), configured.serves("production")) == (before, digest)
    assert f"Release {before[7:19]}…" in back.summary, back.summary
    assert (back.played("deploy")[UPLOAD], back.played("deploy")[ATTEST]) == (1, 0)
    assert not mark.exists()
    add_row(
        TABLE,
        f"rollback, staging            green in {back.seconds:3.0f} s: the release before serves, proved; production untouched",
    )
    add_row("workflows: script injection", "reason of a rollback  $(…) `…`   not run")


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"inputs": {"environment": "staging", "release": "99"}}, "99"),
        ({"inputs": {"environment": "staging", "release": "1; touch injected #"}}, "touch"),
        ({"inputs": {"environment": "production"}, "secrets": {}}, "the secret KUBECONFIG, under Settings › Environments › production"),
    ],
)  # fmt: skip
def test_a_rollback_that_cannot_be_is_said(
    how: dict[str, dict[str, str]], says: str, configured: Configured, add_row: AddRow
) -> None:
    """In one line, and nothing is touched."""
    before = [configured.serves(name) for name in URLS]
    inputs = {**how.pop("inputs"), "reason": "a test"}
    done = configured.run("rollback.yml", "workflow_dispatch", inputs=inputs, **how)
    assert done.code != 0
    said = done.said(inputs["environment"])
    assert says in said, str(done)
    assert "Traceback" not in said
    assert "release" not in inputs or "no deploy is unfinished" in said, "the step that undoes came after it"
    assert [configured.serves(name) for name in URLS] == before
    assert not (configured.pushed.checkout.root / "injected").exists()
    add_row(
        TABLE,
        f"rollback, {inputs.get('release', 'no way in'):20} red in {done.seconds:3.0f} s; {says}; both serve what they did",
    )


def test_what_runs_is_scanned_again(configured: Configured, template: Path, add_row: AddRow) -> None:
    """security.yml: pins and actions are audited, the image of each environment is found in its registry and judged."""
    checkout = configured.pushed.checkout
    # What act does not know yet, zizmor misses: it gets the workflows as they are.
    checkout.replace("noxfile.py", '"--no-config", ".github")', f'"--no-config", "{template}/.github")')
    checkout.commit("audit what is shipped")
    with played_osv() as (port, asked):
        done = configured.run("security.yml", "schedule", **osv_variables(port))
    assert done.code == 0, str(done)
    assert (done.jobs["audit"], done.jobs["rescan"], done.jobs["codeql"]) == ("success",) * 3
    names = {one["package"]["name"] for one in asked}
    assert {"checkov", "fastapi", "uv"} <= names, "every lock, and what is in the image"
    assert done.said("rescan").count("sbom.cdx.json") >= 8, "four images of two environments"
    assert "was scanned, as the variable" not in done.summary
    add_row(
        TABLE,
        f"security, configured         green in {done.seconds:3.0f} s: {len(names)} packages asked for, two environments scanned",
    )


def _make_secret(namespace: str) -> None:
    """What docs/7-kubernetes.md makes by hand, and no more: a Secret that is there before the first deploy."""
    values = {key: secrets.token_hex(32) for key in BY_HAND}
    values["REDIS_ACL"] = f"user default on #{sha256(values['REDIS_PASSWORD'].encode()).hexdigest()} ~* &* +@all\n"
    literals = [f"--from-literal={key}={value}" for key, value in values.items()]
    kubectl("create", "secret", "generic", f"{NAME}-secrets", *literals, namespace=namespace)


def _configure(checkout: Checkout, name: str) -> None:
    """The environment's table and overlay: kind's sizes, as both are in one small cluster."""
    path = checkout.root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    table = [
        f"[tool.slipway.environments.{name}]",
        'target = "kubernetes"',
        f'url = "{URLS[name]}"',
        f'overlay = "k8s/overlays/{name}"',
        f'context = "{name}"',
        f'namespace = "{NAME}-{name}"',
        "rate = 50\nbake_seconds = 3\ntimeout = 180",
        'promote_from = "staging"\nverify = { key = "cosign.pub" }' if name == "production" else "",
    ]
    new = "\n".join(table) + "\n\n"
    text, times = re.subn(rf"(?ms)^\[tool\.slipway\.environments\.{name}\]\n.*?(?=^\[)", lambda _: new, text)
    assert times == 1
    path.write_text(text, encoding="utf-8")
    overlay = f"namespace: {NAME}-{name}\nresources: [../kind]\n{ONLY_FOR.format(name=NAME, environment=name)}"
    for old in (checkout.root / f"k8s/overlays/{name}").iterdir():
        old.unlink()
    (checkout.root / f"k8s/overlays/{name}/kustomization.yaml").write_text(overlay, encoding="utf-8")
