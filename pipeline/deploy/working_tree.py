"""Whether the working tree can be shipped, and whether it is not older than what serves: what git says of it."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.config.project import Project
from pipeline.errors import UsageError
from pipeline.releases.migration_files import migration_file_problems
from pipeline.releases.model import SHORT
from pipeline.releases.records import Record, read_json
from pipeline.system.git import git_problem, has_commit, is_older, is_shallow, read_source, source_problems

__all__ = ["refuse_backwards", "tree_problems"]

log = logging.getLogger(__name__)


def tree_problems(project: Project) -> list[str]:
    """Return why the working tree cannot be shipped; warn where no rules say which of its files do not belong."""
    root, source = project.root, project.source
    said = git_problem(root)
    if said and said.in_the_way:
        return [f"{said.what}; until then, what it ignores would ship, and no commit is known"]
    if said:
        log.warning(f"{said.what}: all of {', '.join(source)} ships but caches and hidden files, as of no commit")
    return [*source_problems(root, source), *migration_file_problems(root)]


def refuse_backwards(root: Path, environment: str, serving: Record | None) -> None:
    """Raise `UsageError` where the commit of `root` is older than that of the deploy that serves, or may be.

    So a CI run that is late or repeated never takes an environment back.
    """
    # The clone's commit counts, not the image's: the manifests must not go back either.
    if serving is None:
        return
    # As it began: a report names the commit of the image, which may be older.
    there = read_json(serving.folder / "begun.json").get("commit")
    here = read_source(root).commit
    way = f"to go back, run `nox -s rollback -- {environment}` or deploy without --forward"
    if not here:
        said = git_problem(root)
        raise UsageError(f"--forward compares commits, and {said.what if said else f'{root} has none yet'}; {way}")
    if not there:
        raise UsageError(f"--forward compares commits, and {environment} was deployed from none; {way}")
    since = f"{environment} was deployed from {there[:SHORT]}, which is"
    unknown = f"so it is unknown whether that is newer than {here[:SHORT]}"
    shallow = is_shallow(root)
    if not has_commit(root, there):
        fetch = "`git fetch --unshallow`" if shallow else "fetch it"
        raise UsageError(f"{since} not in this clone, {unknown}: {fetch}; if it was never pushed: {way}")
    if is_older(root, here, there):
        raise UsageError(f"{since} newer than {here[:SHORT]}: not deployed; {way}")
    if shallow and here != there and not is_older(root, there, here):
        raise UsageError(f"{since} on no known way from {here[:SHORT]} in this shallow clone: `git fetch --unshallow`")
