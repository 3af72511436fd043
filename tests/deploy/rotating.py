"""Rotations of each secret by `nox -s rotate`, under traffic, on any target; and killed at each of their steps."""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from tests.deploy.checkout import Checkout
from tests.deploy.leaks import Watched, planted, printed
from tests.deploy.machine import wait_until
from tests.deploy.people import SignedIn, add
from tests.deploy.runs import Deploy, Outcome, newest
from tests.notes import NOTES
from tests.project import NAME

__all__ = [
    "finish",
    "is_killed",
    "rotate",
    "rotates_redis",
    "rotates_the_key",
    "rotates_the_login",
    "rotates_the_token",
    "rotates_what_others_manage",
    "skips_a_rollout_of_the_key",
    "skips_the_old_token",
    "unfinished",
    "writes",
]

SECONDS = 360  # of a rotation: up to two deploys
KEY, TOKEN, PASSWORD, REDIS = "JWT_SECRET_KEY", "SERVICE_TOKEN", "POSTGRES_PASSWORD", "REDIS_PASSWORD"


def rotate(one: Checkout, name: str, *, resume: bool = False, code: int = 0) -> Outcome:
    """Rotate a secret, or go on with it; it must end with `code`, and no deploy in it may fail a request."""
    before = newest(one.records)
    done = one.start("rotate", name, *(["--continue"] if resume else [])).finish(SECONDS)
    assert done.code == code, str(done)
    for number in range(before + 1, newest(one.records) + 1):
        report = one.report(number)
        assert report["verdict"] in ("proved", "unchanged"), report["reason"]
        if report["traffic"]:
            assert (report["traffic"]["failed"], report["traffic"]["writes_lost"]) == (0, 0), report["traffic"]
    return done


def rollouts(one: Checkout, since: int) -> int:
    """Return how many deploys were proved after the record `since`."""
    return sum(one.report(number)["verdict"] == "proved" for number in range(since + 1, newest(one.records) + 1))


def unfinished(one: Checkout) -> bool:
    """Whether a rotation is."""
    return (one.home / "rotation.json").exists()


def rotates_the_token(one: Checkout) -> None:
    """Rotate SERVICE_TOKEN: old callers are served until they have the new one; no process, log or report shows one."""
    old, watched, since = one.settings()[TOKEN], Watched(), newest(one.records)
    with watched.watching():
        done = rotate(one, TOKEN)
        fresh = one.settings()[TOKEN]
        assert "give the new SERVICE_TOKEN to whoever calls the service" in done.stderr
        assert (fresh != old, one.settings()[f"{TOKEN}_PREVIOUS"]) == (True, old)
        assert [writes(one, token) for token in (old, fresh)] == [201, 201]
        assert "is unfinished" in one.run("rotate", "REDIS_PASSWORD").stderr
        rotate(one, TOKEN, resume=True)
    assert [writes(one, token) for token in (old, fresh)] == [401, 201]
    assert rollouts(one, since) == 2
    assert not unfinished(one)
    assert planted([old, fresh], printed(one), watched.lines) == []


def rotates_the_key(one: Checkout, settle: Callable[..., object]) -> str:
    """Rotate JWT_SECRET_KEY: whoever was signed in stays so, a client with tokens and a page with cookies.

    The clean-up is refused before the last token is over. `settle` changes a setting of the service, where the target
    has them. Return what those two saw.
    """
    settle(JWT_EXPIRE_MINUTES="1")
    one.proved()
    old, since = one.settings()[KEY], newest(one.records)
    add(one, "dora")
    both = (SignedIn(one, "dora"), SignedIn(one, "dora", cookie=True))
    with both[0].calling(), both[1].calling():
        rotate(one, KEY)
        early = one.run("rotate", KEY, "--continue")
        assert early.code == 1, str(early)
        assert "tokens of the old key are valid until" in early.problems()[0]
        assert one.settings()[f"{KEY}_PREVIOUS"] == old
        until = datetime.fromisoformat(json.loads((one.home / "rotation.json").read_text())["not_before"])
        time.sleep(max(0, (until - datetime.now(UTC)).total_seconds()) + 1)
        rotate(one, KEY, resume=True)
        _refresh(both, 60)
    for somebody in both:
        assert (set(somebody.called), set(somebody.refreshed)) == ({200}, {200}), (somebody.called, somebody.refreshed)
    assert (one.settings()[KEY] != old, one.settings()[f"{KEY}_PREVIOUS"]) == (True, "")
    assert rollouts(one, since) == 3
    assert planted([old, one.settings()[KEY]], printed(one)) == []
    calls = sum(somebody.called.total() for somebody in both)
    refreshes = sum(somebody.refreshed.total() for somebody in both)
    return f"{one.environment}: {calls} calls, {refreshes} refreshes, by token and by cookie, 0 failed"


def _refresh(people: Sequence[SignedIn], seconds: float) -> None:
    """Wait until each of `people` has refreshed with what is there now."""
    before = [one.refreshed.total() for one in people]
    wait_until(
        lambda: all(one.refreshed.total() > count + 1 for one, count in zip(people, before, strict=True)),
        "no refresh",
        seconds,
    )


def rotates_the_login(one: Checkout) -> None:
    """Rotate the database's password there and back: by two logins, of which one is always idle."""
    for _ in range(2):
        before, watched = one.settings(), Watched()
        with watched.watching():
            rotate(one, PASSWORD)
        after = one.settings()
        assert {before["POSTGRES_USER"], after["POSTGRES_USER"]} == {f"{NAME}-app-1", f"{NAME}-app-2"}
        assert before[PASSWORD] != after[PASSWORD]
        assert one.sql("SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity"
                       " WHERE application_name LIKE '%-backend'") == after["POSTGRES_USER"]  # fmt: skip
        assert one.sql(f"SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = '{before['POSTGRES_USER']}'") == "t"
        assert one.write_note(f"as {after['POSTGRES_USER']}")["text"] == f"as {after['POSTGRES_USER']}"
        assert one.run("doctor").code == 0
        assert planted([before[PASSWORD], after[PASSWORD]], printed(one), watched.lines) == []


def rotates_redis(one: Checkout) -> None:
    """Rotate Redis' password; no process, log or report shows one."""
    old, watched = one.settings()[REDIS], Watched()
    with watched.watching():
        rotate(one, REDIS)
    assert one.settings()[REDIS] != old
    assert planted([old, one.settings()[REDIS]], printed(one), watched.lines) == []


def rotates_what_others_manage(one: Checkout, urls: Mapping[str, str], dismiss: Callable[[], object]) -> None:
    """Rotate the logins to stores that others manage, by hand as nobody here may change them; then the token.

    `urls` have the new logins, which the stores accept beside the old ones until these are dismissed.
    """
    row = one.write_note("before the rotation")["id"]
    refused = one.run("rotate", PASSWORD)
    assert refused.code == 2, str(refused)
    assert "is managed by others" in refused.problems()[0]
    assert "DATABASE_URL: change it there, then deploy" in refused.problems()[0]
    one.set_env(**urls)
    one.proved()
    dismiss()
    checks = one.request("GET", "/ready").json()["checks"]
    assert {checks[name]["state"] for name in ("database", "schema", "redis")} == {"ok"}, checks
    assert one.request("GET", f"{NOTES}/{row}").status_code == 200
    rotates_the_token(one)


def skips_the_old_token(one: Checkout) -> None:
    """Change SERVICE_TOKEN without the one before beside it: the control of `rotates_the_token`."""
    fresh, last = secrets.token_urlsafe(36), secrets.token_urlsafe(36)
    one.set_env(SERVICE_TOKEN=fresh, SERVICE_TOKEN_PREVIOUS=one.settings()[TOKEN])
    beside = one.proved()
    one.set_env(SERVICE_TOKEN=last, SERVICE_TOKEN_PREVIOUS="")
    without = one.proved()
    warning = "running replicas refuse the new SERVICE_TOKEN"
    assert (warning in beside.stderr, warning in without.stderr) == (False, True)
    assert without.traffic["writes_acknowledged"] < beside.traffic["writes_acknowledged"]
    assert [writes(one, token) for token in (fresh, last)] == [401, 201]


def skips_a_rollout_of_the_key(one: Checkout) -> None:
    """Change JWT_SECRET_KEY in one rollout: the control of `rotates_the_key`. The sessions live on."""
    add(one, "carla")
    both = (SignedIn(one, "carla"), SignedIn(one, "carla", cookie=True))
    with both[0].calling(), both[1].calling():
        one.set_env(JWT_SECRET_KEY=secrets.token_urlsafe(48))
        one.proved()
        _refresh(both, 60)
    for somebody in both:
        assert somebody.called[401] > 0, somebody.called
        assert set(somebody.refreshed) == {200}, somebody.refreshed


def is_killed(one: Checkout, name: str, when: Callable[[Deploy], object], what: str) -> None:
    """Begin a rotation and kill it with `kill -9` once `when` is true."""
    run = one.start("rotate", name)
    try:
        run.wait_for(lambda: when(run), what)
    finally:  # else it would hold the lock of what is tested next
        if run.process.poll() is None:
            run.kill()
    assert run.process.returncode == -signal.SIGKILL
    assert unfinished(one)


def finish(one: Checkout, name: str) -> None:
    """Go on until the rotation is over, a person's part of it included."""
    for _ in range(3):
        if unfinished(one):
            rotate(one, name, resume=True)
    assert not unfinished(one)


def writes(one: Checkout, token: str) -> int:
    """Write a note with a `token`; return the status."""
    headers = {"Authorization": f"Bearer {token}"}
    return one.request("POST", NOTES, headers=headers, json={"text": "rotated", "tag": "a user's"}).status_code
