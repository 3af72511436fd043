"""`/api/v1/auth`: sign in, stay signed in, sign out, and the sessions of an account."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials

from backend.accounts.cookies import CookieNeedsHttps, ForeignOrigin
from backend.accounts.passwords import SignInBusy
from backend.accounts.schemas import Credentials, Me, Sessions, SignedIn, Token
from backend.accounts.service import AccountService, Granted, KeyUnset, SessionNotFound
from backend.accounts.tokens import Claims
from backend.auth import ACCOUNT_SCHEME, Callers, Forbidden, Unauthorized
from backend.database import DatabaseUnavailable
from backend.limits.login import LoginLimit
from backend.problems import BodyTooLarge, responses

__all__ = ["router"]

NO_CONTENT = 204
ANSWERED = (Unauthorized, DatabaseUnavailable)
SIGNING_IN = (*ANSWERED, ForeignOrigin, KeyUnset, BodyTooLarge)

router = APIRouter(prefix="/api/v1/auth", tags=["accounts"])


async def _accounts(request: Request) -> AccountService:
    service: AccountService = request.app.state.accounts
    return service


async def _callers(request: Request) -> Callers:
    callers: Callers = request.app.state.callers
    return callers


def _limit(request: Request) -> LoginLimit:
    limit: LoginLimit = request.app.state.login_limit
    return limit


AccountsHere = Annotated[AccountService, Depends(_accounts)]
CallersHere = Annotated[Callers, Depends(_callers)]


async def _claims(
    request: Request,
    callers: CallersHere,
    scheme: Annotated[HTTPAuthorizationCredentials | None, Security(ACCOUNT_SCHEME)],  # noqa: ARG001 - for OpenAPI
) -> Claims:
    caller = callers.find(request)
    if caller is None:
        raise Unauthorized
    if caller.account is None:
        raise Forbidden("SERVICE_TOKEN is not an account: send the access token of one.")
    return caller.account


async def _me(claims: Annotated[Claims, Depends(_claims)], accounts: AccountsHere) -> Me:
    """Return who calls, as the database has it: these routes do not wait for an access token to expire."""
    return await accounts.who(claims)


SignedInClaims = Annotated[Claims, Depends(_claims)]
SignedInMe = Annotated[Me, Depends(_me)]


@router.post("/login", response_model_exclude_none=True, responses=responses(*SIGNING_IN, CookieNeedsHttps, SignInBusy))
async def log_in(
    given: Credentials, request: Request, response: Response, accounts: AccountsHere, callers: CallersHere
) -> SignedIn:
    """Sign in with a name and a password: for tokens, or for cookies."""
    if given.cookie:
        callers.cookies.must_hold(request)
        # No cookie authenticates this, so tools may leave the headers out; another site must not choose the account.
        _must_be_ours(request, callers, unknown=True)
    await _limit(request).check_login(request, given.username)
    granted = await accounts.sign_in(given, user_agent=request.headers.get("user-agent", ""))
    return _signed_in(granted, callers, response if given.cookie else None)


@router.post("/refresh", response_model_exclude_none=True, responses=responses(*SIGNING_IN))
async def refresh(
    request: Request, response: Response, accounts: AccountsHere, callers: CallersHere, given: Token | None = None
) -> SignedIn:
    """Exchange a refresh token, from the body or else from its cookie, for the next one and an access token.

    A refused one leaves the cookies alone: another tab may have new ones since.
    """
    await _limit(request).check_refresh(request)
    if given is not None:
        return _signed_in(await accounts.refresh(given.refresh_token), callers, None)
    cookie = callers.cookies.refresh(request)
    if cookie is None:
        raise Unauthorized("There is no refresh token, neither in the body nor in a cookie.")
    _must_be_ours(request, callers)
    return _signed_in(await accounts.refresh(cookie), callers, response)


@router.post("/logout", status_code=NO_CONTENT, responses=responses(*ANSWERED, ForeignOrigin, BodyTooLarge))
async def log_out(
    request: Request, response: Response, accounts: AccountsHere, callers: CallersHere, given: Token | None = None
) -> None:
    """End the session of the refresh token, from the body or else from its cookie, and of the access token.

    The refresh token gets nothing from then on; the access token is accepted until it expires.
    """
    if given is not None:
        await accounts.sign_out(given.refresh_token, None)
    elif request.headers.get("authorization") is not None:
        caller = callers.find(request)
        if caller is None or caller.account is None:
            raise Unauthorized
        await accounts.sign_out(None, caller.account.session)
    else:
        cookie, access = callers.cookies.refresh(request), callers.cookies.access(request)
        if cookie is None and access is None:
            raise Unauthorized
        _must_be_ours(request, callers)
        claims = callers.tokens.read(access) if access else None
        await accounts.sign_out(cookie, claims.session if claims else None)
        callers.cookies.clear(response)


@router.get("/me", responses=responses(*ANSWERED, Forbidden))
async def read_me(me: SignedInMe) -> Me:
    """Return who is signed in."""
    return me


@router.get("/sessions", responses=responses(*ANSWERED, Forbidden), dependencies=[Depends(_me)])
async def list_sessions(claims: SignedInClaims, accounts: AccountsHere) -> Sessions:
    """List where the account is signed in."""
    return await accounts.sessions(claims)


@router.delete(
    "/sessions", status_code=NO_CONTENT, responses=responses(*ANSWERED, Forbidden), dependencies=[Depends(_me)]
)
async def end_other_sessions(claims: SignedInClaims, accounts: AccountsHere) -> None:
    """End all sessions of the account but this one."""
    await accounts.end_others(claims)


@router.delete(
    "/sessions/{session_id}",
    status_code=NO_CONTENT,
    responses=responses(*ANSWERED, Forbidden, SessionNotFound),
    dependencies=[Depends(_me)],
)
async def end_session(session_id: UUID, claims: SignedInClaims, accounts: AccountsHere) -> None:
    """End one session of the account."""
    await accounts.end(claims, session_id)


def _must_be_ours(request: Request, callers: Callers, *, unknown: bool = False) -> None:
    """Raise `ForeignOrigin` where `request` does not come from our own page; `unknown`: nor says where from."""
    if not callers.origins.has(request.headers, unknown=unknown):
        raise ForeignOrigin


def _signed_in(granted: Granted, callers: Callers, response: Response | None) -> SignedIn:
    """Return the answer to a sign-in or a refresh: with the tokens, or with cookies on `response`."""
    if response is None:
        return SignedIn(
            account=granted.account,
            expires_in=granted.seconds,
            access_token=granted.access,
            refresh_token=granted.refresh,
        )
    callers.cookies.set(response, access=granted.access, seconds=granted.seconds, refresh=granted.refresh)
    return SignedIn(account=granted.account, expires_in=granted.seconds)
