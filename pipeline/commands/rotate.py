"""`nox -s rotate`: a secret anew, under traffic."""

from __future__ import annotations

from argparse import Namespace

from pipeline.commands import Verbs
from pipeline.commands.environments import Opener
from pipeline.config.project import Project
from pipeline.deploy.story import Story
from pipeline.rotation.steps import ROTATIONS
from pipeline.rotation.story import Begin, Rotation
from pipeline.system.progress import Progress
from pipeline.targets import open_target

__all__ = ["add_parsers"]


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("rotate", rotate, "give a secret a new value, under traffic", env=True)
    parser.add_argument("name", metavar="NAME", help=", ".join(sorted(ROTATIONS)))
    parser.add_argument("--continue", action="store_true", dest="resume", help="go on where the rotation stopped")


def rotate(
    project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target, begin: Begin = Story
) -> None:
    """Rotate the secret that is named, or go on with its rotation."""
    rotation = Rotation(project, project.environment(options.env), progress, options.name, opened=opened, begin=begin)
    rotation.tell(resume=options.resume)
