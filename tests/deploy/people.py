"""Accounts of people, as whoever runs a service makes and ends them, on any target."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from contextlib import AbstractContextManager

import httpx2

from tests.deploy.checkout import Checkout
from tests.deploy.runs import Outcome
from tests.deploy.threads import running

__all__ = ["AUTH", "PASSWORD", "SignedIn", "add", "comes_and_goes", "signs_in", "user"]

AUTH = "/api/v1/auth"
PAUSE_SECONDS, CALLS = 0.05, 50  # with one access token, before the next refresh: an address may refresh twice a second
OWN = {"Sec-Fetch-Site": "same-origin"}  # as a browser says of what our page sends
PASSWORD, OTHER = "correct horse battery", "another horse battery"


def user(one: Checkout, *words: str, password: str = "") -> Outcome:
    """Run `nox -s user` with a `password` on its standard input."""
    with tempfile.NamedTemporaryFile("w") as given:
        given.write(f"{password}\n")
        given.flush()
        command = [sys.executable, "-m", "pipeline", "user", *words, "--env", one.environment]
        return one.start_program(["sh", "-c", 'exec "$@" < "$0"', given.name, *command]).finish()


def signs_in(one: Checkout, name: str, password: str = PASSWORD) -> int:
    """Sign in through the edge; return the status."""
    given = {"username": name, "password": password}
    return one.request("POST", f"{AUTH}/login", json=given).status_code


def comes_and_goes(one: Checkout) -> None:
    """Give somebody an account, a new password, and no way in; no output shows a password or a hash."""
    done = [user(one, "add", "anna", "--role", "deployer", password=PASSWORD)]
    assert done[0].code == 0, str(done[0])
    assert signs_in(one, "anna") == httpx2.codes.OK
    assert signs_in(one, "anna", OTHER) == httpx2.codes.UNAUTHORIZED
    taken = user(one, "add", "anna", "--role", "admin", password=PASSWORD)
    assert taken.code == 1, str(taken)
    assert len(taken.problems()) == 1, str(taken)
    [listed] = user(one, "list", "--json").report["accounts"]
    assert (listed["name"], listed["role"], listed["disabled"]) == ("anna", "deployer", False)
    done.append(user(one, "password", "anna", password=OTHER))
    assert [signs_in(one, "anna", each) for each in (PASSWORD, OTHER)] == [401, 200]
    done.append(user(one, "disable", "anna"))
    assert signs_in(one, "anna", OTHER) == httpx2.codes.UNAUTHORIZED
    done.append(user(one, "enable", "anna"))
    assert signs_in(one, "anna", OTHER) == httpx2.codes.OK
    done.append(user(one, "remove", "anna"))
    assert user(one, "list", "--json").report["accounts"] == []
    assert [each.code for each in done] == [0] * 5
    said = "".join(each.stdout + each.stderr for each in (*done, taken))
    assert not [secret for secret in (PASSWORD, OTHER, "argon2") if secret in said]


def add(one: Checkout, name: str) -> None:
    """Give somebody an account, with `PASSWORD`."""
    done = user(one, "add", name, password=PASSWORD)
    assert done.code == 0, str(done)


class SignedIn:
    """Somebody who is signed in, and what became of the requests: calls, each over a new connection, and refreshes.

    With a `cookie` that is the page in a browser, otherwise a client with tokens.
    """

    def __init__(self, one: Checkout, name: str, *, cookie: bool = False) -> None:
        self.called: Counter[int] = Counter()
        self.refreshed: Counter[int] = Counter()
        self._one, self._over, self._cookie = one, threading.Event(), cookie
        given = {"username": name, "password": PASSWORD, "cookie": cookie}
        self._take(one.request("POST", f"{AUTH}/login", json=given).raise_for_status())

    def calling(self) -> AbstractContextManager[None]:
        """Call, and refresh now and then, while the block runs."""
        return running(self._call, self._over)

    def _call(self) -> None:
        while not self._over.is_set():
            for _ in range(CALLS):
                self.called[self._one.request("GET", f"{AUTH}/me", headers=self._headers).status_code] += 1
                self._over.wait(PAUSE_SECONDS)
            answer = self._one.request("POST", f"{AUTH}/refresh", headers=self._headers, json=self._body)
            self.refreshed[answer.status_code] += 1
            if answer.status_code == httpx2.codes.OK:
                self._take(answer)

    def _take(self, answer: httpx2.Response) -> None:
        """Keep what signs the next requests."""
        self._body: dict[str, str] | None = None
        if self._cookie:
            assert len(answer.cookies) == 2, answer.headers
            assert "access_token" not in answer.json()
            pairs = "; ".join(f"{name}={value}" for name, value in answer.cookies.items())
            self._headers = {**OWN, "Cookie": pairs}
            return
        given = answer.json()
        self._headers = {"Authorization": f"Bearer {given['access_token']}"}
        self._body = {"refresh_token": given["refresh_token"]}
