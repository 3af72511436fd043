"""The kubectl command line: which errors may heal, and which are the user's."""

from __future__ import annotations

import base64
import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.kubectl import Kubectl, Refused, Unreachable, read_token
from pipeline.errors import UsageError

# What kubectl 1.37 printed.
AWAY = (
    "The connection to the server 127.0.0.1:38513 was refused - did you specify the right host or port?",
    "Unable to connect to the server: net/http: TLS handshake timeout",
    'E1124 16:41:57 memcache.go:265] couldn\'t get current server API group list: Get "https://127.0.0.1:1/api": EOF',
    "Error from server: etcdserver: request timed out",
    'error: error validating "STDIN": error validating data: unknown; if you choose to ignore these errors, …',
    "error: You must be logged in to the server (Unauthorized)",
)
FORBIDDEN = (
    'Error from server (Forbidden): pods is forbidden: User "system:serviceaccount:slipway:deployer" cannot list'
    ' resource "pods" in API group "" in the namespace "other"'
)


def kubectl(folder: Path, said: str, code: int) -> Kubectl:
    """A kubectl that says SAID on standard error and ends with CODE: the cluster is the outside world here."""
    path = folder / "kubectl"
    path.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Kubectl("kind-slipway", "slipway")


class TestAsk:
    @pytest.mark.parametrize("said", AWAY)
    def test_knows_an_api_server_that_is_away(self, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same call may succeed in a second."""
        one = kubectl(tmp_path, said, 1)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(Unreachable, match="cannot be reached"):
            one.ask("get", "pods")

    def test_gives_the_reason_of_a_refusal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Waiting does not help: the line says why."""
        one = kubectl(tmp_path, FORBIDDEN, 1)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(Refused, match=r"kubectl get: .*deployer.* cannot list") as caught:
            one.ask("get", "pods")
        assert caught.value.said.strip() == FORBIDDEN

    def test_names_a_namespace_that_nobody_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever may make it, and how; nothing else of the deploy could work."""
        said = 'Error from server (NotFound): error when creating "STDIN": namespaces "shop" not found'
        one = kubectl(tmp_path, said, 1)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(UsageError, match="has no namespace shop: an administrator makes it: `kubectl apply -k"):
            one.ask("create", "--filename=-")

    def test_keeps_the_end_of_a_long_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """There is the cause."""
        one = kubectl(tmp_path, f"Error from server: failed to do {'x' * 400}: proxyconnect tcp: refused", 1)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(Refused, match=r"failed to do x+ … x+: proxyconnect tcp: refused$"):
            one.ask("get", "pods")


class TestCommand:
    def test_names_context_and_namespace_always(self) -> None:
        """Whatever the user's current context is."""
        command = Kubectl("production", "shop").command("get", "pods")
        assert command == ["kubectl", "--context=production", "--namespace=shop", "get", "pods"]


class TestItems:
    @pytest.mark.parametrize(
        ("said", "count"), [("", 0), ('{"kind": "Pod"}', 1), ('{"kind": "PodList", "items": []}', 0)]
    )
    def test_are_a_list_whatever_kubectl_says(self, said: str, count: int) -> None:
        """Nothing, one object, a list of them."""
        assert len(Kubectl.items(said)) == count


NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
QUARTER = timedelta(days=90)


def jwt(claims: object) -> str:
    """Return a token with `claims`, whose signature nobody here checks."""
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in ({"alg": "x"}, claims)]
    return ".".join([*parts, "c2lnbmF0dXJl"])


def of(life: timedelta, left: timedelta, now: datetime = NOW) -> str:
    """Return the token of a service account that is good for `life`, of which something is `left`."""
    end = int((now + left).timestamp())
    return jwt({"iat": end - int(life.total_seconds()), "exp": end, "sub": "system:serviceaccount:shop:deployer"})


@pytest.fixture(name="use")
def _use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a kubeconfig of two contexts, one of whose users has the token given."""

    def use(user: dict[str, Any]) -> Kubectl:
        users = {"mine": user, "other": {"token": of(QUARTER, timedelta(days=-1))}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": name, "user": each} for name, each in users.items()],
            "contexts": [{"name": name, "context": {"cluster": "here", "user": name}} for name in users],
            "current-context": "other",
        }
        (tmp_path / "config").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        return Kubectl("mine", "shop")

    return use


@pytest.mark.needs("kubectl")
class TestTokenProblem:
    @pytest.mark.parametrize("left", [90, 15])
    def test_is_none_while_there_is_time(self, use: Any, left: int) -> None:
        """Two weeks are enough to make another one by day; of the other context's, which is over, nothing is said."""
        one = use({"token": of(QUARTER, timedelta(days=left))})
        assert one.token_problem(NOW) is None
        assert one.token().end == NOW + timedelta(days=left)

    def test_names_the_day_two_weeks_ahead(self, use: Any) -> None:
        """And where it stands what to do."""
        one = use({"token": of(QUARTER, timedelta(days=14))})
        assert one.token_problem(NOW) == (
            "the token of context `mine` ends on 2027-03-15 at 12:00 UTC: make another one: docs/8-github.md, Day 91"
        )
        assert one.token_problem(NOW, ahead=False) is None

    def test_names_a_day_that_is_past(self, use: Any) -> None:
        """However little is left of the rest."""
        one = use({"token": of(QUARTER, timedelta(days=-1))})
        for ahead in (True, False):
            said = one.token_problem(NOW, ahead=ahead)
            assert said.startswith("the token of context `mine` ended on 2027-02-28 at 12:00 UTC: make another one")

    @pytest.mark.parametrize(("minutes", "near"), [(470, False), (90, False), (70, True)])
    def test_leaves_a_token_of_hours_alone_until_its_last_sixth(self, use: Any, minutes: int, *, near: bool) -> None:
        """A short life is meant: it is no news every day."""
        one = use({"token": of(timedelta(hours=8), timedelta(minutes=minutes))})
        assert bool(one.token_problem(NOW)) is near

    @pytest.mark.parametrize(
        "user",
        [
            {},
            {"token": "an-opaque-one"},
            {"token": "a.b.c"},
            {"token": jwt({"sub": "x"})},
            {"token": jwt(["exp"])},
            {"token": jwt({"exp": "soon"})},
            {"token": jwt({"exp": 1e300})},
            {"client-certificate-data": "eA==", "client-key-data": "eA=="},
            {
                "exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": "no-such",
                    "interactiveMode": "Never",
                }
            },
        ],
        ids=",".join,
    )
    def test_is_none_where_no_token_says_its_end(self, use: Any, user: dict[str, Any]) -> None:
        """A certificate, a plugin that makes a token for each call, a token without a date."""
        assert use(user).token_problem(NOW) is None

    def test_is_none_without_the_context(self, use: Any) -> None:
        """Which has a line of its own."""
        use({})
        assert Kubectl("nowhere", "shop").token_problem(NOW) is None


@pytest.mark.needs("kubectl")
class TestServerProblem:
    def test_names_a_token_that_is_over(self, use: Any) -> None:
        """A server that does not know us any more says no more than one that is away."""
        said = use({"token": of(QUARTER, -timedelta(days=1), datetime.now(UTC))}).server_problem()
        assert said.startswith("the token of context `mine` ended on ")

    def test_says_nothing_of_a_token_that_is_good(self, use: Any) -> None:
        """Also in its last days: the cluster is away then."""
        said = use({"token": of(QUARTER, timedelta(days=1), datetime.now(UTC))}).server_problem()
        assert said.startswith("the cluster of context `mine` cannot be reached")
        assert said.endswith("is the cluster up, and may you use it?")


def test_a_token_without_a_beginning_is_judged_by_its_end() -> None:
    """By two weeks."""
    token = read_token(jwt({"exp": NOW.timestamp()}))
    assert token is not None
    assert token.late == NOW - timedelta(days=14)
