"""What an image must fulfil: an environment's `verify = { … }`; which findings may pass: `[[tool.slipway.allow]]`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config.tables import Table, Text, read_table
from pipeline.errors import UsageError

__all__ = ["GITHUB_ISSUER", "Allowance", "Policy", "allowances", "own_policy"]

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"


class Policy(Table):
    """Who must have signed an image, and what it must have been built from.

    Either the holder of a private key must have signed (`key` is the public one, a file or the address of a KMS), or an
    `identity` that `issuer` vouched for. `source` is what the provenance must give as the source of the build: the
    address of a repository, with or without `@refs/heads/…` at the end.
    """

    key: Text | None = Field(default=None, examples=['"cosign.pub"'])
    identity: Text | None = Field(
        default=None, examples=['"https://github.com/owner/name/.github/workflows/cd.yml@refs/heads/main"']
    )
    issuer: Text = GITHUB_ISSUER
    source: Text | None = Field(default=None, examples=['"https://github.com/owner/name"'])

    @field_validator("key")
    @classmethod
    def _is_below_the_root(cls, key: str | None, info: ValidationInfo) -> str | None:
        return str(info.context / key) if key and info.context and "://" not in key else key

    @model_validator(mode="after")
    def _demands_what_can_be(self) -> Policy:
        if (self.key is None) == (self.identity is None):
            raise ValueError("must have either `key` or `identity`, which says who must have signed")
        if self.key and "issuer" in self.model_fields_set:
            raise ValueError("`issuer` goes with `identity`: take it out")
        if self.source and not self.source.startswith("https://"):
            raise ValueError('source: must be an https address; for example `source = "https://github.com/owner/name"`')
        return self

    @property
    def signer(self) -> str:
        """Who must have signed, in words."""
        return f"the key of {self.key}" if self.key else f"{self.identity} (of {self.issuer})"


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
        source = f"{server}/{environment.get('GITHUB_REPOSITORY')}"
        return Policy.model_construct(identity=f"{server}/{workflow}", source=source)  # whatever the server's scheme
    raise UsageError(
        "verify-image: who must have signed? `--env ENV` takes that environment's `verify`; without it, COSIGN_KEY"
        " names the file of your key pair"
    )


class Allowance(Table):
    """A finding that ships all the same, for a `reason`, `until` a day (the last on which it may)."""

    id: Text = Field(examples=['"CVE-2026-0001"'])
    package: Text = Field(examples=['"idna"'])
    reason: Text = Field(examples=['"it encodes only our own names"'])
    until: date = Field(examples=["2027-01-31"])


def allowances(tables: object, problems: list[str]) -> tuple[Allowance, ...]:
    """Return the `tables` of `[[tool.slipway.allow]]`; add a line to `problems` for each thing that is wrong."""
    where = "pyproject.toml [[tool.slipway.allow]]"
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(f"{where}: must be a list of tables: write `[[tool.slipway.allow]]` above each")
        return ()
    read = (
        read_table(Allowance, table, f"{where} {number} ({table.get('id', 'no id')})", problems)
        for number, table in enumerate(tables, start=1)
    )
    return tuple(filter(None, read))
