"""What `nox -s logs` shows, the same on every target."""

from __future__ import annotations

import json
import signal
from itertools import count

from tests.deploy.checkout import Checkout

__all__ = ["shows_the_logs"]

ME = "/api/v1/auth/me"  # nobody is signed in, so it answers 401, which is logged


def shows_the_logs(one: Checkout) -> None:
    """A request is found by its id, wherever it was answered; whoever follows sees what comes, until Ctrl-C."""
    answer = one.request("GET", ME)
    ident = answer.headers["x-request-id"]
    found = one.run("logs", "--request", ident, "--json")
    assert found.code == 0, str(found)
    [record] = map(json.loads, found.stdout.splitlines())
    names = {replica["name"] for replica in one.status()["replicas"]}
    assert (record["path"], record["status"], record["release"]) == (ME, 401, answer.headers["x-release"])
    assert record["replica"] in names
    [line] = one.run("logs", "--request", ident).stdout.splitlines()
    assert f"  GET {ME} 401  " in line
    seen = [json.loads(each) for each in one.run("logs", "--release", record["release"], "--json").stdout.splitlines()]
    assert {each["release"] for each in seen} == {record["release"]}
    assert {each["replica"] for each in seen} == names
    times = [each["timestamp"] for each in seen]
    assert times == sorted(times)

    numbers = count()
    following = one.start("logs", "--follow", "--json")

    def follows() -> bool:
        one.request("GET", ME, headers={"X-Request-ID": f"followed-{next(numbers)}"})
        return b"followed-" in following.files[0].read_bytes()

    following.wait_for(follows, "line of a request that was sent meanwhile", 30)
    following.send(signal.SIGINT)
    assert following.finish().code == 130
