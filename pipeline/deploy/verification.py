"""Whether a release is signed as the environment's `verify` policy demands."""

from __future__ import annotations

from pipeline.config.project import Environment
from pipeline.releases.model import Artifact, short
from pipeline.supply.verify import verification_problems
from pipeline.targets import Releases

__all__ = ["unverified"]


def unverified(env: Environment, releases: Releases, new: Artifact) -> list[str]:
    """Return what the `verify` policy of `env` has against `new`, one line each with its fix."""
    if env.verify is None:
        return []
    images = releases.pushed(new)
    if images is None:
        what = f"release {short(new.name)} was built here and is not signed; {env.name} requires a signature"
        return [f"{what} (`verify`): `nox -s push`, `nox -s sign`, then `--release REPOSITORY@sha256:…`"]
    return verification_problems(images, env.verify)
