"""Verification: whether the images of a release meet a policy, asked of the registry before anything else."""

from __future__ import annotations

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


def verification_problems(images: PushedImages, policy: Policy) -> list[str]:
    """Return what of `images` does not hold under `policy`: a line each, with image, reason and fix.

    Each image must have a signature by its digest, and each platform of each image an SBOM. The provenance of the
    service's image must name the others: they belong together.
    """
    # A signature for each image lets whatever guards a cluster, or anybody with cosign, verify any of them alone.
    if policy.key and "://" not in policy.key and not Path(policy.key).is_file():
        return [f"verify: there is no {policy.key}: put the signer's public key (cosign.pub) there"]
    cosign = Cosign(images.place("backend"))

    def signed(reference: str, wanted: dict[str, str]) -> str | None:
        try:
            signed_kinds = cosign.signed(policy, reference)
        except SlipwayError as error:
            return error.problems[0]
        lacks = " and no ".join(name for kind, name in wanted.items() if kind not in signed_kinds)
        return f"{reference}: no {lacks} by {policy.signer}: `nox -s sign -- {cosign.release}`" if lacks else None

    try:
        wanted: dict[str, dict[str, str]] = {place: {SIGNATURE: "signature"} for place in images.places}
        wanted[images.place("backend")][PROVENANCE] = "provenance"
        for image in map(resolve, images.places):
            for platform in image.platforms:
                wanted.setdefault(f"{image.repository}@{platform.digest}", {})[CYCLONEDX] = "SBOM"
        with ThreadPoolExecutor(AT_ONCE) as workers:
            problems = [problem for problem in workers.map(signed, wanted, wanted.values()) if problem]
        return problems or _provenance(cosign, images, policy)
    except SlipwayError as error:
        return list(error.problems)


def _provenance(cosign: Cosign, images: PushedImages, policy: Policy) -> list[str]:
    """Return the problems of the last signed provenance of the service's image; none where any has none."""
    place = images.place("backend")
    judged = [provenance_problems(each, images, policy) for each in cosign.attestations(policy, place, PROVENANCE)]
    return [] if [] in judged else [f"{place}: {problem}" for problem in judged[-1]]
