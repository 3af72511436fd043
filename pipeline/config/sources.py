"""Where the secrets of an environment come from: `.env`, or a command that prints them, `secrets = { command = […] }`.

One rule: where there is a command, each secret comes from it alone. What `.env`, a file that it names, or the
environment of the process has of them, counts nothing there; plain settings come from those as ever.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from dotenv.parser import parse_stream
from pydantic import Field

from pipeline.config.settings import env_or_shell, read_env, read_values, secret_names, set_in_env, with_lines
from pipeline.config.tables import Table, Text
from pipeline.errors import SlipwayError, UsageError
from pipeline.system.run import CommandFailed, run

__all__ = ["OWNER", "ROLE", "Source", "environment_values", "place_of", "secrets_place", "unwritable", "write_values"]

# No secrets, but each goes with its password: who serves, and who owns the tables and migrates them.
ROLE, OWNER = "POSTGRES_USER", "POSTGRES_OWNER"
LONGEST = 300  # characters of what a command said
SHORTEST = 6  # characters of what may be a secret
NAME = re.compile(r"[A-Z][A-Z0-9_]*")

Command = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


class Source(Table):
    """The `secrets` of an environment: the `command` that prints them, and the one that takes them back to `write`.

    A command is run in the project's folder, without a shell, and has `timeout` seconds. `command` prints lines
    `NAME=VALUE`, or one JSON object; `write` gets the same, with what changed, on its standard input.
    """

    command: Command = Field(examples=['["sops", "decrypt", "--output-type", "dotenv", "secrets/staging.env"]'])
    write: Command | None = Field(default=None, examples=['["vault", "kv", "put", "secret/slipway", "-"]'])
    timeout: Annotated[float, Field(ge=1, le=3600)] = 30

    def read(self, root: Path, environment: str) -> dict[str, str]:
        """Return what `command` prints for `environment`, without what is empty.

        Raise `UsageError` where that fails, prints something else, or names what no secret is called.
        """
        values = self._parsed(self._said(self.command, root, environment), environment)
        known = {*secret_names(), ROLE, OWNER}
        wrong = sorted(values.keys() - known)
        if wrong:
            what = f"is no secret of the service ({', '.join(sorted(known))}): take it out of what"
            raise UsageError(*(f"{_where(environment)}: {name} {what} {_named(self.command)} reads" for name in wrong))
        return {name: value for name, value in values.items() if value}

    def put(self, root: Path, environment: str, changes: Mapping[str, str]) -> None:
        """Give `write` all values, with the `changes`; an empty one is unset.

        Raise `UsageError` where there is no `write`, it fails, or `command` does not print the changes afterwards.
        """
        if self.write is None:
            raise UsageError(f"{_where(environment)}: there is no `write`: add the command that takes the values back")
        before = self._said(self.command, root, environment)
        given = {**self._parsed(before, environment), **changes}
        text = json.dumps(given, indent=2) + "\n" if _is_json(before) else with_lines(before, changes)
        self._said(self.write, root, environment, given=text)
        after = self.read(root, environment)
        lost = [name for name, value in changes.items() if after.get(name, "") != value]
        if lost:
            said = f"{_named(self.write)} ended well, but {_named(self.command)} prints another value afterwards"
            raise UsageError(f"{_where(environment)}: {', '.join(lost)}: {said}: do both use the same place?")

    def _said(self, command: Sequence[str], root: Path, environment: str, *, given: str | None = None) -> str:
        try:
            return run(command, level=logging.DEBUG, cwd=root, timeout=self.timeout, given=given, secret=True)
        except CommandFailed as error:
            why = f"failed ({error.code}): {_in_one_line(error, given)}"
        except FileNotFoundError:
            why = "is no program here: install it, or fix its name"
        except OSError as error:
            why = f"cannot be run ({error.strerror}): fix its name or mode"
        except SlipwayError:
            why = f"did not end within {self.timeout:g} s (`timeout`): does it wait for an answer, or for its server?"
        raise UsageError(f"{_where(environment)}: {_named(command)} {why}")

    def _parsed(self, said: str, environment: str) -> dict[str, str]:
        wrong = f"{_where(environment)}: what {_named(self.command)} prints"
        if _is_json(said):
            try:
                document = json.loads(said)
            except ValueError:
                raise UsageError(f"{wrong} begins as JSON and is not: print an object, or lines NAME=VALUE") from None
            texts = {name: value for name, value in document.items() if isinstance(value, str)}
            if rest := sorted(document.keys() - texts.keys()):
                raise UsageError(f"{wrong}: {', '.join(rest)}: must be text, in one object of names and values")
            return texts
        bindings = list(parse_stream(io.StringIO(said)))
        bad = [str(one.original.line) for one in bindings if one.error or (one.key and one.value is None)]
        if bad:
            raise UsageError(f"{wrong}: line {', '.join(bad)}: must be NAME=VALUE")
        values = {one.key: one.value for one in bindings if one.key and one.value is not None}
        if not values:
            raise UsageError(f"{wrong}: there is no NAME=VALUE in it: does it print the secrets?")
        return values


def environment_values(root: Path, environment: str, source: Source | None) -> dict[str, str]:
    """Return the settings and secrets of `environment`, as `read_values` does; with a `source`, its secrets alone."""
    values = read_values(root)
    if source is None:
        return values
    names = secret_names()
    left = {name: value for name, value in values.items() if name.removesuffix("_FILE") not in names}
    return {**left, **source.read(root, environment)}


def place_of(name: str, source: Source | None) -> str:
    """Return where the secret `name` comes from, in words."""
    return secrets_place(source) or env_or_shell(name)


def unwritable(root: Path, name: str, source: Source | None) -> str | None:
    """Return where a person has to change `name`, in words; None if `write_values` can."""
    if source:
        return None if source.write else f"what {_named(source.command)} reads"
    written = read_env(root)[0]
    if env_or_shell(name) != ".env":
        return f"{name} or {name}_FILE of the environment of this process, which wins over .env"
    file = written.get(f"{name}_FILE")
    return f"the file {file}, which .env names" if file else None


def write_values(root: Path, environment: str, source: Source | None, changes: Mapping[str, str]) -> None:
    """Make `changes` where the secrets of `environment` come from. Raise `UsageError` where they are not there then."""
    if source:
        source.put(root, environment, changes)
    else:
        set_in_env(root, changes)


def secrets_place(source: Source | None) -> str:
    """Return what gives the secrets of an environment, in words; empty for `.env`."""
    return f"secrets ({_named(source.command)})" if source else ""


def _where(environment: str) -> str:
    return f"pyproject.toml [tool.slipway.environments.{environment}]: secrets"


def _named(command: Sequence[str]) -> str:
    return f"`{Path(command[0]).name}`"


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _in_one_line(error: CommandFailed, given: str | None) -> str:
    """Return what a command said, without what may be a value: what it printed, or was `given`."""
    said = " ".join(error.output.split()) or "it said nothing"
    for word in sorted(set(re.split(r"[\s=\"':,]+", f"{error.said} {given or ''}")), key=len, reverse=True):
        if len(word) >= SHORTEST and not NAME.fullmatch(word):
            said = said.replace(word, "…")
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
