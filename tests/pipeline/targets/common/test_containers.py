"""The rehearsal's stand in containers: what a throwaway replica is told."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from backend.settings import load_settings
from pipeline.targets.common.containers import replica_environment, replica_secrets


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_a_throwaway_replica_starts_in_every_environment(environment: str, tmp_path: Path) -> None:
    """Its Redis has no password, and neither that nor any other secret may be missed outside development."""
    for name in replica_secrets():
        (tmp_path / name).write_text(secrets.token_urlsafe(36))
    database = {"POSTGRES_HOST": "postgres", "POSTGRES_PASSWORD": secrets.token_urlsafe(24)}
    settings = load_settings(replica_environment({"ENVIRONMENT": environment}, database), secrets_dir=tmp_path)
    assert (settings.environment, settings.postgres_host) == (environment, "postgres")
