"""`nox -s dev` and the stores that it must keep away from."""

from __future__ import annotations

from pipeline.commands.dev import environment_of
from pipeline.engines.embedded import PostgresServer, ValkeyServer

POSTGRES = PostgresServer(host="/tmp/throwaway", port=5432, user="postgres", password="of-the-throwaway-one")
VALKEY = ValkeyServer(socket="/tmp/throwaway.sock")


def test_no_other_database_can_be_reached() -> None:
    """An address in the shell or in `.env` would win over host and password, and `dev` migrates what it finds."""
    real = {"POSTGRES_HOST": "production", "POSTGRES_DB": "board", "REDIS_HOST": "production"}
    urls = {"DATABASE_URL": "postgresql://production/board", "REDIS_URL": "rediss://production:6379/0"}
    files = {f"{name}_FILE": "/run/x" for name in ("DATABASE_URL", "REDIS_URL", "POSTGRES_PASSWORD", "REDIS_PASSWORD")}
    kept = {"PATH": "/usr/bin", "SERVICE_TOKEN_FILE": "/run/token", "BACKEND_PORT": "8001"}
    environment = environment_of({**real, **urls, **files, "REDIS_PASSWORD": "x", **kept}, POSTGRES, VALKEY)
    assert kept.items() <= environment.items()
    assert environment.keys() - kept.keys() == {
        "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "REDIS_HOST",
        "ENVIRONMENT", "LOG_FORMAT", "DRAIN_SECONDS", "RELEASE",
    }  # fmt: skip
    assert (environment["POSTGRES_HOST"], environment["REDIS_HOST"]) == (POSTGRES.host, VALKEY.socket)
