"""Every setting of the service, checked before anything starts.

`load_settings` is the only way to load them. It reads each variable from the environment and, for a secret, also from
the file that `NAME_FILE` names or from `/run/secrets/NAME`. Errors are one line per variable, never with its value:
pydantic's own message prints the whole input, secrets included (pydantic-settings issues 530 and 937).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationError

from backend.setting_fields import SECRETS_DIR, Fields, SettingsError, collect, marks, section, sentence
from backend.setting_fields import setting as _setting
from backend.setting_types import Collector, Domain, Level, Origin, Origins, PostgresUrl, Proxies, RedisUrl

__all__ = ["BAD_SETTINGS", "SECRET_CHARACTERS", "SECTIONS", "Settings", "SettingsError", "load_settings", "secrets_of"]

NAME = "slipway"
SECTIONS = ("service", "image", "database", "redis", "secrets", "accounts", "browser", "network", "limits", "operation")
PLACEHOLDER = re.compile(r"change[_ -]?(this|me|it)", re.IGNORECASE)
SECRET_CHARACTERS = 16
MAKE_SECRET = "make one with `python -c 'import secrets; print(secrets.token_urlsafe(48))'`"  # noqa: S105 - a command
BAD_SETTINGS = 2  # exit code
SECRET_DISTINCT = 6  # `aaaaaaaaaaaaaaaa` is long but not a secret
KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 3.2: at least as long as the hash


class Settings(Fields):
    """The settings of one process. A field's environment variable is its name in upper case."""

    environment: Literal["development", "staging", "production"] = _setting(
        "service", "Where the service runs. Outside development, weak secrets and DEBUG are refused.", "development"
    )
    debug: bool = _setting("service", "Show the error itself in 500 answers; development only.", default=False)
    project_name: str = _setting(
        "service",
        "Name of the project: used in titles and, on compose, as the prefix of containers and volumes.",
        NAME,
        min_length=1,
        max_length=63,
    )
    release: str = _setting(
        "service",
        "Name of this release; each answer carries it as X-Release. A deploy sets it.",
        "dev",
        pattern=r"^[A-Za-z0-9._:@/+-]{1,128}$",
    )

    build_target: str = _setting(
        "image", "Stage of docker/Dockerfile.backend that is built as the service.", "production", outside=True
    )
    python_version: str = _setting(
        "image", "Python version of the image.", "3.13", pattern=r"^3\.\d+(\.\d+)?$", outside=True
    )

    postgres_db: str = _setting(
        "database", "Name of the database; on Kubernetes, the overlay sets it.", NAME, min_length=1
    )
    postgres_user: str = _setting(
        "database",
        "User as which the service logs in: NAME-app-1 or NAME-app-2, of the two that rotate, or the owner itself; on"
        " Kubernetes, the overlay or the Secret sets it.",
        NAME,
        min_length=1,
    )
    postgres_password: SecretStr | None = _setting("database", "Password of that user.", None, generate=True)
    postgres_owner: str | None = _setting(
        "database", "Role that owns the tables, and that migrates. Unset: as POSTGRES_USER.", None, min_length=1
    )
    postgres_owner_password: SecretStr | None = _setting("database", "Password of the owner.", None)
    postgres_host: str = _setting(
        "database",
        "Host, or the folder of a Unix socket if it starts with /. A deploy sets it (on Kubernetes, the overlay does)"
        " and refuses any other value.",
        "localhost",
        min_length=1,
    )
    postgres_port: int = _setting(
        "database",
        "Port of PostgreSQL. A deploy sets it; the compose profile debug opens this port on the host.",
        5432,
        ge=1,
        le=65535,
    )
    database_url: PostgresUrl | None = _setting(
        "database",
        "postgresql://user:password@host:port/name of a database that others manage; wins over POSTGRES_*, and a deploy"
        " runs no PostgreSQL of its own.",
        None,
    )
    migration_database_url: PostgresUrl | None = _setting(
        "database",
        "The same for who migrates, beside DATABASE_URL: directly, never through a pooler. Unset: as the service.",
        None,
    )
    database_pool_size: int = _setting("database", "Connections that one process keeps open.", 5, ge=1, le=100)
    database_max_overflow: int = _setting(
        "database", "Connections that it opens beyond those while they are needed.", 5, ge=0, le=100
    )
    database_pool_timeout: float = _setting(
        "database", "Seconds that a request waits for a connection before it gets a 503.", 5.0, gt=0, le=30
    )

    redis_host: str = _setting(
        "redis",
        "Host, or the path of a Unix socket if it starts with /. A deploy sets it (on Kubernetes, the overlay does)"
        " and refuses any other value.",
        "localhost",
    )
    redis_port: int = _setting(
        "redis",
        "Port of Redis. A deploy sets it; the compose profile debug opens this port on the host.",
        6379,
        ge=1,
        le=65535,
    )
    redis_password: SecretStr | None = _setting("redis", "Password of Redis.", None, generate=True)
    redis_url: RedisUrl | None = _setting(
        "redis",
        "redis://user:password@host:port/0 (or rediss:, unix:) of a Redis that others manage; wins over REDIS_*, and a"
        " deploy runs none of its own.",
        None,
    )
    redis_expire_seconds: int = _setting("redis", "Seconds that a cached answer is kept.", 60, ge=1, le=86400)
    redis_max_connections: int = _setting("redis", "Connections to Redis that one process may open.", 20, ge=1, le=1000)

    service_token: SecretStr | None = _setting(
        "secrets", "Bearer token of pipelines: lets them write through the API.", None, generate=True
    )
    service_token_previous: SecretStr | None = _setting(
        "secrets", "The token before, accepted beside it until every caller has the new one.", None
    )

    jwt_secret_key: SecretStr | None = _setting(
        "accounts",
        "Signs the access tokens of accounts; at least 32 bytes (HS384: 48, HS512: 64).",
        None,
        generate=True,
    )
    jwt_secret_key_previous: SecretStr | None = _setting(
        "accounts", "Another key whose tokens are accepted, while JWT_SECRET_KEY is being changed.", None
    )
    jwt_algorithm: Literal["HS256", "HS384", "HS512"] = _setting(
        "accounts", "How access tokens are signed; no other algorithm is accepted.", "HS256"
    )
    jwt_expire_minutes: int = _setting(
        "accounts", "Minutes that an access token is accepted, also after its account was disabled.", 15, ge=1, le=1440
    )
    jwt_refresh_days: int = _setting("accounts", "Days without a refresh after which a session ends.", 14, ge=1, le=366)
    anonymous_read: bool = _setting(
        "accounts",
        "Whether anybody may read; false: only SERVICE_TOKEN and accounts. /health, /ready, /docs and sign-in stay"
        " open.",
        default=True,
    )

    frontend_url: Origin | None = _setting(
        "browser",
        "Address of the page, as https://app.example.org: with https, cookies are Secure. Unset: follows EDGE_DOMAIN;"
        " without that, http://localhost with EDGE_PORT in development, and elsewhere https, whatever its name.",
        None,
    )
    cors_origins: Origins = _setting("browser", "Exact origins that may call from a browser, separated by commas.", ())

    backend_host: str = _setting(
        "network",
        "Address to listen on, or the path of a Unix socket if it starts with /. A deploy sets it.",
        "127.0.0.1",
        min_length=1,
    )
    backend_port: int = _setting("network", "Port of the service. A deploy sets it.", 8000, ge=1, le=65535)
    backend_socket: str | None = _setting(
        "network", "Path of a Unix socket to listen on besides. A deploy on compose sets it: its edge asks there.", None
    )
    metrics_port: int = _setting(
        "network", "Port of /metrics; no other port serves it. A deploy sets it.", 9090, ge=1, le=65535
    )
    frontend_port: int = _setting(
        "network",
        "Port of the edge inside its container, and of the page in `nox -s dev`.",
        3000,
        ge=1,
        le=65535,
        outside=True,
    )
    edge_port: int = _setting("network", "Port of the edge, where users arrive.", 8080, ge=1, le=65535)
    edge_address: str = _setting(
        "network",
        "Address of this host on which compose opens EDGE_PORT; 0.0.0.0 means all of them.",
        "127.0.0.1",
        min_length=1,
        outside=True,
    )
    edge_domain: Domain | None = _setting(
        "network",
        "Name of this host on the internet, such as board.example.org: a deploy to compose then serves it by HTTPS on"
        " ports 80 and 443, with a certificate that the edge gets and renews.",
        None,
    )
    trusted_proxies: Proxies = _setting(
        "network",
        "Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted: addresses or networks, separated by commas."
        " The edge of local and compose trusts the same ones, and the service trusts that edge besides. * is whoever"
        " connects to the service; an edge refuses it.",
        ("127.0.0.1",),
    )

    max_body_bytes: int = _setting(
        "limits", "Bytes that a request's body may have; a larger one gets a 413.", 1_048_576, ge=1024
    )
    request_timeout_seconds: float = _setting(
        "limits",
        "Seconds within which the answer to a request must begin; a longer one gets a 504. An answer that has begun may"
        " go on, but a replica that leaves waits no longer for it. The grace periods of a deploy follow from this and"
        " DRAIN_SECONDS.",
        30.0,
        ge=1,
        le=600,
    )
    api_rate_limit: int = _setting(
        "limits",
        "Requests a minute that one client may send to /api/; more get a 429. A client is an account, or else"
        " an address (an IPv6 one with its /64), so it must be enough for all people behind one: an open page sends 40."
        " SERVICE_TOKEN has a limit of its own, 600000.",
        6000,
        ge=1,
        le=10_000_000,
    )
    backend_workers: int = _setting("limits", "Processes of one replica; more replicas scale better.", 1, ge=1, le=64)

    log_level: Level = _setting("operation", "Lowest level that is logged.", "INFO")
    log_format: Literal["json", "console"] = _setting("operation", "json for machines, console for people.", "json")
    log_client: Literal["full", "truncated"] = _setting(
        "operation",
        "The client's address in the log of the service: full, or truncated to its network (/24 of IPv4, /48 of IPv6).",
        "full",
    )
    otel_exporter_otlp_endpoint: Collector | None = _setting(
        "operation",
        "Address of an OpenTelemetry collector, as http://collector:4318: traces go there, by OTLP over HTTP. Unset:"
        " there are none.",
        None,
    )
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = _setting(
        "operation",
        "Which requests are traced: all, none, or a share; with parentbased_ as the caller decided, where it has a"
        " trace.",
        "parentbased_always_on",
    )
    otel_traces_sampler_arg: float = _setting(
        "operation", "The share that traceidratio traces: 0.1 is one request in ten.", 1.0, ge=0, le=1
    )
    drain_seconds: float = _setting(
        "operation",
        "Seconds after SIGTERM in which it still accepts requests but is not ready, so that the edge takes it out, and"
        " up to 5 more while requests still come; 0 means none.",
        2.0,
        ge=0,
        le=300,
    )


def load_settings(
    environ: Mapping[str, str] | None = None, *, sections: Collection[str] = SECTIONS, secrets_dir: Path = SECRETS_DIR
) -> Settings:
    """Return the settings in `environ` (by default the process's); an empty value counts as unset.

    Only the variables of `sections` are read and checked, so that a migration needs no unrelated secret.
    Raise `SettingsError` with every problem at once.
    """
    sections = {"service", *sections}  # ENVIRONMENT decides how strict the others are
    raw, problems = collect(Settings, os.environ if environ is None else environ, sections, secrets_dir)
    try:
        settings = Settings(**raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            problems.setdefault(str(detail["loc"][0]), sentence(detail["msg"]))
        settings = Settings(**{name: value for name, value in raw.items() if name not in problems})
    for name, problem in _cross_field_problems(settings):
        if _section(name) in sections:
            problems.setdefault(name, problem)
    if problems:
        raise SettingsError([f"{name.upper()}: {problem}" for name, problem in problems.items()])
    return settings


def _section(name: str) -> str:
    return section(Settings, name)


def _cross_field_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.backend_host.startswith("/") and settings.metrics_port == settings.backend_port:
        yield "metrics_port", "is the same as BACKEND_PORT; give metrics a port of their own"
    if settings.postgres_owner == settings.postgres_user:
        yield "postgres_owner", "is POSTGRES_USER, too; leave it empty, or give the service a login of its own"
    if settings.environment != "development":
        if settings.debug:
            yield "debug", "is true outside development; set DEBUG=false, or ENVIRONMENT=development"
        if settings.frontend_url and not settings.frontend_url.startswith("https://"):
            yield "frontend_url", "is http outside development; give the https address, or leave it empty"
        yield from _missing_secrets(settings)
        yield from _weak_secrets(settings)
    for name in ("jwt_secret_key", "jwt_secret_key_previous"):
        key, least = getattr(settings, name), KEY_BYTES[settings.jwt_algorithm]
        if key and len(key.get_secret_value().encode()) < least:
            yield name, f"is shorter than the {least} bytes of {settings.jwt_algorithm}; {MAKE_SECRET}"


def _missing_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each secret that is missing, with the fix."""
    # A Unix socket is guarded by the file system, and a URL may rely on certificates: neither needs a password.
    needed = dict.fromkeys((name for name in Settings.model_fields if marks(Settings, name).get("needed")), True)
    needed["postgres_password"] = settings.database_url is None and not settings.postgres_host.startswith("/")
    needed["postgres_owner_password"] = needed["postgres_password"] and settings.postgres_owner is not None
    needed["redis_password"] = settings.redis_url is None and not settings.redis_host.startswith("/")
    for name, necessary in needed.items():
        if necessary and not getattr(settings, name):
            way = "makes one" if marks(Settings, name).get("generate") else "adds its line to .env, for you to fill in"
            yield name, f"is missing; `nox -s init` {way}, or give it in the file that {name.upper()}_FILE names"


def _weak_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    owners: dict[str, str] = {}  # secret → the field that has it
    for name, secret in secrets_of(settings):
        where = "its password " if name.endswith("_url") else ""
        if PLACEHOLDER.match(secret):
            yield name, f"{where}is still the placeholder; {MAKE_SECRET}"
        elif len(secret) < SECRET_CHARACTERS or len(set(secret)) < SECRET_DISTINCT:
            yield name, f"{where}is shorter than {SECRET_CHARACTERS} characters or repeats a few; {MAKE_SECRET}"
        elif secret in owners and name != "migration_database_url":  # which may be the same user's, past a pooler
            other = owners[secret].upper()
            yield name, f"{where}is the same as {other}; each secret needs a value of its own, {MAKE_SECRET}"
        owners.setdefault(secret, name)


def secrets_of(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each secret in use, after the field that holds it. A secret that a URL overrides is not in use."""
    postgres, redis = settings.database_url, settings.redis_url
    overridden = {"postgres_password": postgres, "postgres_owner_password": postgres, "redis_password": redis}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if not isinstance(value, SecretStr) or overridden.get(name) is not None:
            continue
        secret = value.get_secret_value()
        if name.endswith("_url"):
            secret = unquote(urlsplit(secret).password or "")
        if secret:
            yield name, secret
