"""Problems that prevent a deploy on this host, or will do so soon: one line each, with its fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.config.sources import place_of
from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError
from pipeline.targets.common.container import refused_login
from pipeline.targets.common.rights import PSQL
from pipeline.targets.compose.stack import FILES, PROJECT_LABEL, Stack, containers_of
from pipeline.targets.compose.variables import Variables

__all__ = [
    "ignored_files",
    "image_problems",
    "login_problems",
    "psql_in",
    "superuser_psql",
    "taken_problems",
    "volume_findings",
]

OVERRIDES = (
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
    "compose.override.yml",
    "compose.override.yaml",
)
FULL_PERCENT = 90
SECRET_NAME = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY)$")


def taken_problems(stack: Stack, env: str) -> list[str]:
    """Report a project name that a Compose project of another folder already uses."""
    folders = sorted(
        {container.folder for container in stack.containers() if _is_another(container.folder, stack.root)}
    )
    if not folders:
        return _renamed_problems(stack, env)
    what = f"a compose project `{stack.name}` runs from {folders[0]} already"
    end = f"`docker compose --project-name {stack.name} down` stops it wherever it is from, and its data stays"
    return [f"{what}: run `nox -s down -- {env}` there, or set another PROJECT_NAME in .env; {end}"]


def _renamed_problems(stack: Stack, env: str) -> list[str]:
    """Report what runs from this folder under another project's name, where nothing runs under that of `.env`."""
    if stack.containers():
        return []
    names = sorted({one.labels[PROJECT_LABEL] for one in containers_of(stack.docker, stack.root) if one.running})
    return [
        f"PROJECT_NAME: this folder's service runs as compose project `{name}`, and `{stack.name}` would be a second,"
        f" empty one: `nox -s init -- --recover` takes the name and the secrets back; or stop that first, with"
        f" PROJECT_NAME={name} in .env and `nox -s down -- {env}`"
        for name in names
    ]


def _is_another(folder: str, root: Path) -> bool:
    """Return whether `folder`, from which a container was started, is that of another project than the one at `root`.

    It is the same by whatever link or mount it was reached. One that was moved or removed owns nothing.
    """
    try:
        # Docker makes folders at an old place that a container mounts something from, but no such file.
        return not Path(folder).samefile(root) and (Path(folder) / FILES[0]).exists()
    except PermissionError:  # there is something, which we may not look into
        return True
    except OSError:
        return False


def login_problems(variables: Variables) -> list[str]:
    """Report a volume that was created with another POSTGRES_PASSWORD or POSTGRES_DB, in one line with its fix."""
    stack = variables.stack
    running = [container for container in stack.containers("postgres") if container.ready]
    if not running:
        return []
    database, logins = variables.database, variables.logins
    refusal = refused_login(stack.docker, running[0].ident, logins.user, database, logins.password)
    if refusal is None or (logins.apart and not _has_password(stack, logins.user)):
        return []  # the deploy makes it, with that password
    mounted = running[0].mounts.get("/var/lib/postgresql", f"{stack.name}_postgres")
    volume = f"the data in volume {mounted}"
    empty = f"or start empty with `nox -s down -- {variables.env.name} --volumes`"
    if refusal.startswith("database"):
        return [f"POSTGRES_DB: {volume} has another one ({refusal}): put its name back in .env, {empty}"]
    rotate = "rotate it (docs/4-runbook.md, New secrets)"
    what = f"POSTGRES_PASSWORD: {volume} was made with another one ({refusal})"
    place = place_of("POSTGRES_PASSWORD", variables.env.secrets)
    back = f"put that back in {place} (`nox -s init -- --recover`, while what has it runs)"
    return [f"{what}: {back}, {rotate}, {empty}"]


def _has_password(stack: Stack, role: str) -> bool:
    """Return whether there is such a `role`, with a password; True where that cannot be asked."""
    quoted = role.replace("'", "''")
    asked = f"SELECT count(*) FROM pg_authid WHERE rolname = '{quoted}' AND rolpassword IS NOT NULL"  # noqa: S608
    try:
        return superuser_psql(stack, "postgres", f"{asked};", "--tuples-only", "--no-align").strip() != "0"
    except SlipwayError:
        return True


def superuser_psql(stack: Stack, database: str, sql: str, *options: str) -> str:
    """Run `sql` in PostgreSQL's own container as its superuser, whose password is there; return its output."""
    running = [each for each in stack.containers("postgres") if each.running]
    if not running:
        raise SlipwayError("PostgreSQL does not run")
    return psql_in(stack.docker, running[0].ident, database, sql, *options)


def psql_in(docker: Docker, ident: str, database: str, sql: str, *options: str) -> str:
    """Run `sql` in the container `ident` of a PostgreSQL as its superuser; return its output."""
    place = ("--host=127.0.0.1", "--username=postgres", f"--dbname={database}")
    script = f'PGPASSWORD="$(cat /run/secrets/{SUPERUSER_PASSWORD})" exec "$@"'
    command = ("sh", "-c", script, "sh", *PSQL, *place, *options)
    return docker.ask("exec", "--interactive", ident, *command, given=sql)


def image_problems(image: dict[str, Any] | None) -> list[str]:
    """Report an image that runs as root or contains a secret."""
    config = (image or {}).get("Config", {})
    user = str(config.get("User", "")).partition(":")[0]
    if not user.isdigit() or user == "0":
        return [f"docker/Dockerfile.backend: the image runs as `{user or 'root'}`: set USER to a number other than 0"]
    names = [pair.partition("=")[0] for pair in config.get("Env", []) if SECRET_NAME.search(pair.partition("=")[0])]
    return [f"docker/Dockerfile.backend: the image contains {name}: pass secrets as files" for name in names]


def volume_findings(container: str, df: str) -> list[str]:
    """Report a nearly full disk of the volume of `container`. `df` is the output of `df -Pk` of its data folder."""
    _, blocks, _, free, used, _ = df.strip().splitlines()[-1].split(maxsplit=5)
    if int(used.rstrip("%")) < FULL_PERCENT:
        return []
    sizes = f"{int(free) // 1024} of {int(blocks) // 1024} MB are free"
    return [f"{container}: the disk of its volume is {used} full ({sizes}): make room (`docker system df`)"]


def ignored_files(root: Path) -> list[str]:
    """Return a line for each file that `docker compose` would read unasked, and that a deploy does not."""
    return [f"{name} is ignored: a deploy ships what {FILES[0]} says" for name in OVERRIDES if (root / name).exists()]
