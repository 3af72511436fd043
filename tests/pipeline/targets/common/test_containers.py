"""The rehearsal's stand in containers: what a throwaway replica is given."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import cast

import pytest

from backend.settings import load_settings
from pipeline.config.secrets import delivered_secrets
from pipeline.engines.docker import Docker
from pipeline.targets.common.containers import STORES, replica_environment, secret_mounts, sweep


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_a_throwaway_replica_starts_in_every_environment(environment: str, tmp_path: Path) -> None:
    """Its Redis has no password, but outside development the settings must not report any secret as missing."""
    for name in {*delivered_secrets()} - {*STORES}:
        (tmp_path / name).write_text(secrets.token_urlsafe(36))
    database = {"POSTGRES_HOST": "postgres", "POSTGRES_PASSWORD": secrets.token_urlsafe(24)}
    settings = load_settings(replica_environment({"ENVIRONMENT": environment}, database), secrets_dir=tmp_path)
    assert (settings.environment, settings.postgres_host) == (environment, "postgres")


def test_a_throwaway_replica_has_the_secrets_that_are_there(tmp_path: Path) -> None:
    """Those of the real stores are left out. So are missing files, because Docker would make folders in their place."""
    for name in (*STORES, "SERVICE_TOKEN", "JWT_SECRET_KEY"):
        (tmp_path / name).write_text("x")
    assert secret_mounts(tmp_path) == [
        *("--volume", f"{tmp_path}/SERVICE_TOKEN:/run/secrets/SERVICE_TOKEN:ro"),
        *("--volume", f"{tmp_path}/JWT_SECRET_KEY:/run/secrets/JWT_SECRET_KEY:ro"),
    ]


def test_what_is_found_twice_is_removed_once() -> None:
    """A container of a killed one-off may be a throwaway, too; Docker refuses the second of two removals."""
    told: list[tuple[str, ...]] = []

    class Engine:
        def ask(self, verb: str, *_: str) -> str:
            return "c0ffee\n" if verb == "ps" else ""

        def do(self, *words: str) -> None:
            told.append(words)

    assert sweep(cast("Docker", Engine()), "shop") == ["c0ffee"]
    assert told == [("rm", "--force", "--volumes", "c0ffee")]
