"""The settings of backups, beside those of the service: where they are kept, for how long, and who can read them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from backend.backups.keep import KeepRule
from backend.backups.schedule import Times
from backend.setting_fields import SECRETS_DIR, Fields, SettingsError, collect, sentence, setting

__all__ = ["Address", "BackupSettings", "load_backup_settings"]

SECTION = "backups"
RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
IDENTITY = re.compile(r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
FOLDER = re.compile(r"[\w.=/@+-]*", re.ASCII)
HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+=*")
S3 = "s3://bucket/folder?endpoint=https://host&region=name"
SFTP = "sftp://user@host:port/folder?host_key=ssh-ed25519%20AAAA…"
HOW = f"must look like {S3} (the two parameters may be left out), or like {SFTP}"


class Address:
    """Where copies of the backups go: `kind` is s3 or sftp, `folder` a bucket and its folder, or a folder."""

    def __init__(self, text: str) -> None:
        try:
            parts = urlsplit(text)
            self.host, self.port = parts.hostname or "", parts.port
        except ValueError:  # its message quotes the address
            raise ValueError(HOW) from None
        self.kind, self.user = parts.scheme, unquote(parts.username or "")
        given = dict(parse_qsl(parts.query))
        self.endpoint, self.region = given.pop("endpoint", ""), given.pop("region", "")
        self.host_key = given.pop("host_key", "")
        path = unquote(parts.path)
        if parts.password or parts.fragment or given or not FOLDER.fullmatch(path) or ".." in path:
            raise ValueError(f"{HOW}; what is secret belongs to BACKUP_ADDRESS_SECRET")
        if self.kind == "s3":
            fits = bool(BUCKET.fullmatch(self.host)) and not (self.user or self.port or self.host_key)
            self.folder = f"{self.host}/{path.strip('/')}".rstrip("/")
        else:
            fits = self.kind == "sftp" and bool(self.user and self.host and path.strip("/"))
            fits = fits and not (self.endpoint or self.region)
            self.folder = path.rstrip("/")
        if not fits:
            raise ValueError(HOW)
        if self.kind == "sftp" and not HOST_KEY.fullmatch(self.host_key):
            raise ValueError(
                "lacks the server's host key: add ?host_key=TYPE%20KEY, as `ssh-keyscan -t ed25519 HOST` prints it"
                " after the host (compare it with what the server's administrator says)"
            )

    def __str__(self) -> str:
        """Return the address without its parameters."""
        return f"{self.kind}://{f'{self.user}@{self.host}' if self.kind == 'sftp' else ''}{self.folder}"


def _address(value: object) -> object:
    return Address(value) if isinstance(value, str) else value


def _keep(value: object) -> object:
    return KeepRule.read(value) if isinstance(value, str) else value


def _times(value: object) -> object:
    return Times.read(value) if isinstance(value, str) else value


def _recipients(value: object) -> object:
    if not isinstance(value, str):
        return value
    keys = tuple(part for part in re.split(r"[\s,]+", value) if part)
    if not all(RECIPIENT.fullmatch(key) for key in keys):
        raise ValueError("must be public keys of age, separated by commas: each is age1 and 58 more characters")
    return keys


def _identity(value: object) -> object:
    # As `age-keygen` writes it: a file with comments around the key.
    if not isinstance(value, str):
        return value
    keys = [line.strip() for line in value.splitlines() if line.strip() and not line.startswith("#")]
    if len(keys) != 1 or not IDENTITY.fullmatch(keys[0]):
        raise ValueError("must be one secret key of age, AGE-SECRET-KEY-1 and 58 more characters")
    return keys[0]


class BackupSettings(Fields):
    """The settings of one run of `python -m backend.backups`. A field's variable is its name in upper case."""

    model_config = SettingsConfigDict(arbitrary_types_allowed=True)

    backup_folder: Path = setting(SECTION, "Folder of the backups. A target sets it.", Path("/backups"))
    backup_keep: Annotated[KeepRule, BeforeValidator(_keep)] = setting(
        SECTION,
        "Which backups stay: the newest of each of so many days (d) and weeks (w). The environment's `backups` in"
        " pyproject.toml sets it.",
        KeepRule(days=7, weeks=4),
    )
    backup_schedule: Annotated[Times, BeforeValidator(_times)] = setting(
        SECTION,
        "When the service `backup` of docker-compose.yml makes one: times of the day in UTC, such as `03:00 15:00`."
        " Elsewhere whoever starts it decides.",
        Times((180,)),
    )
    backup_recipients: Annotated[tuple[str, ...], BeforeValidator(_recipients)] = setting(
        SECTION, "Public keys of age, separated by commas: each backup is encrypted for them. Unset: not encrypted.", ()
    )
    backup_identity: Annotated[SecretStr, BeforeValidator(_identity)] | None = setting(
        SECTION, "Secret key of age that belongs to one of those; only where something is restored.", None
    )
    backup_address: Annotated[Address, BeforeValidator(_address)] | None = setting(
        SECTION, f"Where copies go, off the host: {S3}, or {SFTP}.", None
    )
    backup_address_secret: SecretStr | None = setting(
        SECTION, "For S3 KEY_ID:SECRET; for SFTP the password, or the private key.", None
    )
    postgres_superuser: str | None = setting(
        SECTION, "Who may create and rename databases, for a restore. A target that has one sets it.", None
    )
    postgres_superuser_password: SecretStr | None = setting(SECTION, "Password of that role.", None)


def load_backup_settings(
    environ: Mapping[str, str] | None = None, *, secrets_dir: Path = SECRETS_DIR
) -> BackupSettings:
    """Return the settings in `environ` (by default the process's); an empty value counts as unset.

    Raise `SettingsError` with every problem at once.
    """
    raw, problems = collect(BackupSettings, os.environ if environ is None else environ, [SECTION], secrets_dir)
    try:
        settings = BackupSettings(**raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            problems.setdefault(str(detail["loc"][0]), sentence(detail["msg"]))
        settings = BackupSettings(**{name: value for name, value in raw.items() if name not in problems})
    for name, problem in _together(settings, raw):
        problems.setdefault(name, problem)
    if problems:
        raise SettingsError([f"{name.upper()}: {problem}" for name, problem in problems.items()])
    return settings


def _together(settings: BackupSettings, raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what does not fit together."""
    address, secret = settings.backup_address, settings.backup_address_secret
    if "backup_address" in raw and secret is None:
        yield "backup_address_secret", "is missing, where BACKUP_ADDRESS is set: for S3 KEY_ID:SECRET, for SFTP the key"
    if address and secret and address.kind == "s3" and not re.fullmatch(r"[^:\s]+:\S+", secret.get_secret_value()):
        yield "backup_address_secret", "must be KEY_ID:SECRET for S3"
