"""`python -m pipeline VERB`: what the nox sessions run. Exit codes: see docs/1-deploying.md."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType

from pipeline.commands import Parser, Verb, Verbs
from pipeline.config.project import load_project
from pipeline.errors import Interrupted, SlipwayError, UsageError
from pipeline.system.audience import do_without_audience, signals_heard
from pipeline.system.progress import Progress

__all__ = ["FAMILIES", "main", "parser", "watch_signals"]

log = logging.getLogger("pipeline.main")  # __name__ is `__main__` here, which is not below what `show_log` shows

# Which file of commands/ has which verbs: the one that a command line needs is imported and no other, which takes long.
FAMILIES = {
    "deploy": ("deploy", "rollback", "watch"),
    "doctor": ("doctor",),
    "environments": ("down", "status", "releases"),
    "logs": ("logs",),
    "rename": ("rename", "parts"),
    "setup": ("init", "migrations", "settings"),
    "images": ("build", "pins", "push", "scan", "audit", "sign", "verify-image", "copy", "proved"),
    "access": ("access",),
    "changes": ("changes",),
    "leaks": ("leaks",),
    "rules": ("rules",),
    "dev": ("dev",),
    "cluster": ("cluster",),
    "rotate": ("rotate",),
    "user": ("user",),
    "backup": ("backup", "backups", "drill", "restore", "upgrade-database"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code; docs/1-deploying.md lists the codes."""
    os.umask(0o077)  # what a deploy writes may hold secrets or quote answers
    watch_signals()
    progress = Progress()
    progress.show_log()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments, progress)
    except (SlipwayError, Interrupted) as error:
        for line in error.problems:
            log.error(line)
        return error.exit_code
    except BrokenPipeError:  # the reader closed our output early, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        log.error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1


def watch_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise `Interrupted` in whatever code runs."""
    for number in signals_heard():
        signal.signal(number, _interrupt)
    sys.unraisablehook = _raise_later


def _raise_later(ignored: sys.UnraisableHookArgs) -> None:
    """Raise an `Interrupted` again in a moment if a finalizer ran when the signal came: Python ignores it there."""
    error = ignored.exc_value
    if not isinstance(error, Interrupted):
        sys.__unraisablehook__(ignored)
        return

    def again(*_: object) -> None:
        raise error

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _interrupt(number: int, _: FrameType | None) -> None:
    """Raise `Interrupted`, which undoes what was begun; ignore further signals, so that nothing stops that."""
    for other in signals_heard():
        signal.signal(other, _already)
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _already(*_: object) -> None:
    sys.stderr.write("already undoing and recording; wait until it is done (kill -9 leaves it to the next deploy)\n")


def _run(arguments: list[str], progress: Progress) -> int:
    """Run the verb that `arguments` begin with, print its document if it has one, and return its exit code."""
    options, rest = parser(*arguments[:1]).parse_known_args(arguments)
    if rest:
        raise UsageError(f"unknown argument `{rest[0]}`: `nox -l` shows what each session takes, after `--`")
    run: Verb = options.run
    if getattr(options, "unwatched", False):
        do_without_audience(progress.transcript)
    code, document = run(load_project(Path.cwd()), options, progress) or (0, None)
    if document is not None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return code


def parser(verb: str | None = None) -> Parser:
    """Return the parser of the command line: with the family of `verb`, or with every verb if no family has it."""
    whole = Parser(prog="python -m pipeline", description=__doc__)
    verbs = Verbs(whole)
    for family in [family for family, names in FAMILIES.items() if verb in names] or FAMILIES:
        import_module(f"pipeline.commands.{family}").add_parsers(verbs)
    return whole


if __name__ == "__main__":
    sys.exit(main())
