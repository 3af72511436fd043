"""The origin of a release: a SLSA provenance (version 1), made by the job that built it and signed like the image."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from typing import Any

from pipeline.config.policy import Policy
from pipeline.images.build import PushedImages
from pipeline.registry.reference import PARTS
from pipeline.system.git import Source

__all__ = ["provenance", "provenance_problems"]

WORKFLOW = "https://slsa-framework.github.io/github-actions-buildtypes/workflow/v1"
HERE = "urn:slipway:push"  # `nox -s push` on a machine that only its user vouches for


def provenance(
    images: PushedImages, source: Source, address: str | None, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Return the predicate for `images`, built from `source` of the repository at `address` (https, None without one).

    There is one for the release, on the service's image, with the other images as by-products. `environment`: GitHub's
    variables, if any.
    """
    # The by-products are named so that no other image, even a signed one, can take the place of what was built with it.
    get = environment.get
    server, repository = get("GITHUB_SERVER_URL", "https://github.com"), get("GITHUB_REPOSITORY")
    on_github = bool(get("GITHUB_ACTIONS") and repository)
    ref = get("GITHUB_REF")
    at = f"{server}/{repository}" if on_github else address
    commit = {"digest": {"gitCommit": source.commit}} if source.commit else {}
    dirty = {"annotations": {"dirty": True}} if source.dirty else {}
    if on_github:
        path = get("GITHUB_WORKFLOW_REF", "").partition("@")[0].removeprefix(f"{repository}/")
        definition: dict[str, Any] = {
            "buildType": WORKFLOW,
            "externalParameters": {"workflow": {"ref": ref, "repository": at, "path": path}},
            "internalParameters": {
                "github": {
                    name: get(f"GITHUB_{name.upper()}")
                    for name in ("event_name", "repository_id", "repository_owner_id")
                }
            },
        }
        builder = f"https://github.com/actions/runner/{get('RUNNER_ENVIRONMENT', 'self-hosted')}"
        metadata = {
            "invocationId": f"{at}/actions/runs/{get('GITHUB_RUN_ID')}/attempts/{get('GITHUB_RUN_ATTEMPT', '1')}"
        }
    else:
        definition = {"buildType": HERE, "externalParameters": {}}
        builder, metadata = f"urn:slipway:user:{getpass.getuser()}@{socket.gethostname()}", {}
    uri = f"git+{at}{f'@{ref}' if on_github and ref else ''}" if at else "urn:slipway:no-repository"
    return {
        "buildDefinition": {**definition, "resolvedDependencies": [{"uri": uri, **commit, **dirty}]},
        "runDetails": {
            "builder": {"id": builder},
            **({"metadata": metadata} if metadata else {}),
            "byproducts": [
                {"name": part, "digest": {"sha256": digest.removeprefix("sha256:")}}
                for part, digest in images.others.items()
            ],
        },
    }


def provenance_problems(predicate: Mapping[str, Any], images: PushedImages, policy: Policy) -> list[str]:
    """Return what in the verified `predicate` of the service's image does not hold for `images` under `policy`.

    Without a source in the policy any will do, but the images must be those that were built together.
    """
    try:
        [source, *_] = predicate["buildDefinition"]["resolvedDependencies"]
        address, _, ref = str(source["uri"]).removeprefix("git+").partition("@")
        commit = source.get("digest", {}).get("gitCommit")
        dirty = bool(source.get("annotations", {}).get("dirty"))
        built = {one["name"]: f"sha256:{one['digest']['sha256']}" for one in predicate["runDetails"]["byproducts"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["its provenance was not made by slipway: `nox -s sign` makes one"]
    problems = [
        f"its provenance names another {part} image, {built.get(part, 'none')}, than {images.others.get(part, 'none')}:"
        " its tag was moved; `nox -s push` and `nox -s sign` again"
        for part in PARTS[1:]
        if built.get(part) != images.others.get(part)
    ]
    if policy.source:
        wanted, _, at = policy.source.partition("@")
        if address != wanted or (at and at not in (ref, commit)):
            actual = f"{address}{f'@{ref}' if ref else ''} ({commit or 'no commit'})"
            problems.append(f"built from {actual} and not from {policy.source}: use an image that was")
        elif dirty or not commit:
            what = "files that differ from their commit" if dirty else "no commit"
            problems.append(f"built from {what}, which {wanted} does not have: commit, push, sign again")
    return problems
