"""The rules of signing in, staying signed in, and ending that."""

from __future__ import annotations

import os
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog

from backend.accounts import repository
from backend.accounts.passwords import Passwords
from backend.accounts.refresh import RefreshToken
from backend.accounts.schemas import Account, Credentials, Me, Role, Session, Sessions
from backend.accounts.tokens import AccessTokens, Claims
from backend.auth import Unauthorized
from backend.database import Database
from backend.identifiers import uuid7
from backend.problems import Problem

__all__ = ["AccountService", "Granted", "KeyUnset", "SessionNotFound"]

SEED_BYTES = 32
USER_AGENT_CHARACTERS = 200


class KeyUnset(Problem):
    """The service has no JWT_SECRET_KEY, so nobody can sign in."""

    status = 503
    kind = "urn:problem-type:jwt-secret-key-unset"

    def __init__(self) -> None:
        super().__init__("This service was started without JWT_SECRET_KEY, so nobody can sign in; set it and restart.")


class SessionNotFound(Problem):
    """The account has no session with this id."""

    status = 404

    def __init__(self) -> None:
        super().__init__("The account has no session with this id.")


@dataclass(frozen=True, slots=True)
class Granted:
    """What a sign-in or a refresh gives: an access token for so many `seconds`, and the next refresh token."""

    account: Account
    access: str
    seconds: int
    refresh: str


class AccountService:
    """Accounts and their sessions in PostgreSQL. A session ends `days` after its last refresh."""

    def __init__(self, database: Database, tokens: AccessTokens, *, days: int) -> None:
        self._database = database
        self._tokens = tokens
        self._days = days
        self._passwords = Passwords()
        self._log = structlog.get_logger("accounts")

    def close(self) -> None:
        """End the threads that check passwords."""
        self._passwords.close()

    async def sign_in(self, given: Credentials, *, user_agent: str) -> Granted:
        """Begin a session. Raise `Unauthorized` for wrong credentials, `SignInBusy` and `KeyUnset`.

        An unknown name, a disabled account and a wrong password get the same answer after the same work.
        """
        self._must_sign()
        # A second time, because another sign-in may have changed the hash meanwhile: to the parameters of today.
        for _ in range(2):
            token = RefreshToken.new()
            session = await self._begin(given, token, user_agent)
            if session is not None:
                self._log.info("signed in", account=session["name"], session=str(session["session"]))
                return self._granted(session, token)
        raise _refused()

    async def _begin(self, given: Credentials, token: RefreshToken, user_agent: str) -> asyncpg.Record | None:
        """Check the password and begin a session; None where the account changed in between."""
        async with self._database.lease() as connection:
            row = await repository.find(connection, given.username)
        # Without a connection, as it takes its time.
        keep = await self._passwords.check(given.password, row["password_hash"] if row else None)
        if row is None or keep is None or row["disabled_at"] is not None:
            raise _refused()
        async with self._database.lease() as connection:
            session = await repository.sign_in(
                connection, row["id"], checked=row["password_hash"], keep=keep, session=uuid7(), token=token,
                seed=os.urandom(SEED_BYTES), user_agent=_printable(user_agent), days=self._days,
            )  # fmt: skip
            await repository.age(connection)
        return session

    async def refresh(self, given: str) -> Granted:
        """Exchange a refresh token for its successor. Raise `Unauthorized` where it is not valid, and `KeyUnset`.

        One that was used before ends its session, unless that was in the last ten seconds: tabs of one browser refresh
        at the same moment, and each of them gets the same successor.
        """
        self._must_sign()
        token, row = RefreshToken.read(given), None
        if token is not None:
            async with self._database.lease() as connection:
                row = await repository.rotate(connection, token, days=self._days)
        if row is not None and not row["alive"]:
            self._log.warning(
                "session ended: its refresh token was used twice", account=row["name"], session=str(row["session"])
            )
        if token is None or row is None or not row["alive"]:
            raise Unauthorized("The session has ended: sign in again.")
        return self._granted(row, RefreshToken(token.family, row["successor"]))

    async def sign_out(self, given: str | None, session: UUID | None) -> None:
        """End the session of the refresh token that was `given`, and the `session` of an access token."""
        token = RefreshToken.read(given) if given else None
        if token or session:
            async with self._database.lease() as connection:
                await repository.sign_out(connection, token, session)

    async def who(self, claims: Claims) -> Me:
        """Return the account of a valid access token. Raise `Unauthorized` where it or its session has ended since."""
        async with self._database.lease() as connection:
            row = await repository.who(connection, claims.session, claims.account)
        if row is None:
            raise Unauthorized("The session has ended: sign in again.")
        return Me(**row)

    async def sessions(self, claims: Claims) -> Sessions:
        """Return the sessions of the account, at most 100."""
        async with self._database.lease() as connection:
            rows = await repository.sessions(connection, claims.account)
        return Sessions(items=[Session(**row, current=row["id"] == claims.session) for row in rows])

    async def end(self, claims: Claims, session: UUID) -> None:
        """End one session of the account. Raise `SessionNotFound` where it has none with this id."""
        async with self._database.lease() as connection:
            if not await repository.end(connection, claims.account, session):
                raise SessionNotFound

    async def end_others(self, claims: Claims) -> None:
        """End all sessions of the account but the one of the caller."""
        async with self._database.lease() as connection:
            await repository.end_others(connection, claims.account, claims.session)

    def _must_sign(self) -> None:
        if not self._tokens.can_sign:
            raise KeyUnset

    def _granted(self, row: asyncpg.Record, token: RefreshToken) -> Granted:
        name, role = row["name"], Role(row["role"])
        access = self._tokens.sign(row["account"], row["session"], name=name, role=role)
        return Granted(Account(name=name, role=role), access, self._tokens.seconds, str(token))


def _refused() -> Unauthorized:
    return Unauthorized("The name or the password is wrong, or the account is disabled.")


def _printable(user_agent: str) -> str:
    return "".join(character for character in user_agent if character.isprintable())[:USER_AGENT_CHARACTERS]
