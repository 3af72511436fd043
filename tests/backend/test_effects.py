"""What each setting does: the test that shows it, by name; and the tests that are at home in no other file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from pydantic import SecretStr

from backend.app import create_app
from backend.cache import Cache
from backend.database import Database, DatabaseUnavailable
from backend.logs import configure_logging
from backend.metrics import Metrics
from backend.settings import Settings
from pipeline.config.project import load_project
from pipeline.config.settings import variables
from pipeline.engines.embedded import find_engines
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from tests.backend.servers import PASSWORD, postgres
from tests.conftest import TOKEN, asgi_client
from tests.notes import NOTES

TESTS = Path(__file__).parents[1]
HERE = "backend/test_effects.py"
COOKIES, CALLERS = "backend/accounts/test_cookies.py", "backend/accounts/test_callers.py"
TOKENS, REALITY = "backend/accounts/test_tokens.py", "backend/migrations/test_reality.py"
MIDDLEWARE, OUTAGES, POOL = "backend/test_middleware.py", "backend/test_outages.py", "backend/test_pool.py"
SERVER, TRACING, POOLERS = "backend/test_server.py", "backend/test_tracing.py", "backend/test_poolers.py"
COMPOSE_FILE, IMAGES = "pipeline/targets/compose/test_compose_file.py", "pipeline/engines/test_docker.py"
OWNER = f"{REALITY}::test_the_owner_migrates_where_the_service_is_somebody_else"
# A new setting of the template has no effect until a test shows it: write one, and name it here.
EFFECTS = {
    "ENVIRONMENT": f"{COOKIES}::test_are_strict",
    "DEBUG": f"{MIDDLEWARE}::test_debug_tells_the_error",
    "PROJECT_NAME": f"{COOKIES}::test_of_services_on_one_host_differ",
    "RELEASE": f"{TRACING}::test_a_request_with_what_it_did",
    "BUILD_TARGET": f"{IMAGES}::test_passes_on_stage_version_mirror_proxy_and_index",
    "PYTHON_VERSION": f"{IMAGES}::test_passes_on_stage_version_mirror_proxy_and_index",
    "POSTGRES_DB": "backend/test_database.py::test_whatever_is_wrong_with_a_connection_is_a_database_that_is_away",
    "POSTGRES_USER": OWNER,
    "POSTGRES_PASSWORD": OWNER,
    "POSTGRES_OWNER": OWNER,
    "POSTGRES_OWNER_PASSWORD": OWNER,
    "POSTGRES_HOST": f"{OUTAGES}::test_starts_and_answers_without_it",
    "POSTGRES_PORT": f"{HERE}::test_postgresql_is_asked_at_its_port",
    "DATABASE_URL": "backend/test_tls.py::test_is_used_with_what_the_address_says",
    "MIGRATION_DATABASE_URL": f"{POOLERS}::test_go_as_who_migrates",
    "DATABASE_POOL_SIZE": f"{POOL}::test_so_many_are_open_before_anybody_asks",
    "DATABASE_MAX_OVERFLOW": f"{POOL}::test_more_are_opened_while_they_are_needed_and_closed_after",
    "DATABASE_POOL_TIMEOUT": f"{OUTAGES}::test_a_full_pool_is_a_503_after_the_timeout",
    "REDIS_HOST": f"{HERE}::test_redis_is_asked_where_it_is_with_its_password",
    "REDIS_PORT": f"{HERE}::test_redis_is_asked_where_it_is_with_its_password",
    "REDIS_PASSWORD": f"{HERE}::test_redis_is_asked_where_it_is_with_its_password",
    "REDIS_URL": "backend/test_tls.py::test_is_used_over_tls_as_a_user_with_few_rights",
    "REDIS_EXPIRE_SECONDS": f"{HERE}::test_a_cached_answer_is_kept_for_so_long",
    "REDIS_MAX_CONNECTIONS": f"{HERE}::test_redis_has_so_many_connections_at_most",
    "SERVICE_TOKEN": f"{CALLERS}::test_before_is_accepted_beside_it",
    "SERVICE_TOKEN_PREVIOUS": f"{CALLERS}::test_before_is_accepted_beside_it",
    "JWT_SECRET_KEY": f"{TOKENS}::test_goes_on_through_a_rotation_of_the_key",
    "JWT_SECRET_KEY_PREVIOUS": f"{TOKENS}::test_goes_on_through_a_rotation_of_the_key",
    "JWT_ALGORITHM": f"{TOKENS}::test_is_what_jwt_algorithm_says",
    "JWT_EXPIRE_MINUTES": f"{TOKENS}::test_is_a_token_until_it_expires",
    "JWT_REFRESH_DAYS": "backend/accounts/test_refresh.py::test_extends_the_session_by_jwt_refresh_days",
    "ANONYMOUS_READ": f"{CALLERS}::test_can_be_closed",
    "FRONTEND_URL": f"{COOKIES}::test_that_could_not_hold_are_said_to",
    "CORS_ORIGINS": f"{MIDDLEWARE}::test_cors_admits_exact_origins",
    "BACKEND_HOST": f"{SERVER}::test_a_taken_socket_is_refused_and_a_dead_one_replaced",
    "BACKEND_PORT": f"{SERVER}::test_a_taken_port_is_one_line_and_exit_1",
    "BACKEND_SOCKET": f"{SERVER}::test_listens_on_a_socket_besides",
    "METRICS_PORT": f"{SERVER}::test_metrics_are_on_their_port_alone",
    "FRONTEND_PORT": "pipeline/targets/test_edges.py::test_listens_where_it_is_told",
    "EDGE_PORT": f"{COMPOSE_FILE}::test_users_may_come_from_elsewhere_once_that_is_said",
    "EDGE_ADDRESS": f"{COMPOSE_FILE}::test_users_may_come_from_elsewhere_once_that_is_said",
    "EDGE_DOMAIN": "pipeline/targets/compose/test_https.py::test_redirects_who_comes_by_http",
    "TRUSTED_PROXIES": "backend/test_forwarded.py::test_the_process_logs_the_client_and_keeps_https",
    "MAX_BODY_BYTES": f"{HERE}::test_a_body_has_so_many_bytes_at_most",
    "REQUEST_TIMEOUT_SECONDS": f"{MIDDLEWARE}::test_a_long_request_is_a_problem_and_a_long_answer_goes_on",
    "API_RATE_LIMIT": "backend/limits/test_middleware.py::test_one_too_many_is_a_429_problem_that_says_when",
    "BACKEND_WORKERS": "backend/test_workers.py::test_metrics_are_the_sum_and_survive_a_worker",
    "LOG_LEVEL": f"{MIDDLEWARE}::test_one_for_each_request",
    "LOG_FORMAT": f"{HERE}::test_the_log_is_for_machines_or_for_people",
    "LOG_CLIENT": "backend/test_logs.py::test_is_whole_or_truncated",
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"{TRACING}::test_a_request_with_what_it_did",
    "OTEL_TRACES_SAMPLER": f"{TRACING}::test_is_as_the_variables_say",
    "OTEL_TRACES_SAMPLER_ARG": f"{TRACING}::test_is_as_the_variables_say",
    "DRAIN_SECONDS": f"{SERVER}::test_still_serves_and_keeps_no_connection",
}
# End of the table.


def test_each_setting_has_a_test_of_its_effect() -> None:
    """It is there, and its file knows the setting. A service made from the template lists its own nowhere."""
    found = {one.name for one in variables()}
    if load_project(TESTS.parent).template is None:
        assert found == EFFECTS.keys()
    for name in found & EFFECTS.keys():
        test = EFFECTS[name]
        file, _, function = test.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8").partition("\n# End of the table.\n")
        assert re.search(rf"(?m)^ *(async )?def {function}\(", "".join(text)), test
        assert re.search(rf"(?i)\b{name}\b", text[2] or text[0]), test


async def test_postgresql_is_asked_at_its_port(settings: Settings, tmp_path: Path) -> None:
    """At another one there is nobody."""
    with postgres() as own:
        (tmp_path / ".s.PGSQL.7432").symlink_to(own.folder / ".s.PGSQL.5432")
        place = {"postgres_host": str(tmp_path), "postgres_user": "postgres", "postgres_db": "postgres"}
        for port, there in ((7432, True), (7433, False)):
            changes: dict[str, Any] = {**place, "postgres_password": SecretStr(PASSWORD), "postgres_port": port}
            database = Database(settings.model_copy(update=changes), Metrics("1"))
            await database.open()
            if there:
                async with database.lease() as connection:
                    assert await connection.fetchval("SELECT 1") == 1
            else:
                with pytest.raises(DatabaseUnavailable):
                    async with database.lease():
                        pytest.fail("somebody is there")
            await database.close()


@pytest.fixture(name="locked")
def _locked(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis with the password `PASSWORD`."""
    port = free_port()
    own = ["--bind", "127.0.0.1", "--port", str(port), "--requirepass", PASSWORD, "--save", "", "--dir", str(tmp_path)]
    with held([str(find_engines().valkey), *own], log=tmp_path / "log"):
        yield port


async def test_redis_is_asked_where_it_is_with_its_password(settings: Settings, locked: int) -> None:
    """A wrong port, or a wrong password, finds no cache."""

    def cache(host: str, port: int, password: str) -> Cache:
        place = {"redis_url": None, "redis_host": host, "redis_port": port, "redis_password": SecretStr(password)}
        return Cache(settings.model_copy(update=place), Metrics("1"))

    async with asyncio.timeout(30):
        while not await _answers(cache("127.0.0.1", locked, PASSWORD)):  # noqa: ASYNC110 - another process starts
            await asyncio.sleep(0.05)
    assert not await _answers(cache("127.0.0.1", locked, "another"))
    assert not await _answers(cache("127.0.0.1", free_port(), PASSWORD))
    assert not await _answers(cache("/nowhere/redis.sock", locked, PASSWORD))


async def _answers(cache: Cache) -> bool:
    try:
        await cache.check()
    except (redis.RedisError, OSError):
        return False
    else:
        return True
    finally:
        await cache.close()


@pytest.mark.parametrize("seconds", [7, 70])
async def test_a_cached_answer_is_kept_for_so_long(settings: Settings, redis_admin_url: str, seconds: int) -> None:
    """And not longer, should nobody end it before."""
    cache = Cache(settings.model_copy(update={"redis_expire_seconds": seconds}), Metrics("1"))
    await cache.get("what")
    await cache.put("what", await cache.get("what"), b"an answer")
    assert (await cache.get("what")).value == b"an answer"
    await cache.close()
    with redis.Redis.from_url(redis_admin_url) as admin:
        left = {int(admin.ttl(key)) for key in admin.scan_iter() if b"generation" not in key}
    assert len(left) == 1
    assert seconds - 5 < left.pop() <= seconds


@pytest.mark.parametrize("most", [2, 5])
async def test_redis_has_so_many_connections_at_most(settings: Settings, redis_admin_url: str, most: int) -> None:
    """However many ask at the same moment."""
    cache = Cache(settings.model_copy(update={"redis_max_connections": most}), Metrics("1"))
    with redis.Redis.from_url(redis_admin_url) as admin:
        number = str(admin.connection_pool.connection_kwargs.get("db", 0))
        before = {one["id"] for one in admin.client_list()}
        await asyncio.gather(*[cache.get("what") for _ in range(30)])
        now = [one for one in admin.client_list() if one["id"] not in before and one["db"] == number]
    await cache.close()
    assert len(now) == most


async def test_a_body_has_so_many_bytes_at_most(settings: Settings, notes: None) -> None:
    """One more is too many."""
    del notes
    app = create_app(settings.model_copy(update={"max_body_bytes": 2048}))
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        client.headers.update({"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
        answers: list[httpx2.Response] = [
            await client.post(NOTES, content=b'{"text": "x"}'.ljust(size)) for size in (2048, 2049)
        ]
    assert [answer.status_code for answer in answers] == [201, 413]


@pytest.mark.parametrize(("log_format", "starts"), [("json", '{"'), ("console", "20")])
def test_the_log_is_for_machines_or_for_people(
    settings: Settings, capfd: pytest.CaptureFixture[str], log_format: str, starts: str
) -> None:
    """A line of JSON, or one that begins with the time."""
    import structlog

    configure_logging(settings.model_copy(update={"log_format": log_format}))
    structlog.get_logger("app").info("something", number=7)
    [line] = [line for line in capfd.readouterr().out.splitlines() if "something" in line]
    assert re.sub(r"\x1b\[\d+m", "", line).startswith(starts)
    assert line.endswith("}") == (log_format == "json")
