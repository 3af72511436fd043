"""The logins that `docker login` keeps for registries: in its own file, or with the helper that the file names."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError, UsageError
from pipeline.registry.reference import HUB

__all__ = ["Credentials", "config_path", "find_credentials"]

# The key of Docker Hub; every other registry's is its host.
HUB_KEY = "https://index.docker.io/v1/"
IDENTITY_USER = "<token>"  # a helper's user name where the secret is a refresh token
HELPER_SECONDS = 30


@dataclass(frozen=True)
class Credentials:
    """A user's name and secret; `refresh`: the secret is an OAuth 2 refresh token and not a password."""

    username: str
    secret: str = field(repr=False)
    refresh: bool = False

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


def config_path() -> Path:
    """Return the file that docker keeps logins in: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def find_credentials(host: str) -> Credentials | None:
    """Return the login of the registry `host` (`docker.io` is Docker Hub), None where there is none.

    A helper goes before the file, as docker has it. Raise `UsageError` for a file that cannot be read or is not valid
    JSON, and `SlipwayError` for a helper that is not installed or does not answer.
    """
    path = config_path()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        what = "not valid JSON" if isinstance(error, ValueError) else error.strerror
        raise UsageError(f"{path}: {what}: fix it, or `docker login {host}` again") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path}: not a JSON object: fix it, or `docker login {host}` again")
    key = HUB_KEY if host == HUB else host
    helper = _section(config, "credHelpers").get(key) or config.get("credsStore")
    return (_ask_helper(str(helper), key) if helper else None) or _written(_section(config, "auths"), key, path)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _written(auths: Mapping[str, Any], key: str, path: Path) -> Credentials | None:
    """Return the login that the file itself holds, None where it has none."""
    entry = next((value for name, value in auths.items() if _bare(name) == _bare(key)), None)
    if not isinstance(entry, dict):
        return None
    if entry.get("identitytoken"):
        return Credentials(IDENTITY_USER, str(entry["identitytoken"]), refresh=True)
    if not entry.get("auth"):
        return None  # an entry that a helper leaves behind
    try:
        username, colon, secret = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, ValueError, TypeError):
        colon = ""
    if not colon:
        raise UsageError(f"{path}: the login of {_bare(key)} cannot be read: `docker login {_bare(key)}` again")
    return Credentials(username, secret)


def _bare(key: str) -> str:
    """Return the host of a key."""
    # Older dockers wrote addresses where newer ones write hosts.
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _ask_helper(helper: str, key: str) -> Credentials | None:
    """Return the login that `docker-credential-HELPER` has for `key`, None where it has none."""
    # Its output in a failure is not shown: it may contain anything.
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, check=False, timeout=HELPER_SECONDS
        )
    except FileNotFoundError:
        raise SlipwayError(f"{program}: not on the PATH, and {config_path()} wants it: install it") from None
    except subprocess.TimeoutExpired:
        raise SlipwayError(
            f"{program}: no answer within {HELPER_SECONDS} s: is its key store locked? `docker login {_bare(key)}`"
        ) from None
    if done.returncode:  # 1 with "credentials not found": the protocol has no other way to say so
        return None
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise SlipwayError(f"{program}: its answer for {_bare(key)} cannot be read: update it") from None
    return Credentials(username, secret, refresh=username == IDENTITY_USER)
