"""What is degraded after a deploy."""

from __future__ import annotations

from pathlib import Path

from pipeline.deploy.readiness import degraded_checks
from tests.backend.process import serve


def test_names_the_store_that_the_service_does_without(notes_environ: dict[str, str], tmp_path: Path) -> None:
    """Redis is away: the service is ready, and says so."""
    away = {name: value for name, value in notes_environ.items() if name != "REDIS_URL"}
    with serve({**away, "REDIS_HOST": "redis.nowhere.invalid"}, tmp_path, on_socket=False) as service:
        assert degraded_checks(f"http://localhost:{service.port}") == [
            "/ready is degraded: redis: Redis does not answer; nothing is cached"
        ]


def test_says_nothing_of_what_does_not_answer() -> None:
    """That is for others to say."""
    assert degraded_checks("http://127.0.0.1:1") == []
