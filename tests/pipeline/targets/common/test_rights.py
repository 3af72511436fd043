"""The SQL of the roles as `doctor` prints it, and a deploy that could not make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.logins import Logins, brought_over, logins_of
from pipeline.config.settings import read_env
from pipeline.errors import SlipwayError
from pipeline.targets.common.rights import advice, bring_env_over, rights_sql
from tests.pipeline.targets.common.test_stores import probe
from tests.services import ROOT, Services, psql

BEFORE = "POSTGRES_USER=shop\nPOSTGRES_PASSWORD=of-before-0123456789\n"


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> Path:
    """A repository with an `.env` of before, and the program."""
    (tmp_path / ".env").write_text(BEFORE)
    (tmp_path / "backend").symlink_to(ROOT / "backend")
    return tmp_path


LOGINS = Logins("shop", "of-before-0123456789", "shop", "of-before-0123456789", apart=False)


class TestBringOver:
    def test_makes_the_roles_first_and_writes_then(self, old: Path) -> None:
        """With the password that `.env` has from then on; the SQL has only what PostgreSQL keeps of it."""
        said: list[str] = []

        def psql_(sql: str) -> None:
            assert (old / ".env").read_text() == BEFORE
            said.append(sql)

        assert bring_env_over(old, "shop", LOGINS, psql_)
        found = read_env(old)[0]
        assert (found["POSTGRES_USER"], found["POSTGRES_OWNER"]) == ("shop-app-1", "shop")
        assert 'CREATE ROLE "shop-app-1" LOGIN' in said[0]
        assert "rolpassword IS NULL" not in said[0]  # one that a killed deploy made has another password
        assert not [name for name in ("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD") if str(found[name]) in said[0]]

    def test_leaves_all_as_it_was_where_the_superuser_is_refused(
        self, old: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The deploy goes on, and says what failed."""

        def refused(_: str) -> None:
            raise SlipwayError("docker exec: password authentication failed for user postgres")

        assert not bring_env_over(old, "shop", LOGINS, refused)
        assert (old / ".env").read_text() == BEFORE
        assert "were not made anew: docker exec: password authentication failed" in caplog.text

    def test_a_second_time_makes_them_again_and_writes_nothing(self, old: Path) -> None:
        """A login keeps the password that it has."""
        assert bring_env_over(old, "shop", LOGINS, lambda _: None)
        before, said = (old / ".env").read_text(), list[str]()
        values = {name: str(value) for name, value in read_env(old)[0].items()}
        assert brought_over(old, logins_of(values, "shop"), {}) == {}
        assert not bring_env_over(old, "shop", logins_of(values, "shop"), said.append)
        assert (old / ".env").read_text() == before
        assert "rolpassword IS NULL" in said[0]


class TestAdvice:
    async def test_is_for_a_service_that_owns_its_tables(
        self, services: Services, empty_database: str, environ: dict[str, str]
    ) -> None:
        """The SQL that it has makes a role with which there is none."""
        seen = probe(environ, "database")["database"]
        owner = services.postgres_user
        assert (seen["owner"], seen["owns"]) == (owner, True)
        first, *sql = advice(ROOT, seen)
        assert f"the service logs in as {owner}, which owns its tables" in first
        login, password = f"{owner}-app-1", "a-password-of-tests"
        try:
            psql(services, empty_database, "\n".join(sql))
            psql(services, empty_database, f"ALTER ROLE \"{login}\" PASSWORD '{password}'")
            least = probe({**environ, "POSTGRES_USER": login, "POSTGRES_PASSWORD": password}, "database")["database"]
            assert (least["role"], least["owner"], least["owns"]) == (login, owner, False)
            assert least["revision"] == seen["revision"]
            assert advice(ROOT, least) == []
        finally:
            for role in ("app", "app-1", "app-2", "monitor", "read"):
                psql(services, empty_database, f'DROP OWNED BY "{owner}-{role}"')
                psql(services, empty_database, f'DROP ROLE "{owner}-{role}"')

    def test_is_none_where_nobody_knows(self) -> None:
        """Of a release that cannot be asked, or a database that was never migrated."""
        assert advice(ROOT, {}) == advice(ROOT, {"problem": "connection refused"}) == []


def test_a_broken_tree_is_one_line(tmp_path: Path) -> None:
    """A rollback needs the settings of the working tree, and nothing else of it."""
    with pytest.raises(SlipwayError, match="python"):
        rights_sql(tmp_path, "shop", LOGINS)
