"""The trial: the new release answers each request of its table before anybody is sent to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.deploy.chapter import LOG, Chapter
from pipeline.errors import DeployFailed, NotReady
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import short
from pipeline.targets import Target

__all__ = ["try_unrouted"]


def try_unrouted(
    chapter: Chapter, target: Target, watch: Callable[[str], None], journal: Path, *, migrated: bool
) -> str:
    """Try the new release of `chapter` with the environment's real settings, secrets and network; say how that went.

    Writes that cannot be removed stay in `journal`. `migrated`: its migrations were applied just now. `watch(line)` is
    called while waiting, and may raise. Raise `DeployFailed` where a request fails, or where it does not get ready.
    """
    new, env, log = chapter.new, target.env, chapter.record.folder / LOG
    assert new is not None
    done = "its migrations are applied, and no replica was exchanged" if migrated else "no replica was exchanged"
    chapter.tried = Smoked(unplaced=1)  # until it says what it wrote
    try:
        chapter.tried = target.fleet.trial(
            new,
            lambda line: watch(f"trying the release before anybody is sent to it: {line}"),
            journal=journal,
            log=log,
            tries=2 if env.max_failures else 1,  # where some may fail, one that fails here may be one of them
        )
    except NotReady as error:
        chapter.tried = Smoked()
        raise NotReady(short(new.name), f"{error.why} ({done})") from error
    if chapter.tried.failures:
        first, *others = (f"{one.method} {one.path}: {one.detail}" for one in chapter.tried.failures)
        ident = chapter.tried.failures[0].request_id
        raise DeployFailed(
            f"release {short(new.name)} fails with the settings and secrets of {env.name}, before anybody is sent to it"
            f" ({done}): {first} (request {ident})",
            *(f"it fails {line}" for line in others),
        )
    log.unlink(missing_ok=True)
    return f"answered its {len(new.requests)} requests before anybody is sent to it"
