"""Promotion: an environment with `promote_from` runs what was proved in another one, and nothing else.

A proof says what a deploy saw; it does not say who wrote it. Whoever may push to the repository may attach one, so this
rule is as good as the registry's write access and no better: let only the pipeline push. `trusted` of `admit` is the
place for a check of the proof's signature: it gets each record before anything is concluded from it.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config.project import KubernetesEnvironment
from pipeline.errors import UsageError
from pipeline.registry.proofs import ProofRecord, newest_proved, proofs
from pipeline.registry.reference import DIGEST, parse_reference

__all__ = ["admit"]


def admit(
    environment: KubernetesEnvironment,
    reference: str | None,
    *,
    repository: str,
    trusted: Callable[[ProofRecord], bool] = lambda record: True,  # noqa: ARG005 - all that could be pushed
) -> ProofRecord | None:
    """Return the proof of what `environment` may run, None where it promotes from nowhere.

    That is the proof of `reference` (`sha256:…`, or with `repository` before it), by default of the newest digest that
    was proved where it promotes from. The last deploy of a digest there counts: one that failed after it had been
    proved is not admitted. `trusted` leaves out records, as if they did not exist.

    Raise `UsageError` for what is refused, naming the digest, the environment and what to do. Raise `RegistryError`
    where the registry cannot be asked.
    """
    source = environment.promote_from
    if source is None:
        return None
    asked = None if reference is None else _digest(reference, repository, environment.name)
    newest = newest_proved(repository, source)
    if newest is not None and not trusted(newest):
        newest = None
    digest = asked or (newest.digest if newest else None)
    if digest is None:
        raise UsageError(
            f"{repository}: no digest was proved in {source} yet, and {environment.name} takes only what was:"
            f" `nox -s deploy -- {source}` first"
        )
    # The newest is taken from its tag as well: a list that clients keep can miss an entry for a moment.
    records = [record for record in proofs(repository, digest) if record.environment == source and trusted(record)]
    records += [newest] if newest is not None and newest.digest == digest else []
    if not records:
        raise UsageError(
            f"{repository}@{digest} was not proved in {source}, and {environment.name} takes only what was:"
            f" `nox -s deploy -- {source} --release {repository}@{digest}` first"
        )
    last = max(records, key=lambda record: record.finished)
    if last.verdict != "proved":
        raise UsageError(
            f"{repository}@{digest}: its last deploy to {source} ({last.finished:%Y-%m-%d %H:%M %Z}) was"
            f" {last.verdict.replace('_', ' ')}, and {environment.name} takes only what was proved there:"
            f" `nox -s deploy -- {source} --release {repository}@{digest}` first, or name another digest"
        )
    return last


def _digest(reference: str, repository: str, environment: str) -> str:
    """Return the digest that `reference` names in `repository`. Raise `UsageError` for anything else."""
    if DIGEST.fullmatch(reference):
        return reference
    wanted = parse_reference(reference)
    if wanted.digest is None:
        raise UsageError(
            f"{reference}: {environment} takes a digest, because anything else can be moved:"
            f" `--release {repository}@sha256:…`"
        )
    if wanted.repository != repository:
        # Those who may push there are not those who may push here.
        raise UsageError(
            f"{reference}: {environment} takes images of {repository} alone: push it there, or fix IMAGE_REPOSITORY"
        )
    return wanted.digest
