"""The service's settings as the pipeline needs them: read from `.env` and the environment, checked, documented."""

from __future__ import annotations

import io
import math
import os
import re
import secrets as randomness
from collections.abc import Iterable, Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from pipeline.config.variables import (
    BACKUPS,
    COMPOSE_IMAGES,
    MONITORING,
    Variable,
    backup_variables,
    documented,
    schema_of,
    variables,
)
from pipeline.errors import UsageError
from pipeline.system.files import read_secret, write_whole
from pipeline.system.place import env_file

__all__ = [
    "COMPOSE_IMAGES",
    "DECISIVE",
    "DEFAULT_EDGE_PORT",
    "MONITORING",
    "OWNER_PASSWORD",
    "PLACED",
    "RETIRED",
    "SECRET_BYTES",
    "URLS",
    "Variable",
    "backup_settings",
    "backup_variables",
    "check_values",
    "documented",
    "edge_port",
    "ensure_env",
    "env_or_shell",
    "env_text",
    "fill_env",
    "grace_seconds",
    "monitoring_settings",
    "needed_secrets",
    "overridden",
    "read_env",
    "read_values",
    "release_settings",
    "secret_names",
    "service_secrets",
    "set_in_env",
    "settings_environment",
    "split_secrets",
    "variables",
    "with_lines",
]

PLACEHOLDER = "change_this"
SECRET_BYTES = 48  # of randomness; as text 64, which suits each JWT_ALGORITHM
DEFAULT_EDGE_PORT = 8080
HIGHEST_PORT = 65535
LEAVING_SECONDS = 10  # of a replica that has answered everything: a few, even on a busy machine
# These decide where the data is and which engine reads it. If two shells could differ in one of them, the second would
# find an empty database, or start another engine on the same volume. So `.env` alone sets them.
DECISIVE = ("PROJECT_NAME", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_OWNER", "POSTGRES_IMAGE", "REDIS_IMAGE")
PLAIN = re.compile(r"[\w./:@-]+", re.ASCII)  # needs no quotes in `.env`, and every reader of it agrees on it
# Of stores that others manage: see `pipeline.config.managed`.
URLS = frozenset({"DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL"})
OWNER_PASSWORD = "POSTGRES_OWNER_PASSWORD"  # noqa: S105 - a name; no replica gets it
# Earlier versions had this setting, and nothing read it: an `.env` that still has it is not wrong.
RETIRED = frozenset({"WEBSOCKET_MAX_CONNECTIONS"})
# What a target decides itself (where things listen, which release it is), and what only images and compose use.
PLACED = frozenset(
    {
        "POSTGRES_HOST",
        "POSTGRES_PORT",
        "POSTGRES_OWNER",
        "DATABASE_URL",
        "MIGRATION_DATABASE_URL",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_URL",
        "REDIS_PASSWORD",
        "BACKEND_HOST",
        "BACKEND_PORT",
        "BACKEND_SOCKET",
        "METRICS_PORT",
        "RELEASE",
        "EDGE_PORT",
        "EDGE_ADDRESS",
        "EDGE_DOMAIN",
        "FRONTEND_PORT",
        "BUILD_TARGET",
        "PYTHON_VERSION",
        "POSTGRES_IMAGE",
        "REDIS_IMAGE",
    }
)


def service_secrets() -> list[Variable]:
    """Return the secrets that targets pass on to the service: all but the URLs, and the owner's password."""
    return [one for one in variables() if one.secret and one.name not in {*URLS, OWNER_PASSWORD}]


def needed_secrets() -> list[str]:
    """Return the names of the secrets without which the service does not start outside development."""
    return [secret.name for secret in service_secrets() if secret.needed]


def read_values(root: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what is set in `.env` and in the environment, which wins; known names only, and `NAME_FILE` of secrets.

    Where there is an `.env`, it alone sets what is `DECISIVE`. An empty value is unset.
    """
    environ = os.environ if environ is None else environ
    secrets = secret_names()
    known = {variable.name for variable in documented()} | secrets | {f"{name}_FILE" for name in secrets}
    # Nor does a shell decide what else is run: it may mean another project's profiles.
    overriding = (known - set(DECISIVE) if env_file(root).exists() else known) - {"COMPOSE_PROFILES"}
    written = {name: value for name, value in read_env(root)[0].items() if value is not None}
    merged = {**written, **{name: environ[name] for name in overriding if name in environ}}
    return {name: value for name, value in merged.items() if name in known and value != ""}


def check_values(
    root: Path, values: Mapping[str, str], environ: Mapping[str, str] | None = None, *, source: str = ""
) -> list[str]:
    """Return what is wrong with `values` and with the lines of `.env`, one line each.

    The secrets must also be valid for production: a deploy needs real ones in development, too. `source`: where they
    come from, if that is not `.env` or `environ`.
    """
    environ = os.environ if environ is None else environ
    known = {variable.name for variable in documented()} | secret_names()
    known |= {f"{name}_FILE" for name in known} | RETIRED
    written, unread = read_env(root)
    problems = [f".env: line {number} is not NAME=VALUE: fix it, or put # before it" for number in unread]
    problems += [
        f".env: unknown variable {name}: `.env.example` lists the known ones" for name in written if name not in known
    ]
    schema = schema_of()
    production = {**values, "ENVIRONMENT": "production", "DEBUG": "false", "FRONTEND_URL": ""}
    load, load_own = schema.load_settings, schema_of(BACKUPS).load_backup_settings
    for read, environment in ((load, dict(values)), (load, production), (load_own, dict(values))):
        try:
            read(environment)
        except schema.SettingsError as error:
            for problem in error.problems:
                name = problem.partition(":")[0]
                place = source if source and name in secret_names() else env_or_shell(name, environ)
                problems.append(f"{place}: {problem}")
    return list(dict.fromkeys(problems))


def env_or_shell(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return where `read_values` got the value of `name` from: `.env` or "the environment"."""
    environ = os.environ if environ is None else environ
    return ".env" if name in DECISIVE or not (environ.get(name) or environ.get(f"{name}_FILE")) else "the environment"


def overridden(root: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a line for each setting, by its name, that the environment sets to something else than `.env` does.

    A secret's value is not in its line. Nothing is overridden where there is no `.env` yet.
    """
    environ = os.environ if environ is None else environ
    if not env_file(root).exists():
        return {}
    written, secret, lines = read_env(root)[0], secret_names(), {}
    defaults = {variable.name: "" if variable.name in secret else variable.default for variable in documented()}
    defaults |= {f"{name}_FILE": "" for name in secret}
    for name in sorted(defaults.keys() & environ.keys() - {*DECISIVE, "COMPOSE_PROFILES"}):
        given, own = environ[name].strip(), (written.get(name) or "").strip() or defaults[name]
        if given != own:
            says = "another one than .env" if name in secret else f"`{given}`, where .env has `{own}`"
            lines[name] = f"{name}: the environment has {says}, and wins: unset it, or write it to .env"
    return lines


def edge_port(values: Mapping[str, str]) -> int:
    """Return EDGE_PORT, or the default if that is not a valid port (which `check_values` reports)."""
    text = values.get("EDGE_PORT", "").strip()
    port = int(text) if text.isascii() and text.isdigit() else DEFAULT_EDGE_PORT
    return port if 1 <= port <= HIGHEST_PORT else DEFAULT_EDGE_PORT


def split_secrets(values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split `values` into what may be shown and the secrets, which are read from their files where those are given.

    Those of backups and of monitoring are in neither: no replica needs them.
    """
    own = _named(backup_variables()) | _named(MONITORING)
    return _split({name: value for name, value in values.items() if name not in own})


def backup_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of backups in `values`; the secrets are read from their files where those are given."""
    return _own(values, backup_variables())


def monitoring_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of what watches in `values`, each with its default; the secrets are read from their files."""
    return {variable.name: variable.default for variable in MONITORING} | _own(values, MONITORING)


def _own(values: Mapping[str, str], known: Iterable[Variable]) -> dict[str, str]:
    names = _named(known)
    plain, secrets = _split({name: value for name, value in values.items() if name in names})
    return plain | secrets


def _named(known: Iterable[Variable]) -> set[str]:
    names = {variable.name for variable in known}
    return names | {f"{name}_FILE" for name in names}


def _split(values: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    known = secret_names()
    files = {f"{name}_FILE": name for name in known}
    plain = {name: value for name, value in values.items() if name not in known and name not in files}
    named = {name: value for name, value in values.items() if name in files and files[name] not in URLS}
    secrets = {files[name]: read_secret(files[name], values) for name in named}
    return plain, {**secrets, **{name: value for name, value in values.items() if name in known}}


def release_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings in `values` that are part of a release: not secret, and not decided by the target."""
    # Nor who logs in, which goes with a password: a release of before is brought back with those of today.
    return {name: value for name, value in split_secrets(values)[0].items() if name not in {*PLACED, "POSTGRES_USER"}}


def secret_names() -> set[str]:
    """Return every secret that `.env` may hold."""
    return {one.name for one in (*variables(), *MONITORING, *backup_variables()) if one.secret}


def grace_seconds(config: Mapping[str, str]) -> int:
    """Return how long a replica with the settings `config` may need to leave after SIGTERM.

    It drains, answers what it began last, closes its connections and writes its logs. Every target waits that long.
    """
    values = settings_environment(config)
    seconds = []
    for name in ("DRAIN_SECONDS", "REQUEST_TIMEOUT_SECONDS"):
        try:
            seconds.append(float(values.get(name) or 0))  # a schema of one's own may lack it
        except ValueError:  # which `check_values` reports
            seconds.append(0)
    return math.ceil(sum(seconds)) + LEAVING_SECONDS


def settings_environment(config: Mapping[str, str]) -> dict[str, str]:
    """Return each setting that is not a secret, from `config` or else its default."""
    # Complete, because compose would take what is missing from `.env`.
    return {setting.name: config.get(setting.name, setting.default) for setting in variables() if not setting.secret}


def fill_env(root: Path, environ: Mapping[str, str] | None = None, *, port: int = DEFAULT_EDGE_PORT) -> list[str]:
    """Write what `.env` lacks, with fresh secrets, and return the names that were added; existing lines stay.

    A new `.env` takes what is `DECISIVE` from the environment, and has the EDGE_PORT `port`. The file's mode is 0600.
    """
    environ = os.environ if environ is None else environ
    path = env_file(root)
    if not path.exists():
        given = {name: environ.get(name, "").strip() for name in DECISIVE}
        # A value that would need quotes is not valid for any of these: write the default, and let the plan report it.
        plain = {name: value for name, value in given.items() if PLAIN.fullmatch(value)}
        text = env_text(fresh_secrets=True, given={**_logins(plain, fresh=True), **plain, "EDGE_PORT": str(port)})
        added = [variable.name for variable in documented()]
    else:
        present, _ = read_env(root)
        missing = [
            variable
            for variable in documented()
            if variable.name not in present and f"{variable.name}_FILE" not in present
        ]
        added = [variable.name for variable in missing]
        before = path.read_text(encoding="utf-8")
        text = (
            before
            + ("" if before.endswith("\n") or not before else "\n")
            + "".join(_line(variable, fresh=True) for variable in missing)
        )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if added:
        write_whole(path, text)
    path.chmod(0o600)
    return added


def set_in_env(root: Path, values: Mapping[str, str]) -> list[str]:
    """Write `values` to `.env` in the place of what it has; return the names of those that differed."""
    path = env_file(root)
    written, text = read_env(root)[0], path.read_text(encoding="utf-8-sig")
    changed = [name for name, value in values.items() if (written.get(name) or "") != value]
    if changed:
        write_whole(path, with_lines(text, {name: values[name] for name in changed}))
    return changed


def with_lines(text: str, values: Mapping[str, str]) -> str:
    """Return the `text` of an `.env` with `values` in the place of what it has of them."""
    for name, value in values.items():
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        quoted = value if PLAIN.fullmatch(value) or not value else f"'{escaped}'"
        kept = re.sub(rf"(?m)^(?:export\s+)?{re.escape(name)}\s*=.*\n?", "", text)
        text = f"{kept}{'' if kept.endswith(chr(10)) or not kept else chr(10)}{name}={quoted}\n"
    return text


def ensure_env(root: Path) -> bool:
    """Create `.env` if there is none, and return whether it was created."""
    if env_file(root).exists():
        return False
    fill_env(root)
    return True


def read_env(root: Path) -> tuple[dict[str, str | None], list[int]]:
    """Return the values in `.env` (none if it does not exist), and the numbers of the lines that cannot be parsed."""
    try:
        text = env_file(root).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}, []
    except UnicodeDecodeError as error:
        raise UsageError(f".env: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f".env: cannot be read ({error.strerror}): it must be a file that you may read") from None
    bindings = list(parse_stream(io.StringIO(text)))
    values = {binding.key: binding.value for binding in bindings if binding.key is not None}
    return values, [binding.original.line for binding in bindings if binding.error]


def env_text(*, fresh_secrets: bool = False, given: Mapping[str, str] | None = None) -> str:
    """Return the text of `.env.example`, or of a new `.env` if `fresh_secrets`, with the values `given`."""
    head = (
        "# The settings of the service. `nox -s init` (or the first `nox -s deploy`) writes `.env` from this, with\n"
        "# fresh secrets; this file is made from backend/settings.py and backend/backups/settings.py by\n"
        "# `nox -s settings -- --write`.\n"
        "# An empty value counts as unset.\n"
        "# Each secret can also come from a file: NAME_FILE=/path, or a file NAME in /run/secrets.\n"
    )
    lines, section = [head], None
    given = _logins({}, fresh=False) if given is None else given
    for variable in documented():
        if variable.section != section:
            section = variable.section
            lines.append(f"\n# --- {section} ---\n")
        value = given.get(variable.name)
        line = f"{variable.name}={value}\n" if value else _line(variable, fresh=fresh_secrets)
        lines.append(f"# {variable.description}\n{line}")
    return "".join(lines)


def _logins(given: Mapping[str, str], *, fresh: bool) -> dict[str, str]:
    """Return the lines of a new `.env` for who logs in to the database; none where `given` names a user."""
    names = {variable.name: variable.default for variable in variables()}
    if given.get("POSTGRES_USER") or not {"POSTGRES_USER", "POSTGRES_OWNER", OWNER_PASSWORD} <= names.keys():
        return {}
    owner = given.get("POSTGRES_OWNER") or names["POSTGRES_USER"]
    password = randomness.token_urlsafe(SECRET_BYTES) if fresh else f"{PLACEHOLDER}_{OWNER_PASSWORD.lower()}"
    return {"POSTGRES_USER": f"{owner}-app-1", "POSTGRES_OWNER": owner, OWNER_PASSWORD: password}


def _line(variable: Variable, *, fresh: bool) -> str:
    if variable.generate:
        value = randomness.token_urlsafe(SECRET_BYTES) if fresh else f"{PLACEHOLDER}_{variable.name.lower()}"
    else:
        value = variable.default
    return f"{variable.name}={value}\n"
