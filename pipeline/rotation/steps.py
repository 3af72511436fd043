"""How each secret rotates: what is written where it comes from, what is rolled out, and what is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.config.sources import ROLE

__all__ = [
    "FRESH",
    "LOGIN",
    "ROTATIONS",
    "UNSET",
    "EndLogin",
    "Login",
    "Pause",
    "Ship",
    "Step",
    "Superuser",
    "Wait",
    "Write",
]

FRESH, LOGIN, UNSET = "a new value", "the other login", ""
KEY, TOKEN = "JWT_SECRET_KEY", "SERVICE_TOKEN"
OLD_KEY, OLD_TOKEN = f"{KEY}_PREVIOUS", f"{TOKEN}_PREVIOUS"
PASSWORD, OWNER_PASSWORD = "POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD"


@dataclass(frozen=True)
class Write:
    """Change secrets where they come from.

    `wants`: what each gets: `FRESH`, `LOGIN`, `UNSET`, or the name of the secret whose value it had before this step.
    """

    wants: Mapping[str, str]
    label: str = "write"


@dataclass(frozen=True)
class Login:
    """Let a role log in to the database with its password of now: the service's, or the `owner` of the tables."""

    owner: bool = False
    label: str = "log in"


@dataclass(frozen=True)
class EndLogin:
    """Let nobody log in any more with the password of before."""

    label: str = "end old"


@dataclass(frozen=True)
class Ship:
    """Roll out the release that serves, with the secrets of now, and prove it under traffic."""

    label: str = "roll out"


@dataclass(frozen=True)
class Pause:
    """Stop until a person has done what `ask` says."""

    ask: str
    label: str = "pause"


@dataclass(frozen=True)
class Wait:
    """Stop until each token that was signed with the old key is over."""

    label: str = "wait"


@dataclass(frozen=True)
class Superuser:
    """Give the database's superuser, whom no replica uses, a new password."""

    label: str = "superuser"


Step = Write | Login | EndLogin | Superuser | Ship | Pause | Wait

# A replica refuses what it does not know. So each knows the new key before the first one signs with it, and the old
# one for as long as a token of it is valid.
ROTATIONS: dict[str, tuple[Step, ...]] = {
    KEY: (
        *(Write({OLD_KEY: FRESH}), Ship()),
        *(Write({KEY: OLD_KEY, OLD_KEY: KEY}), Ship(), Wait()),
        *(Write({OLD_KEY: UNSET}), Ship()),
    ),
    TOKEN: (
        *(Write({TOKEN: FRESH, OLD_TOKEN: TOKEN}), Ship()),
        Pause(f"give the new {TOKEN} to whoever calls the service (pipelines, RELEASE_BOARD_TOKEN of other services)"),
        *(Write({OLD_TOKEN: UNSET}), Ship()),
    ),
    "REDIS_PASSWORD": (Write({"REDIS_PASSWORD": FRESH}), Ship()),
    # By the other of two logins, so that the replicas of before can log in until the last one is gone.
    PASSWORD: (Write({ROLE: LOGIN, PASSWORD: FRESH}), Login(), Ship(), EndLogin()),
    # Only migrations use it, and a deploy runs them: it is in the way of nobody.
    OWNER_PASSWORD: (Write({OWNER_PASSWORD: FRESH}), Login(owner=True), Ship()),
    SUPERUSER_PASSWORD: (Superuser(),),
}
