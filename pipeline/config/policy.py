"""What an image must fulfil: an environment's `verify = { … }`; which findings may pass: `[[tool.slipway.allow]]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.errors import UsageError

__all__ = ["GITHUB_ISSUER", "Allowance", "Policy", "allowances", "own_policy", "parse_policy", "policy_problems"]

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
KEYS = ("key", "identity", "issuer", "source")
ALLOWANCE_KEYS = ("id", "package", "reason", "until")
EXAMPLE = '`verify = { key = "cosign.pub" }`'


@dataclass(frozen=True)
class Policy:
    """Who must have signed an image, and what it must have been built from.

    Either the holder of a private key must have signed (`key` is the public one, a file or the address of a KMS), or an
    `identity` that `issuer` vouched for. `source` is what the provenance must give as the source of the build: the
    address of a repository, with or without `@refs/heads/…` at the end.
    """

    key: str | None = None
    identity: str | None = None
    issuer: str = GITHUB_ISSUER
    source: str | None = None

    @property
    def signer(self) -> str:
        """Who must have signed, in words."""
        return f"the key of {self.key}" if self.key else f"{self.identity} (of {self.issuer})"


def policy_problems(value: object) -> list[str]:
    """Return what is wrong with the `value` of `verify`, one line each; empty for a good one."""
    if not isinstance(value, dict) or not value:
        return [f"must be a table; for example {EXAMPLE}"]
    problems = [f"unknown key `{key}`: there is {', '.join(KEYS)}" for key in value if key not in KEYS]
    problems += [f"{key}: must be text" for key in KEYS if key in value and not _text(value[key])]
    if ("key" in value) == ("identity" in value):
        problems.append(f"one of `key` and `identity` says who must have signed; for example {EXAMPLE}")
    if "issuer" in value and "identity" not in value:
        problems.append("`issuer` goes with `identity`: take it out")
    source = value.get("source")
    if _text(source) and not str(source).startswith("https://"):
        problems.append('source: must be an https address; for example `source = "https://github.com/owner/name"`')
    return problems


def parse_policy(value: Mapping[str, str], root: Path) -> Policy:
    """Return the policy of a `value` without problems; its key is a file below `root` unless it is a KMS's."""
    key = value.get("key")
    return Policy(**{**value, **({"key": str(root / key)} if key and "://" not in key else {})})


def own_policy(environment: Mapping[str, str]) -> Policy:
    """Return the policy that a signature made here fulfils; `environment` has the variables of the process.

    That is the public half of COSIGN_KEY, or, in GitHub Actions and without a key, the identity of this workflow. Raise
    `UsageError` where there is neither, or the key is itself in the environment (`env://…`).
    """
    key, workflow = environment.get("COSIGN_KEY"), environment.get("GITHUB_WORKFLOW_REF")
    if key and not key.startswith("env://"):
        # A KMS has both halves under one address.
        return Policy(key=key if "://" in key else str(Path(key).with_suffix(".pub")))
    if workflow and not key:
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        return Policy(identity=f"{server}/{workflow}", source=f"{server}/{environment.get('GITHUB_REPOSITORY')}")
    raise UsageError(
        "verify-image: who must have signed? `--env ENV` takes that environment's `verify`; without it, COSIGN_KEY"
        " names the file of your key pair"
    )


@dataclass(frozen=True)
class Allowance:
    """A finding that ships all the same, for a `reason`, `until` a day (the last on which it may)."""

    id: str
    package: str
    reason: str
    until: date


def allowances(value: object) -> tuple[tuple[Allowance, ...], list[str]]:
    """Return the entries of `[[tool.slipway.allow]]`, and a line for each thing that is wrong with one."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return (), ["pyproject.toml: [[tool.slipway.allow]] must be a list of tables"]
    good, problems = [], []
    for number, entry in enumerate(value, 1):
        where = f"pyproject.toml [[tool.slipway.allow]] {number} ({entry.get('id', 'no id')})"
        wrong = [
            f"{where}: unknown key `{key}`: there is {', '.join(ALLOWANCE_KEYS)}"
            for key in entry
            if key not in ALLOWANCE_KEYS
        ]
        wrong += [
            f"{where}: {key}: must be {'a day, `until = 2027-01-31`' if kind is date else 'text'}"
            for key, kind in (("id", str), ("package", str), ("reason", str), ("until", date))
            if type(entry.get(key)) is not kind or (kind is str and not entry[key].strip())
        ]
        problems += wrong
        good += [] if wrong else [Allowance(**entry)]
    return tuple(good), problems


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
