"""What each nox session runs: a parser, a function, what it prints. One file for each family of verbs, see `Verbs`.

May use everything; nothing imports it but `__main__`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from pipeline.errors import UsageError

__all__ = ["JSON", "Parser", "Result", "Verb", "Verbs"]

JSON: dict[str, Any] = {"action": "store_true", "help": "print one JSON document on standard output"}

Result = tuple[int, Any] | None  # an exit code, and the JSON document if one was asked for; None is exit code 0
Verb = Callable[..., Result]  # of the project, the options that its parser gave, and the progress


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` with one line instead of printing argparse's usage block."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; usage: {' '.join(self.format_usage().split()[1:])}")


class Verbs:
    """The verbs of the command line that `whole` parses."""

    def __init__(self, whole: Parser) -> None:
        self._parsers = whole.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    def add(self, name: str, run: Verb, text: str, *, env: bool = False) -> Parser:
        """Add the verb `name`, which calls `run`, and return its parser; `env`: it takes an environment's name."""
        parser = self._parsers.add_parser(
            name, prog=f"nox -s {name} --", help=text, description=text, allow_abbrev=False
        )
        parser.set_defaults(run=run)
        if env:
            parser.add_argument(
                "env", nargs="?", default="local", metavar="ENV", help="an environment of pyproject.toml"
            )
        return parser
