"""The requests and responses of `/api/v1/auth`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["NAME", "Account", "Credentials", "Me", "Role", "Session", "Sessions", "SignedIn", "Token"]

NAME = r"^[a-z0-9][a-z0-9._@-]{0,63}$"
PASSWORD_CHARACTERS = 1024  # more is no password: the hash reads all of it
TOKEN_CHARACTERS = 128


class Role(StrEnum):
    """What an account may do: a viewer reads, a deployer and an admin also write."""

    VIEWER = "viewer"
    DEPLOYER = "deployer"
    ADMIN = "admin"


class Credentials(BaseModel):
    """A name and a password. `cookie`: answer with cookies, for a page, instead of with tokens."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    username: Annotated[str, Field(pattern=NAME, examples=["anna"])]
    password: Annotated[str, Field(min_length=1, max_length=PASSWORD_CHARACTERS)]
    cookie: bool = False


class Token(BaseModel):
    """A refresh token. A page leaves it out: its cookie has one."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    refresh_token: Annotated[str, Field(min_length=1, max_length=TOKEN_CHARACTERS)]


class Account(BaseModel):
    """An account, as others see it."""

    name: str
    role: Role


class SignedIn(BaseModel):
    """An account that is signed in. Where the tokens are cookies, they are not here.

    `expires_in`: the seconds for which the access token is accepted.
    """

    account: Account
    expires_in: int
    token_type: str = "Bearer"  # noqa: S105 - RFC 6749 5.1
    access_token: str | None = None
    refresh_token: str | None = None


class Me(Account):
    """The account that calls, and the id of its session."""

    session: UUID


class Session(BaseModel):
    """A sign-in that has not ended. `current`: it is the caller's."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    current: bool


class Sessions(BaseModel):
    """The sessions of an account, at most 100, the last used first."""

    items: list[Session]
