"""Whether what a policy demands holds for the images of a release: asked of the registry, before all else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.config.policy import Policy
from pipeline.errors import SlipwayError
from pipeline.images.build import PushedImages
from pipeline.registry.image import resolve
from pipeline.supply.cosign import CYCLONEDX, PROVENANCE, SIGNATURE, Cosign
from pipeline.supply.provenance import provenance_problems

__all__ = ["verification_problems"]

AT_ONCE = 4  # a keyless verification takes a second or two, most of it waiting


def verification_problems(images: PushedImages, policy: Policy, say: Callable[[str], None]) -> list[str]:
    """What of IMAGES does not hold under POLICY: a line each, with image, reason and fix.

    Each image has a signature by its digest, so that what guards a cluster, or anybody with cosign, can ask for any of
    them alone. The provenance of the service's image names the others: they belong together. Each platform of each
    image has an SBOM.
    """
    if policy.key and "://" not in policy.key and not Path(policy.key).is_file():
        return [f"verify: there is no {policy.key}: it is the public key (cosign.pub) of who signs"]
    cosign = Cosign(images.place("backend"), say)

    def signed(reference: str, wanted: dict[str, str]) -> str | None:
        try:
            found = cosign.signed(policy, reference)
        except SlipwayError as error:
            return error.problems[0]
        lacks = " and no ".join(name for kind, name in wanted.items() if kind not in found)
        return f"{reference}: no {lacks} by {policy.signer}: `nox -s sign -- {cosign.release}`" if lacks else None

    try:
        wanted: dict[str, dict[str, str]] = {place: {SIGNATURE: "signature"} for place in images.places}
        wanted[images.place("backend")][PROVENANCE] = "provenance"
        for image in map(resolve, images.places):
            for platform in image.platforms:
                wanted.setdefault(f"{image.repository}@{platform.digest}", {})[CYCLONEDX] = "SBOM"
        with ThreadPoolExecutor(AT_ONCE) as workers:
            problems = [one for one in workers.map(signed, wanted, wanted.values()) if one]
        return problems or _provenance(cosign, images, policy)
    except SlipwayError as error:
        return list(error.problems)


def _provenance(cosign: Cosign, images: PushedImages, policy: Policy) -> list[str]:
    """What every signed provenance of the service's image has against it; nothing where one has nothing."""
    place = images.place("backend")
    judged = [provenance_problems(one, images, policy) for one in cosign.attestations(policy, place, PROVENANCE)]
    return [] if [] in judged else [f"{place}: {problem}" for problem in judged[-1]]
