"""The kubectl command line: always with the environment's own context and namespace, objects through standard input."""

from __future__ import annotations

import base64
import json
import logging
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.errors import SlipwayError, UsageError
from pipeline.system.run import CommandFailed, run
from pipeline.system.text import shorten

__all__ = ["FIELD_MANAGER", "Kubectl", "Object", "Refused", "Token", "Unreachable", "describe", "name_of", "read_token"]

log = logging.getLogger(__name__)

Object = dict[str, Any]

FIELD_MANAGER = "slipway"
OLDEST_SERVER = (1, 35)
ASK_SECONDS = 20
AWAY_SECONDS = 60  # a control plane that restarts takes half of that
# Faults of the API server, its load balancer or etcd, not of the request: the same call may succeed in a second.
NO_NAMESPACE = re.compile(r'namespaces "([^"]+)" not found')
AWAY = re.compile(
    r"was refused|connection refused|i/o timeout|no route to host|TLS handshake timeout|\bEOF\b|connection reset"
    r"|no such host|deadline exceeded|currently unable to handle|etcdserver|Client\.Timeout|http2: "
    # It listens but is not ready yet: it knows neither its own API nor any account.
    r"|apiserver not ready|error validating data: unknown;|error: You must be logged in",
    re.IGNORECASE,
)
SOON = timedelta(days=14)
NOISE = ("Warning:", "Flag --", "I0", "E0", "W0")


class Unreachable(SlipwayError):
    """The API server did not answer."""


class Refused(SlipwayError):
    """The API server answered with an error. `said` is the whole answer."""

    def __init__(self, problem: str, said: str) -> None:
        super().__init__(problem)
        self.said = said


@dataclass(frozen=True)
class Token:
    """The life of a bearer token: its `begin`, if it says that, and its `end`."""

    begin: datetime | None
    end: datetime

    @property
    def late(self) -> datetime:
        """From when on the end is near: the last two weeks, of a token of hours its last sixth."""
        life = self.end - self.begin if self.begin else SOON * 6
        return self.end - min(SOON, life / 6)

    def __str__(self) -> str:
        return f"on {self.end:%Y-%m-%d} at {self.end:%H:%M} UTC"


@dataclass(frozen=True)
class Kubectl:
    """kubectl in a context and a namespace. Each command that changes something is logged."""

    context: str
    namespace: str

    def command(self, *arguments: str) -> list[str]:
        """Return the whole command line."""
        return ["kubectl", f"--context={self.context}", f"--namespace={self.namespace}", *arguments]

    def ask(self, *arguments: str, given: str | None = None, timeout: float = ASK_SECONDS) -> str:
        """Return the output of a command, without printing the command. Raise `Unreachable` or `Refused`."""
        command = self.command(f"--request-timeout={timeout:.0f}s", *arguments)
        try:
            done = subprocess.run(
                command, input=given or "", capture_output=True, text=True, check=False, timeout=timeout + 5
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(
                f"the cluster of context `{self.context}` did not answer within {timeout:.0f} s"
            ) from None
        if done.returncode:
            raise self._error(arguments, done.stderr)
        return done.stdout

    def do(self, *arguments: str, given: str | None = None, timeout: float = ASK_SECONDS) -> str:
        """Run a command that changes something, and print it. Raise `Unreachable` or `Refused`."""
        command = self.command(f"--request-timeout={timeout:.0f}s", *arguments)
        try:
            return run(command, timeout=timeout + 5, given=given)
        except CommandFailed as error:
            raise self._error(arguments, error.output) from error

    def get(self, *arguments: str, timeout: float = ASK_SECONDS) -> list[Object]:
        """Return the objects that `kubectl get` with `arguments` finds, which may be none."""
        return self.items(self.ask("get", "--ignore-not-found", "--output=json", *arguments, timeout=timeout))

    @staticmethod
    def items(said: str) -> list[Object]:
        """Return the objects in kubectl's JSON: a single one, or those of a list."""
        if not said.strip():
            return []
        content: Object = json.loads(said)
        return list(content["items"]) if content.get("kind", "").endswith("List") else [content]

    def apply(self, objects: Iterable[Object], *, dry_run: bool = False, force: bool = True) -> list[Object]:
        """Apply `objects` server-side; return them as the API server then has them, or with `dry_run` would have them.

        `force` takes back fields that somebody else set; without it, they are an error.
        """
        options = ["apply", "--server-side", f"--field-manager={FIELD_MANAGER}", "--filename=-", "--output=json"]
        options += ["--dry-run=server"] if dry_run else []
        options += ["--force-conflicts"] if force else []
        given = as_list(objects)
        if not dry_run:
            names = ", ".join(describe(item) for item in json.loads(given)["items"])
            log.info(f"$ {shlex.join(self.command(*options[:-1]))}  # {names}")
        return self.items(self._patiently(*options, given=given))

    def _patiently(self, *arguments: str, given: str) -> str:
        """Return the output of an apply, waiting for an API server that is away for a moment."""
        # An apply may be repeated.
        deadline, announced = time.monotonic() + AWAY_SECONDS, False
        while True:
            try:
                return self.ask(*arguments, given=given, timeout=60)
            except Unreachable as away:
                if time.monotonic() > deadline:
                    raise
                if not announced:
                    log.info(f"{away.problems[0]}; waiting for it")
                announced = True
                time.sleep(1)

    def server_problem(self) -> str | None:
        """Return what is wrong with kubectl, its context or the cluster, with its fix; None where all is well."""
        if shutil.which("kubectl") is None:
            return "kubectl: not installed (or not on the PATH): https://kubernetes.io/docs/tasks/tools"
        contexts = subprocess.run(
            ["kubectl", "config", "get-contexts", "--output=name"], capture_output=True, text=True, check=False
        )
        if self.context not in contexts.stdout.split():
            known = ", ".join(f"`{name}`" for name in contexts.stdout.split()) or "none"
            fix = (
                "`nox -s cluster` makes it"
                if self.context.startswith("kind-")
                else "get its kubeconfig, or fix `context`"
            )
            return f"context `{self.context}` is not in your kubeconfig ({known} there): {fix}"
        try:
            version: Object = json.loads(self.ask("version", "--output=json", timeout=10))["serverVersion"]
        except SlipwayError as error:
            # A token that is over gets the same answer as an API server that is not ready.
            return self.token_problem(ahead=False) or f"{error.problems[0]}: is the cluster up, and may you use it?"
        server = (int(version["major"]), int(re.sub(r"\D.*", "", version["minor"])))
        if server < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            return f"Kubernetes {version['gitVersion']} is too old, {oldest} is needed: update it"
        return None

    def token(self) -> Token | None:
        """Return when the bearer token of the context ends; None if it has no token, or one that does not say it."""
        try:
            view: Object = json.loads(self.ask("config", "view", "--raw", "--minify", "--output=json"))
        except SlipwayError:  # no such context
            return None
        tokens = [read_token((user.get("user") or {}).get("token", "")) for user in view.get("users") or ()]
        return next((token for token in tokens if token), None)

    def token_problem(self, now: datetime | None = None, *, ahead: bool = True) -> str | None:
        """Ask for the token of the context, and judge it: see `judge`."""
        return self.judge(self.token(), now, ahead=ahead)

    def judge(self, token: Token | None, now: datetime | None = None, *, ahead: bool = True) -> str | None:
        """Return what is wrong with `token`: it ended, or (if `ahead`) ends soon; otherwise None."""
        now = now or datetime.now(UTC)
        if token is None or now < (token.late if ahead else token.end):
            return None
        verb = "ended" if token.end <= now else "ends"
        return f"the token of context `{self.context}` {verb} {token}: make another one: docs/8-github.md, Day 91"

    def _error(self, arguments: tuple[str, ...], said: str) -> SlipwayError:
        lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(NOISE)]
        best = next((line for line in reversed(lines) if "error" in line.lower() or "forbidden" in line.lower()), "")
        best = (best or (lines or ["it said nothing"])[-1]).removeprefix("error: ").removeprefix("Error from server ")
        if AWAY.search(said):
            return Unreachable(f"the cluster of context `{self.context}` cannot be reached: {shorten(best)}")
        if missing := NO_NAMESPACE.search(said):
            make = "an administrator makes it: `kubectl apply -k k8s/bootstrap/ENV` (docs/7-kubernetes.md)"
            return UsageError(f"context `{self.context}` has no namespace {missing[1]}: {make}")
        verb = next((word for word in arguments if not word.startswith("-")), "")
        return Refused(f"kubectl {verb}: {shorten(best)}", said)


def read_token(text: str) -> Token | None:
    """Return what a JSON Web Token says of its life (RFC 7519); None for another token, or one without an end."""
    try:
        part = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(f"{part}{'=' * (-len(part) % 4)}"))
        end = datetime.fromtimestamp(claims["exp"], UTC)
        return Token(datetime.fromtimestamp(claims["iat"], UTC) if "iat" in claims else None, end)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def as_list(objects: Iterable[Object]) -> str:
    """Return `objects` as kubectl takes them on standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def name_of(one: Object) -> str:
    """Return an object's name."""
    return str(one["metadata"]["name"])


def describe(one: Object) -> str:
    """Return an object's kind and name: `Deployment backend`."""
    return f"{one['kind']} {name_of(one)}"
