"""`python -m pipeline VERB`: what the nox sessions run. Exit codes: see docs/1-deploying.md."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.config.project import load_project
from pipeline.errors import Interrupted, SlipwayError, UsageError
from pipeline.system.progress import Progress

__all__ = ["main", "parser"]

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` with one line instead of printing argparse's usage block."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; usage: {' '.join(self.format_usage().split()[1:])}")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code; docs/1-deploying.md lists the codes."""
    os.umask(0o077)  # what a deploy writes may hold secrets or quote answers
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    progress = Progress()
    progress.show_log()
    try:
        options, rest = parser().parse_known_args(arguments)
        if rest:
            raise UsageError(f"unknown argument `{rest[0]}`: `nox -l` shows what each session takes, after `--`")
        code = _verb(options, progress)
    except (SlipwayError, Interrupted) as error:
        for problem in error.problems:
            log.error(problem)
        return error.exit_code
    except BrokenPipeError:  # the reader closed our output early, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        log.error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1
    return code


def _interrupt(number: int, _: FrameType | None) -> None:
    """Raise `Interrupted`, which undoes what was begun; ignore further signals, so that nothing stops that."""
    for other in SIGNALS:
        signal.signal(other, _already)
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _already(*_: object) -> None:
    sys.stderr.write("already undoing and recording; wait until it is done (kill -9 leaves it to the next deploy)\n")


def _verb(options: argparse.Namespace, progress: Progress) -> int:
    from pipeline.commands import deploys as verbs
    from pipeline.commands import images as image_verbs

    name = options.verb.replace("-", "_")
    run = getattr(image_verbs if name in image_verbs.__all__ else verbs, name)
    result: tuple[int, Any] = run(load_project(Path.cwd()), options, progress)
    code, document = result
    if document is not None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return code


def parser() -> _Parser:
    """Return the parser of the command line: a subcommand for each verb."""
    whole = _Parser(prog="python -m pipeline", description=__doc__)
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(name: str, text: str, *, env: bool = True) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, prog=f"nox -s {name} --", help=text, description=text, allow_abbrev=False)
        if env:
            command.add_argument(
                "env", nargs="?", default="local", metavar="ENV", help="an environment of pyproject.toml"
            )
        return command

    deploy = verb("deploy", "ship the working tree, or a recorded release")
    deploy.add_argument("--dry-run", action="store_true", help="plan, build and check; change nothing that runs")
    # A release's name is lower case; an image's, made from GitHub's names, may be typed with capitals.
    deploy.add_argument(
        "--release", metavar="REF", type=str.lower, help="ship a recorded release (number or name) instead of building"
    )
    deploy.add_argument("--forward", action="store_true", help="refuse if a newer commit is running")
    deploy.add_argument("--empty-database", action="store_true", help="start over if the data is gone")
    deploy.add_argument(
        "--forget-migration", metavar="NNNN", help="let an applied migration run again; what it did to the data stays"
    )
    rollback = verb("rollback", "go back to a recorded release")
    which = rollback.add_mutually_exclusive_group()
    which.add_argument("--release", metavar="N", help="its number or name; the previous one by default")
    which.add_argument(
        "--unfinished", action="store_true", help="undo a deploy that was killed; do nothing if there is none"
    )
    down = verb("down", "stop everything")
    down.add_argument("--volumes", action="store_true", help="also remove the data")
    doctor = verb("doctor", "say what is wrong with what runs, and how to fix it")
    for command in (
        *(deploy, rollback, verb("status", "show what runs"), doctor),
        verb("releases", "list the recorded releases"),
    ):
        command.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    rename = verb("rename", "give the service another name", env=False)
    rename.add_argument("name", metavar="NAME", help="for example my-service")
    verb("init", "write .env with fresh secrets", env=False)
    migrations = verb("migrations", "check the migration files", env=False)
    migrations.prog = "nox -s migration --"  # the session that has --renumber
    migrations.add_argument("--renumber", metavar="NNNN", help="move this one (number or file name) to the end")
    settings = verb("settings", "check the files that are made from the settings schema", env=False)
    settings.add_argument("--write", action="store_true", help="write them")
    _image_verbs(verb)
    verb("access", "write a kubeconfig for an environment, in a job of GitHub Actions")
    verb("dev", "run the service with reload", env=False)
    cluster = verb("cluster", "create or remove a Kubernetes cluster on this machine, with kind", env=False)
    cluster.add_argument("action", nargs="?", choices=("up", "down"), default="up", help="up by default")
    cluster.add_argument(
        "--gateway-api", type=Path, metavar="FILE", help="the Gateway API's manifest, if GitHub cannot be reached"
    )
    return whole


def _image_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    verb("build", "build the images", env=False)
    pins = verb("pins", "compare the digests of base images with their registries'", env=False)
    pins.add_argument("--write", action="store_true", help="pin them")
    verb("push", "build the images and push them to IMAGE_REPOSITORY", env=False)
    scan = verb("scan", "write the SBOMs of a release, and check it for known vulnerabilities", env=False)
    scan.add_argument("--sbom-only", action="store_true", help="only write the SBOMs")
    verb("audit", "check the packages that requirements/ pins for known vulnerabilities", env=False)
    sign = verb("sign", "sign a release, its SBOMs and its provenance", env=False)
    verify = verb("verify-image", "check that a release is signed as it should be", env=False)
    verify.add_argument("--env", metavar="ENV", help="check what this environment's `verify` demands")
    for command in (scan, sign, verify):
        command.add_argument(
            "reference", type=str.lower, metavar="REPOSITORY@sha256:…", help="the digest that `push` printed"
        )
    copy = verb("copy", "copy the images of a release to another repository, byte for byte", env=False)
    copy.add_argument("release", metavar="REPOSITORY@DIGEST", help="what `push` printed")
    copy.add_argument("repository", metavar="REPOSITORY", help="the repository to copy to")
    verb("proved", "print the digest that was proved last, as its registry knows it")


if __name__ == "__main__":
    sys.exit(main())
