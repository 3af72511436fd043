"""The rotation of every secret as a user does it, on any target (docs/4-runbook.md, New secrets)."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from tests.deploy.checkout import Checkout
from tests.deploy.machine import wait_until
from tests.deploy.people import SignedIn, add
from tests.deploy.runs import Outcome
from tests.notes import NOTES
from tests.project import NAME

__all__ = ["rotates_the_database_password", "rotates_the_key", "rotates_the_others", "rotates_the_token"]

WRITES_NOTHING = "running replicas refuse the new SERVICE_TOKEN"
Psql = Callable[[str, str], object]  # the command for the superuser's psql, and its standard input


def rotates_the_database_password(one: Checkout, psql: Psql) -> list[Outcome]:
    """Rotate to the other role and back, without a failed request; then the password before lets nobody in."""
    outcomes = []
    for role, before in ((f"{NAME}-other", NAME), (NAME, f"{NAME}-other")):
        fresh = secrets.token_urlsafe(36)
        psql(rf'\password "{role}"', f"{fresh}\n{fresh}\n")
        one.set_env(POSTGRES_USER=role, POSTGRES_PASSWORD=fresh)
        one.change(f"shipped as {role}")  # without a change there is no release to go back to
        outcomes.append(one.proved())
        assert fresh not in outcomes[-1].stderr + outcomes[-1].stdout
        psql(f'ALTER ROLE "{before}" PASSWORD NULL', "")
        assert one.sql("SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity"
                       " WHERE application_name LIKE '%-backend'") == role  # fmt: skip
        assert one.write_note(f"as {role}")["text"] == f"as {role}"
        assert one.run("doctor").code == 0
        back = one.run("rollback")  # to a release from before the rotation, with the present secrets
        assert back.code == 0, str(back)
        assert (back.traffic["failed"], back.traffic["writes_lost"]) == (0, 0), str(back)
        assert one.deploy().code == 0
    one.commit()
    assert one.sql("SELECT string_agg(DISTINCT tableowner, ' ') FROM pg_tables WHERE schemaname = 'public'") == NAME
    return outcomes


def rotates_the_others(one: Checkout) -> Outcome:
    """Rotate SERVICE_TOKEN and Redis's password in one deploy: no request fails, no secret is printed."""
    fresh = {name: secrets.token_urlsafe(36) for name in ("SERVICE_TOKEN", "REDIS_PASSWORD")}
    one.set_env(**fresh)
    outcome = one.proved()
    assert not [name for name, value in fresh.items() if value in outcome.stderr + outcome.stdout]
    assert one.write_note("with the new token")["text"] == "with the new token"
    assert one.request("GET", "/ready").json()["checks"]["redis"]["state"] == "ok"
    return outcome


def rotates_the_token(one: Checkout) -> Outcome:
    """Rotate SERVICE_TOKEN in one deploy: the proof and an old caller write through it; the clean-up ends the old one.

    Left out, SERVICE_TOKEN_PREVIOUS costs the proof its writes, and the old caller is refused.
    """
    old, fresh, last = one.settings()["SERVICE_TOKEN"], secrets.token_urlsafe(36), secrets.token_urlsafe(36)
    one.set_env(SERVICE_TOKEN=fresh, SERVICE_TOKEN_PREVIOUS=old)
    outcome = one.proved()
    assert WRITES_NOTHING not in outcome.stderr
    assert not [token for token in (old, fresh) if token in outcome.stderr + outcome.stdout]
    assert [_write(one, token) for token in (old, fresh)] == [201, 201]
    one.set_env(SERVICE_TOKEN_PREVIOUS="")
    assert WRITES_NOTHING not in one.proved().stderr
    assert [_write(one, token) for token in (old, fresh)] == [401, 201]
    one.set_env(SERVICE_TOKEN=last)  # the negative control
    without = one.proved()
    assert WRITES_NOTHING in without.stderr
    assert without.traffic["writes_acknowledged"] < outcome.traffic["writes_acknowledged"]
    assert [_write(one, token) for token in (fresh, last)] == [401, 201]
    return outcome


def rotates_the_key(one: Checkout) -> SignedIn:
    """Rotate JWT_SECRET_KEY in two rollouts and a clean-up: whoever was signed in stays so; no request fails.

    In one rollout instead, replicas refuse what the others have signed; the session lives on.
    """
    old, fresh, last = one.settings()["JWT_SECRET_KEY"], secrets.token_urlsafe(48), secrets.token_urlsafe(48)
    add(one, "carla")
    somebody = SignedIn(one, "carla")
    with somebody.calling():
        for keys in ((old, fresh), (fresh, old)):
            one.set_env(JWT_SECRET_KEY=keys[0], JWT_SECRET_KEY_PREVIOUS=keys[1])
            one.proved()
        # The clean-up waits for JWT_EXPIRE_MINUTES; here, until somebody has a token of the new key.
        refreshed = somebody.refreshed.total()
        wait_until(lambda: somebody.refreshed.total() > refreshed + 1, "no refresh", 30)
        one.set_env(JWT_SECRET_KEY_PREVIOUS="")
        one.proved()
    assert (set(somebody.called), set(somebody.refreshed)) == ({200}, {200}), (somebody.called, somebody.refreshed)
    control = SignedIn(one, "carla")
    with control.calling():
        one.set_env(JWT_SECRET_KEY=last)
        one.proved()
        refreshed = control.refreshed.total()
        wait_until(lambda: control.refreshed.total() > refreshed + 1, "no refresh", 30)
    assert control.called[401] > 0, control.called
    assert set(control.refreshed) == {200}, control.refreshed
    return somebody


def _write(one: Checkout, token: str) -> int:
    """Write a note with a `token`; return the status."""
    headers = {"Authorization": f"Bearer {token}"}
    return one.request("POST", NOTES, headers=headers, json={"text": "rotated", "tag": "a user's"}).status_code
