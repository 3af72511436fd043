"""What k8s/ renders to, and whether it may be shipped: `nox -s lint` checks every tree in it.

`python -m pipeline.engines.kustomize` checks all of it: kustomize as kubectl has it, the schemas of three versions of
Kubernetes, what is sent twice or unfilled, and checkov's rules.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.engines.component_kinds import component_kinds
from pipeline.errors import SlipwayError, UsageError
from pipeline.registry.reference import PARTS
from pipeline.system.run import CommandFailed, run

__all__ = ["SETTINGS", "Document", "kubectl", "render", "trees", "unfilled", "with_release"]

Document = dict[str, Any]

SETTINGS = "settings"  # the ConfigMap of the base, whose name gets a hash of its content
RENDER_SECONDS = 60
VERSIONS = ("1.35", "1.36", "1.37")
# Names and addresses reserved for examples, which lead nowhere (RFC 2606, RFC 5737).
PLACEHOLDERS = (".invalid", "192.0.2.")
OWN_GROUPS = ("networking.k8s.io",)  # of those that components name: Kubernetes' own
CHECKOV = "k8s/checkov.yaml"
# Stands for a digest that a registry gave.
SAMPLE_DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclass(frozen=True)
class Tree:
    """Something that renders: its `name` for people, and the content of a kustomization in a folder beside the tree."""

    name: str
    kustomization: Mapping[str, Any]


def kubectl() -> str:
    """Return the path of kubectl, in this Python's environment or on the machine. Raise `UsageError` without one."""
    beside = Path(sys.executable).parent / "kubectl"
    program = str(beside) if beside.exists() else shutil.which("kubectl")
    if program is None:
        raise UsageError("kubectl: not found; install it: https://kubernetes.io/docs/tasks/tools/")
    return program


def trees(root: Path) -> Iterator[Tree]:
    """Yield the trees of the project at `root`.

    Each overlay as the target renders it, each bootstrap, what watches a kind cluster, and each component on the base.
    """
    for folder in sorted((root / "k8s/overlays").iterdir()):
        yield Tree(f"k8s/overlays/{folder.name}", with_release(folder, SAMPLE_DIGEST, _digests()))
    for folder in sorted((root / "k8s/bootstrap").iterdir()):
        yield Tree(f"k8s/bootstrap/{folder.name}", {"resources": [folder]})
    for folder in (root / "k8s/cluster/monitoring", root / "k8s/cluster/monitoring/service"):
        yield Tree(folder.relative_to(root).as_posix(), {"resources": [folder]})
    for folder in sorted((root / "k8s/components").iterdir()):
        component = {"resources": [root / "k8s/base"], "components": [folder], "namespace": "example"}
        yield Tree(f"k8s/components/{folder.name}", {**component, "images": _digests()})


def with_release(overlay: Path, release: str, images: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the kustomization by which a deploy renders `overlay`: `images` are those of `release`."""
    # A merge that does not repeat `immutable` would make the ConfigMap mutable.
    merge = {"name": SETTINGS, "behavior": "merge", "options": {"immutable": True}}
    return {
        "resources": [overlay],
        "images": images,
        "configMapGenerator": [{**merge, "literals": [f"RELEASE={release}"]}],
    }


def render(kustomization: Mapping[str, Any]) -> list[Document]:
    """Render `kustomization`, whose paths are absolute. Raise `SlipwayError` with kustomize's own words."""
    with tempfile.TemporaryDirectory() as name:
        # Kustomize wants relative paths, and `..` from a symlinked /tmp would lead elsewhere.
        folder = Path(name).resolve()
        text = yaml.safe_dump(_relative(dict(kustomization), folder), sort_keys=False)
        (folder / "kustomization.yaml").write_text(text, encoding="utf-8")
        try:
            # A component may take a program or rules from where they are kept, which is above k8s/.
            command = [kubectl(), "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
            rendered = run(command, level=logging.DEBUG, timeout=RENDER_SECONDS)
        except CommandFailed as error:
            raise SlipwayError(f"kustomize: {' '.join(error.output.split()).removeprefix('error: ')}") from error
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
    return [document for document in yaml.load_all(rendered, Loader=loader) if document]


def unfilled(documents: Iterable[Document]) -> list[str]:
    """Return what in `documents` still is an example that leads nowhere, one line each; a deploy must refuse it."""
    problems = []
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        for path, value in _strings(document, ""):
            if any(placeholder in value for placeholder in PLACEHOLDERS):
                place = path.lstrip(".")
                problems.append(f"{name}: {place} is still the example {value}: put your own into the overlay")
    return problems


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{path}[{index}]")


def _digests() -> list[dict[str, str]]:
    return [{"name": part, "newName": f"registry.example/{part}", "digest": SAMPLE_DIGEST} for part in PARTS]


def _relative(kustomization: dict[str, Any], folder: Path) -> dict[str, Any]:
    for key in ("resources", "components"):
        if key in kustomization:
            kustomization[key] = [os.path.relpath(Path(path).resolve(), folder) for path in kustomization[key]]
    return kustomization


def custom_kinds(root: Path) -> set[tuple[str, str]]:
    """Return API version and kind of what the components below `root` have and Kubernetes itself does not."""
    kinds = component_kinds(root).items()
    return {(one.api_version, kind) for kind, one in kinds if one.group not in OWN_GROUPS}


def schema_problems(name: str, documents: Iterable[Document], custom: Collection[tuple[str, str]]) -> list[str]:
    """Return what the schemas of each version refuse in `documents` of the tree `name`, one line each.

    Kubernetes brings no schema for `custom` (API version, kind): the API server of a cluster that has their CRDs checks
    them (`kubectl diff` in each plan, the end-to-end tests on kind).
    """
    import kubernetes_validate

    problems = []
    for document in documents:
        if (document["apiVersion"], document["kind"]) in custom:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                place = ".".join(map(str, error.path))
                what = f"{document['kind']} {document['metadata']['name']}"
                problems.append(f"{name}: {what}: {place}: {error.message} (Kubernetes {version})")
            except kubernetes_validate.SchemaNotFoundError:
                what = f"{document['apiVersion']} {document['kind']}"
                problems.append(f"{name}: {what}: Kubernetes {version} has no such kind")
    return problems


def checkov_problems(root: Path, rendered: Mapping[str, list[Document]]) -> list[str]:
    """Return what checkov finds in `rendered` beyond the explained exceptions of k8s/checkov.yaml, as one text."""
    with tempfile.TemporaryDirectory() as name:
        for tree, documents in rendered.items():
            path = Path(name) / f"{tree.replace('/', '-')}.yaml"
            path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        # Not its script, whose first line is the path that the environment once had: a checkout may be moved.
        command = [sys.executable, "-m", "checkov.main", "--config-file", str(root / CHECKOV), "-d", name]
        # Nothing is sent or fetched: it would only ask its maker's service how severe a finding is.
        environ = {**os.environ, "BC_SKIP_MAPPING": "TRUE", "CKV_IGNORE_HIDDEN_DIRECTORIES": "false"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
    if done.returncode == 0:
        return []
    return [f"checkov: fix it, or explain it in {CHECKOV}:\n{done.stdout.strip()}\n{done.stderr.strip()[-2000:]}"]


def _unseen(documents: Iterable[Document], seen: set[str]) -> list[Document]:
    """Return those of `documents` that are not in `seen`, and add them to it."""
    # Six components share one base.
    new = []
    for document in documents:
        text = json.dumps(document, sort_keys=True)
        if text not in seen:
            seen.add(text)
            new.append(document)
    return new


def main() -> int:
    """Render and check all of k8s/; print each problem on a line. Return the exit code: 1 where there is any."""
    root, began = Path.cwd(), time.monotonic()
    rendered: dict[str, list[Document]] = {}
    problems: list[str] = []
    seen: set[str] = set()
    try:
        custom = custom_kinds(root)
        for tree in trees(root):
            rendered[tree.name] = _unseen(render(tree.kustomization), seen)
            problems += schema_problems(tree.name, rendered[tree.name], custom)
        problems += checkov_problems(root, rendered)
    except SlipwayError as error:
        problems += error.problems
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    skipped = ", ".join(sorted(kind for _, kind in custom))
    sys.stdout.write(
        f"k8s/: {len(rendered)} trees, {len(seen)} different objects, valid for {', '.join(VERSIONS)} (a cluster checks"
        f" {skipped}); checkov found nothing unexplained; {time.monotonic() - began:.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
