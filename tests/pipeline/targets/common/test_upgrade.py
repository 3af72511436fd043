"""Where nothing moves the data to a new major of PostgreSQL by itself, one line says who does it, and how."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import UsageError
from pipeline.targets import Database
from pipeline.targets.compose.database import ComposeDatabase
from pipeline.targets.kubernetes.database import KubernetesDatabase
from pipeline.targets.local.database import LocalDatabase


@pytest.mark.parametrize("role", [ComposeDatabase, KubernetesDatabase, LocalDatabase])
def test_a_database_outside_is_upgraded_by_whoever_runs_it(role: Any) -> None:
    """On each target."""
    managed = SimpleNamespace(database=True)
    site = SimpleNamespace(managed=managed, variables=SimpleNamespace(managed=managed))
    database = cast("Database", role(site))
    with pytest.raises(UsageError, match="whoever runs it upgrades it"):
        database.upgrade().plan()
