"""Who logs in to a target's own database, and how `.env` comes to name a login for the service alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.logins import Logins, brought_over, login_problems, logins_of, other_login, owners_of
from pipeline.config.settings import fill_env, read_values, set_in_env, split_secrets
from tests.project import NAME

BEFORE = "POSTGRES_DB=shop\nPOSTGRES_USER=shop\nPOSTGRES_PASSWORD=of-before-0123456789\n"


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> Path:
    """A project with an `.env` of an earlier version."""
    (tmp_path / ".env").write_text(BEFORE)
    return tmp_path


def of(root: Path) -> Logins:
    """Who logs in according to the `.env` in `root`."""
    return logins_of(read_values(root, {}), NAME)


class TestInit:
    def test_a_new_env_has_a_login_for_each(self, tmp_path: Path) -> None:
        """Of the service, and of the owner; each with a password of its own."""
        fill_env(tmp_path, {})
        found = of(tmp_path)
        assert (found.user, found.login, found.owner, found.apart) == (f"{NAME}-app-1", NAME, NAME, True)
        assert len({found.password, found.owner_password}) == 2
        assert min(len(found.password), len(found.owner_password)) >= 64

    def test_one_of_before_keeps_what_it_says(self, old: Path) -> None:
        """Whoever served goes on serving: the lines for an owner are added empty."""
        assert {"POSTGRES_OWNER", "POSTGRES_OWNER_PASSWORD"} <= set(fill_env(old, {}))
        assert (old / ".env").read_text().startswith(BEFORE)
        assert of(old) == Logins("shop", "of-before-0123456789", "shop", "of-before-0123456789", apart=False)

    def test_a_user_that_the_shell_names_is_taken_as_it_is(self, tmp_path: Path) -> None:
        """It decides where the data is: it would be refused as another one, later."""
        fill_env(tmp_path, {"POSTGRES_USER": "shop"})
        assert (of(tmp_path).user, of(tmp_path).apart) == ("shop", False)


class TestBringingOver:
    @pytest.mark.parametrize("user", ["shop", "shop-other"])
    def test_the_owner_keeps_its_login_and_its_password(self, old: Path, user: str) -> None:
        """What runs logs in with them; the service gets another login with a fresh password."""
        set_in_env(old, {"POSTGRES_USER": user})
        set_in_env(old, brought_over(old, of(old), {}))
        found = of(old)
        assert (found.user, found.login, found.owner, found.apart) == ("shop-app-1", user, "shop", True)
        assert found.owner_password == "of-before-0123456789"
        assert len(found.password) >= 64
        assert {found.owner, found.login, found.other_login} == {"shop", "shop-other"}

    def test_happens_once(self, old: Path) -> None:
        """And not where there is nothing to do."""
        set_in_env(old, brought_over(old, of(old), {}))
        assert brought_over(old, of(old), {}) == {}

    @pytest.mark.parametrize("environ", [{"POSTGRES_PASSWORD": "of-the-shell-0123456789"}, {"POSTGRES_USER": "shop"}])
    def test_changes_no_env_that_is_not_the_source(self, old: Path, environ: dict[str, str]) -> None:
        """What the environment says wins: a change of the file would change nothing, or be refused."""
        logins = logins_of(read_values(old, environ), NAME)
        assert brought_over(old, logins, environ) == {}

    def test_nor_one_whose_password_is_in_a_file(self, old: Path) -> None:
        """Somebody else puts it there."""
        (old / "password").write_text("of-a-file-0123456789")
        (old / ".env").write_text(f"POSTGRES_USER=shop\nPOSTGRES_PASSWORD_FILE={old}/password\n")
        assert split_secrets(read_values(old, {}))[1]["POSTGRES_PASSWORD"] == "of-a-file-0123456789"
        assert brought_over(old, of(old), {}) == {}

    def test_nor_where_the_names_would_be_too_long(self, old: Path) -> None:
        """PostgreSQL would cut them."""
        set_in_env(old, {"POSTGRES_USER": "s" * 56})
        assert brought_over(old, of(old), {}) == {}


def test_a_login_that_nobody_makes_is_refused() -> None:
    """Of the service's own two, either is right; a service that is the owner is one of before."""
    for user in ("shop-app-1", "shop-app-2"):
        assert login_problems(Logins(user, "", "shop", "", apart=True), "shop") == []
    assert login_problems(Logins("anybody", "", "anybody", "", apart=False), "shop") == []
    [line] = login_problems(Logins("another", "", "shop-other", "", apart=True), "shop")
    assert "belongs to the role shop, and the service logs in as shop-app-1 or shop-app-2" in line


@pytest.mark.parametrize(("user", "apart"), [("shop-app-2", True), ("shop", False), ("shop-other", False)])
def test_a_new_env_takes_over_who_serves(tmp_path: Path, user: str, *, apart: bool) -> None:
    """`init --recover`: whoever serves goes on, and no owner is made up for a service that is the owner."""
    fill_env(tmp_path, {})
    set_in_env(tmp_path, {"POSTGRES_USER": user, "POSTGRES_PASSWORD": "of-what-runs-0123456789", **owners_of(user)})
    found = of(tmp_path)
    assert (found.user, found.owner, found.apart) == (user, "shop", apart)
    assert (found.owner_password == "of-what-runs-0123456789") is not apart


@pytest.mark.parametrize(("one", "other"), [("shop", "shop-other"), ("shop-app-1", "shop-app-2")])
def test_two_logins_take_turns(one: str, other: str) -> None:
    """Of the service; or of the owner, where it serves, too."""
    assert (other_login(one), other_login(other)) == (other, one)
