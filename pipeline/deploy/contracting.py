"""A migration that takes something away runs only behind a backup that is young enough."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pipeline.data.drill import too_old
from pipeline.data.summaries import Backup, list_backups
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Migration
from pipeline.system.text import duration, size
from pipeline.targets import Target

__all__ = ["back_up_first"]

log = logging.getLogger(__name__)


def back_up_first(
    target: Target, pending: Sequence[Migration], told: Callable[[str], None], *, dry_run: bool = False
) -> None:
    """Make a backup if a migration of `pending` takes something away and none is as young as `backups.max_age` says.

    `told(line)` is called with its progress. With `dry_run` only say that it would be made. Raise `DeployFailed` where
    there is none and none can be made.
    """
    taking = [one.revision for one in pending if one.contract_after is not None or one.destroys]
    if not taking:
        return
    what, env = f"migration {' and '.join(taking)} takes something away", target.env
    if env.backups is None:  # nobody said that this data is worth one; a team does, and a laptop's is often not
        log.warning(
            f"{what} that no rollback brings back, and no backup is made first, as {env.name} has no `backups` in"
            f" pyproject.toml: `nox -s backup -- {env.name}` makes one"
        )
        return
    try:
        newest = next(iter(list_backups(target)), None)
        if newest and not too_old(env, newest):
            log.info(f"{what}: backup {newest.name} is {duration(newest.age)} old")
            return
        log.info(
            f"{what}, and {_why(newest, env.backups.max_age)}: {'one would be' if dry_run else 'one is'} made first"
        )
        if not dry_run:
            _back_up(target, told)
    except SlipwayError as error:
        raise DeployFailed(f"{what}, and no backup could be made first: {error.problems[0]}") from error


def _why(newest: Backup | None, max_age: str) -> str:
    if newest is None:
        return "there is no backup yet, so nobody knows how long it takes"
    took = f"the last one is {duration(newest.age)} old, and took {duration(newest.seconds)} for {size(newest.bytes)}"
    return f"no backup is younger than {max_age} ({took})"


def _back_up(target: Target, told: Callable[[str], None]) -> None:
    answer = target.backups.run("backup", told=told)
    made = Backup.of(answer["backup"])
    if problem := answer.get("problem"):  # it is whole here, which is enough against a migration
        log.warning(problem)
    log.info(
        f"backed up as {made.name}, {made.place}: {made.rows:,} rows, {size(made.bytes)} in {duration(made.seconds)}"
    )
