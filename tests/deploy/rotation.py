"""The rotation of a token and of a key by hand, with and without the one before beside it, on any target."""

from __future__ import annotations

import secrets

from tests.deploy.checkout import Checkout
from tests.deploy.machine import wait_until
from tests.deploy.people import SignedIn, add
from tests.deploy.runs import Outcome
from tests.notes import NOTES

__all__ = ["rotates_the_key", "rotates_the_token"]

WRITES_NOTHING = "running replicas refuse the new SERVICE_TOKEN"


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
