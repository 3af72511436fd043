"""The trial: the new release answers each request of its table before anybody is sent to it."""

from __future__ import annotations

from pathlib import Path

from pipeline.deploy.chapter import Chapter
from pipeline.errors import DeployFailed
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import short
from pipeline.system.progress import Progress
from pipeline.targets import Target

__all__ = ["try_unrouted"]


def try_unrouted(chapter: Chapter, target: Target, progress: Progress, journal: Path, *, migrated: bool) -> str:
    """Try the new release of `chapter` with the environment's real settings, secrets and network; say how that went.

    Writes that cannot be removed stay in `journal`. `migrated`: its migrations were applied just now. Raise
    `DeployFailed` where a request fails, or where the release does not get ready.
    """
    new, env = chapter.new, target.env
    assert new is not None
    stage = "migrate" if chapter.touched else "check"
    done = "its migrations are applied, and no replica was exchanged" if migrated else "no replica was exchanged"
    chapter.tried = Smoked(unplaced=1)  # until it says what it wrote
    try:
        chapter.tried = target.fleet.trial(
            new,
            journal,
            lambda line: progress.live(stage, f"trying the release before anybody is sent to it: {line}"),
            tries=2 if env.max_failures else 1,  # where some may fail, one that fails here may be one of them
        )
    except DeployFailed as error:
        raise DeployFailed(f"{error.problems[0]} ({done})", *error.problems[1:]) from error
    if chapter.tried.failures:
        first, *others = chapter.tried.failures
        more = f", and {len(others)} more" if others else ""
        raise DeployFailed(
            f"release {short(new.name)} fails with the settings and secrets of {env.name}, before anybody is sent to it"
            f" ({done}): {first.method} {first.path}: {first.detail}{more}"
        )
    return f"answered its {len(new.requests)} requests before anybody is sent to it"
