"""The service's secrets: what they are called, and the files that containers read them from."""

from __future__ import annotations

import hashlib
import re
import secrets as randomness
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.config.managed import FILES
from pipeline.config.settings import service_secrets
from pipeline.system.files import write_whole
from pipeline.system.place import state_folder

__all__ = [
    "BY_HAND",
    "HASHES",
    "PROVED",
    "REDIS_ACL",
    "SECRET_FILES",
    "SUPERUSER_PASSWORD",
    "allow_by_hand",
    "closed_problem",
    "delivered_secrets",
    "forget_redis_passwords",
    "owner_of",
    "redis_acl",
    "secret_files",
    "write_secret_files",
]

BY_HAND = "no-deploy-runs-here"  # a link, by which a plain `docker compose up` finds the files or says why not
# Where docker-compose.yml looks for them: a deploy names the folder.
SECRET_FILES = f"${{SLIPWAY_SECRETS:-${{SLIPWAY_STATE:-.slipway}}/compose/{BY_HAND}}}"
PROVED = "surroundings.json"  # in the folder of an environment of compose: a deploy runs, or ran, there
SUPERUSER_PASSWORD = "POSTGRES_SUPERUSER_PASSWORD"  # noqa: S105 - a name
REDIS_ACL = "REDIS_ACL"
OWNER_ALONE = 0o077
HASHES = re.compile(r"#([0-9a-f]{64})\b")  # of passwords, in Redis' file of users
OTHER = "-other"  # as docker/postgres/init-scripts names the second login role


def delivered_secrets() -> list[str]:
    """Return the names of the secrets that a replica gets."""
    return [secret.name for secret in service_secrets()]


def secret_files(root: Path) -> Path:
    """Return the folder of the files that docker-compose.yml of the project at `root` names."""
    return state_folder(root) / "compose" / "secrets"


def allow_by_hand(folder: Path, *, allowed: bool) -> None:
    """Let a plain `docker compose up`, which would replace what a deploy runs, find the files in `folder`, or not."""
    link = folder.with_name(BY_HAND)
    if not allowed:
        link.unlink(missing_ok=True)
    elif not link.is_symlink():
        link.symlink_to(folder.name)


def write_secret_files(folder: Path, secrets: Mapping[str, str], *, superuser: str | None = None) -> None:
    """Write to `folder` each secret of the service, Redis' file of users and, once, PostgreSQL's superuser's password.

    `superuser` is that password where it is known; otherwise it is made.

    Redis' file has the passwords of before, too, until `forget_redis_passwords`. The URLs of stores have a file, too,
    mostly an empty one. The folder has mode 0700, the files 0444. A file is replaced, never changed: what runs keeps
    the one it has open.
    """
    # A container's user is not ours, so all may read the files; it is the folder that keeps others out, and a bind
    # mount does not go through it.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    texts = {name: secrets.get(name, "") for name in delivered_secrets()}
    texts |= {name: secrets.get(name, "") for name in FILES}
    known = folder / REDIS_ACL
    texts[REDIS_ACL] = redis_acl(texts["REDIS_PASSWORD"], known.read_text("utf-8") if known.exists() else "")
    if superuser or not (folder / SUPERUSER_PASSWORD).exists():
        texts[SUPERUSER_PASSWORD] = superuser or randomness.token_urlsafe(36)
    for name, text in texts.items():
        _write(folder / name, text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)
    path.chmod(0o444)


def forget_redis_passwords(folder: Path) -> list[str]:
    """Let Redis' file of users in `folder` have the password of now alone.

    Return the hashes of the passwords that it had, that of now first.
    """
    path = folder / REDIS_ACL
    hashes = HASHES.findall(path.read_text(encoding="utf-8"))
    _write(path, _acl(hashes[:1]))
    return hashes


def owner_of(role: str) -> str:
    """Return the role that owns the database of the login `role`: `role` itself, or the one it is an alternate of."""
    return role.removesuffix(OTHER)


def redis_acl(password: str, before: str = "") -> str:
    """Return Redis' file of users: the default user alone, with the hash of `password`.

    The passwords of the file of `before` are accepted beside it, until replicas that have one of them are gone.
    """
    hashes = [hashlib.sha256(password.encode()).hexdigest(), *HASHES.findall(before)]
    return _acl(hashes)


def _acl(hashes: Iterable[str]) -> str:
    return f"user default on {' '.join(f'#{each}' for each in dict.fromkeys(hashes))} ~* &* +@all\n"


def closed_problem(folder: Path) -> str | None:
    """Return what is wrong with the mode of `folder` in one line; None if it is closed, or does not exist yet."""
    if not folder.exists() or not folder.stat().st_mode & OWNER_ALONE:
        return None
    return f"{folder}: others can read the secrets in it (mode {folder.stat().st_mode & 0o777:o}): `chmod 700 {folder}`"
