"""The service's secrets: what they are called, and the files that containers read them from."""

from __future__ import annotations

import json
import re
import secrets as randomness
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.config.managed import FILES
from pipeline.config.redis_users import MONITOR, SERVICE, digest, users
from pipeline.config.settings import service_secrets
from pipeline.system.files import write_whole
from pipeline.system.place import state_folder

__all__ = [
    "ADDRESS_SECRET",
    "ALERTMANAGER",
    "BY_HAND",
    "POSTGRES_MONITOR",
    "PROVED",
    "REDIS_ACL",
    "REDIS_ADMIN",
    "REDIS_MONITOR",
    "SECRET_FILES",
    "SUPERUSER_PASSWORD",
    "allow_by_hand",
    "closed_problem",
    "delivered_secrets",
    "forget_redis_passwords",
    "redis_acl",
    "redis_hashes",
    "redis_monitor_password",
    "secret_files",
    "write_secret_files",
]

BY_HAND = "no-deploy-runs-here"  # a link, by which a plain `docker compose up` finds the files or says why not
# Where docker-compose.yml looks for them: a deploy names the folder.
SECRET_FILES = f"${{SLIPWAY_SECRETS:-${{SLIPWAY_STATE:-.slipway}}/compose/{BY_HAND}}}"
PROVED = "surroundings.json"  # in the folder of an environment of compose: a deploy runs, or ran, there
SUPERUSER_PASSWORD = "POSTGRES_SUPERUSER_PASSWORD"  # noqa: S105 - a name
REDIS_ACL, REDIS_ADMIN = "REDIS_ACL", "REDIS_ADMIN_PASSWORD"
# Of what watches the service: the passwords as which the exporters log in, the second with the address to which it
# belongs; Grafana's administrator; who is told of alerts.
POSTGRES_MONITOR, REDIS_MONITOR = "POSTGRES_MONITOR_PASSWORD", "REDIS_MONITOR"
GRAFANA, ALERTMANAGER = "GRAFANA_PASSWORD", "ALERTMANAGER"
REDIS_ADDRESS = f"redis://{MONITOR}@redis:6379"
ADDRESS_SECRET = "BACKUP_ADDRESS_SECRET"  # noqa: S105 - a name
OWNER_ALONE = 0o077
SERVICE_LINE = re.compile(rf"^user {SERVICE} .*", re.MULTILINE)  # in Redis' file of users
HASHES = re.compile(r"#[0-9a-f]{64}\b")


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
    """Write to `folder` each secret of the service, Redis' file of users and, once, what administers and measures.

    `superuser` is PostgreSQL's where it is known; otherwise it is made. No container gets that of Redis.

    Redis' file has the passwords of before, too, until `forget_redis_passwords`. The URLs of stores have a file, too,
    mostly an empty one. The folder has mode 0700, the files 0444. A file is replaced, never changed: what runs keeps
    the one it has open.
    """
    # A container's user is not ours, so all may read the files; it is the folder that keeps others out, and a bind
    # mount does not go through it.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    texts = {name: secrets.get(name, "") for name in delivered_secrets()}
    texts |= {name: secrets.get(name, "") for name in (*FILES, ADDRESS_SECRET)}
    texts |= {name: _kept(folder / name) for name in (REDIS_ADMIN, POSTGRES_MONITOR, GRAFANA)}
    texts[REDIS_MONITOR] = _kept(folder / REDIS_MONITOR, lambda password: json.dumps({REDIS_ADDRESS: password}))
    hashes = [digest(texts["REDIS_PASSWORD"]), *(redis_hashes(folder) if (folder / REDIS_ACL).exists() else [])]
    texts[REDIS_ACL] = users(hashes, texts[REDIS_ADMIN], _monitor_password(texts[REDIS_MONITOR]))
    if superuser or not (folder / SUPERUSER_PASSWORD).exists():
        texts[SUPERUSER_PASSWORD] = superuser or randomness.token_urlsafe(36)
    for name, text in texts.items():
        _write(folder / name, text)


def _kept(path: Path, form: Callable[[str], str] = str) -> str:
    """Return what the file at `path` has; where there is none, a fresh password in the `form` that it has there."""
    return path.read_text(encoding="utf-8") if path.exists() else form(randomness.token_urlsafe(36))


def redis_monitor_password(folder: Path) -> str:
    """Return the password in `folder` of whoever measures Redis."""
    return _monitor_password((folder / REDIS_MONITOR).read_text(encoding="utf-8"))


def _monitor_password(text: str) -> str:
    return str(json.loads(text)[REDIS_ADDRESS])


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)
    path.chmod(0o444)


def redis_hashes(folder: Path) -> list[str]:
    """Return the service's passwords in Redis' file of users, as hashes, that of now first."""
    line = SERVICE_LINE.search((folder / REDIS_ACL).read_text(encoding="utf-8"))
    return HASHES.findall(line[0]) if line else []


def forget_redis_passwords(folder: Path) -> None:
    """Let Redis' file of users in `folder` have the service's password of now alone."""
    admin = (folder / REDIS_ADMIN).read_text(encoding="utf-8")
    _write(folder / REDIS_ACL, users(redis_hashes(folder)[:1], admin, redis_monitor_password(folder)))


def redis_acl(password: str, admin: str) -> str:
    """Return Redis' file of users: the service with its `password`, and who may do all with that of `admin`."""
    return users([digest(password)], admin)


def closed_problem(folder: Path) -> str | None:
    """Return what is wrong with the mode of `folder` in one line; None if it is closed, or does not exist yet."""
    if not folder.exists() or not folder.stat().st_mode & OWNER_ALONE:
        return None
    return f"{folder}: others can read the secrets in it (mode {folder.stat().st_mode & 0o777:o}): `chmod 700 {folder}`"
