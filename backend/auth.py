"""Who calls: a pipeline with SERVICE_TOKEN, an account that is signed in, or anybody."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.accounts.cookies import Cookies, ForeignOrigin, OwnOrigins
from backend.accounts.schemas import Role
from backend.accounts.tokens import AccessTokens, Claims
from backend.problems import Problem
from backend.settings import Settings

__all__ = [
    "ACCOUNT_SCHEME",
    "SERVICE_SCHEME",
    "WRITERS_ONLY",
    "WRITING",
    "Caller",
    "Callers",
    "Forbidden",
    "MembersOnly",
    "SeesSynthetic",
    "ServiceToken",
    "TokenUnset",
    "Unauthorized",
    "WritingCaller",
    "is_open",
    "sees_synthetic",
]

SERVICE_SCHEME = HTTPBearer(auto_error=False, description="SERVICE_TOKEN of the service", scheme_name="SERVICE_TOKEN")
ACCOUNT_SCHEME = HTTPBearer(
    auto_error=False,
    description="access_token of an account, from `POST /api/v1/auth/login`; a page has it as a cookie",
    scheme_name="account",
    bearerFormat="JWT",
)
CALLER = "backend.caller"  # in the scope, once it is known: the limits ask before the route does
SAFE_METHODS = frozenset({"GET", "HEAD"})
WRITERS = frozenset({Role.DEPLOYER, Role.ADMIN})
# With ANONYMOUS_READ=false these stay open: probes, the documentation, and the way in.
OPEN = frozenset({"/health", "/ready", "/openapi.json", "/docs"})
OPEN_BELOW = ("/docs/", "/api/v1/auth/")  # the routes of /auth ask for themselves


class Unauthorized(Problem):
    """There are no valid credentials: none came, or they are wrong, or have expired."""

    status = 401

    def __init__(self, detail: str = "") -> None:
        super().__init__(
            detail or "This requires SERVICE_TOKEN or the access token of an account: `Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": "Bearer"},
        )


class Forbidden(Problem):
    """The account's role does not allow this, or a cookie came along with a request from elsewhere."""

    status = 403

    def __init__(self, detail: str) -> None:
        super().__init__(detail)


class TokenUnset(Problem):
    """The service has neither SERVICE_TOKEN nor JWT_SECRET_KEY, so nobody can write."""

    status = 503
    kind = "urn:problem-type:service-token-unset"

    def __init__(self) -> None:
        super().__init__(
            "This service was started without SERVICE_TOKEN and JWT_SECRET_KEY, so nobody can write; set one, restart."
        )


WRITING = (Unauthorized, Forbidden, TokenUnset)  # what a route that takes `WRITERS_ONLY` may answer, too


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: an `account`, or else a pipeline with SERVICE_TOKEN, which may be `synthetic` traffic of the proof."""

    account: Claims | None = None
    synthetic: bool = False

    @property
    def owner(self) -> str:
        """Whose an `Idempotency-Key` is: that of an account, or "" for all pipelines."""
        return str(self.account.account) if self.account else ""

    @property
    def may_write(self) -> bool:
        """Whether the caller is a pipeline, a deployer or an admin."""
        return self.account is None or self.account.role in WRITERS


class ServiceToken:
    """SERVICE_TOKEN, and the one before it, as requests bring them."""

    def __init__(self, settings: Settings) -> None:
        given = (settings.service_token, settings.service_token_previous)
        self._tokens = [token.get_secret_value().encode() for token in given if token]

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._tokens)

    def is_in(self, authorization: str) -> bool:
        """Return whether the header `authorization` has one of them."""
        given = _bearer(authorization).encode()
        return any(hmac.compare_digest(given, token) for token in self._tokens)


class Callers:
    """Who may call, according to the settings. `find` costs 3 µs for a token that it has seen."""

    def __init__(self, settings: Settings) -> None:
        self._service = ServiceToken(settings)
        self.tokens = AccessTokens(settings)
        self.cookies = Cookies(settings)
        self.origins = OwnOrigins(settings, secure=self.cookies.secure)

    @property
    def are_possible(self) -> bool:
        """Whether anybody could have valid credentials."""
        return bool(self._service) or self.tokens.can_read

    def find(self, request: HTTPConnection) -> Caller | None:
        """Return who sends `request`, or None where nobody says so.

        `Authorization` wins over cookies. Raise `Unauthorized` for credentials that are not valid, and `ForeignOrigin`
        where a cookie came along with a change that did not come from our own page.
        """
        known: Caller | None = request.scope.get(CALLER)
        if known is None:
            known = request.scope[CALLER] = self._look(request)
        return known

    def _look(self, request: HTTPConnection) -> Caller | None:
        header = request.headers.get("authorization")
        if header is not None:
            if self._service.is_in(header):
                return Caller(synthetic=_says_synthetic(request))
            given = _bearer(header)
        else:
            cookie = self.cookies.access(request)
            if cookie is None:
                return None
            if request.scope["method"] not in SAFE_METHODS and not self.origins.has(request.headers):
                raise ForeignOrigin
            given = cookie
        claims = self.tokens.read(given)
        if claims is None:
            raise Unauthorized
        return Caller(account=claims)

    def sees_synthetic(self, request: HTTPConnection) -> bool:
        """Return whether `request` says that it is synthetic, and has SERVICE_TOKEN."""
        return _says_synthetic(request) and self._service.is_in(request.headers.get("authorization", ""))


class MembersOnly:
    """The layer of ANONYMOUS_READ=false: whoever has no valid credentials gets a 401, but from the `OPEN` paths."""

    def __init__(self, app: ASGIApp, *, callers: Callers) -> None:
        self.app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of somebody who may read."""
        if scope["type"] == "http" and not is_open(scope["path"]) and self._callers.find(Request(scope)) is None:
            raise Unauthorized
        await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Return whether anybody may ask for `path`, even with ANONYMOUS_READ=false."""
    return path in OPEN or path.startswith(OPEN_BELOW)


def sees_synthetic(request: Request) -> bool:
    """Return whether lists show the caller what the proof wrote: it says that it is synthetic, and has SERVICE_TOKEN.

    No answer to such a caller may be put into a cache, or come from one.
    """
    callers: Callers = request.app.state.callers
    return callers.sees_synthetic(request)


def _bearer(header: str) -> str:
    """Return the token in an `Authorization` header, or "" where it has none."""
    scheme, _, given = header.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _says_synthetic(request: HTTPConnection) -> bool:
    return request.headers.get("slipway-synthetic", "").lower() == "true"


async def _writer(
    request: Request,
    service: Annotated[HTTPAuthorizationCredentials | None, Security(SERVICE_SCHEME)],  # noqa: ARG001 - for OpenAPI
    account: Annotated[HTTPAuthorizationCredentials | None, Security(ACCOUNT_SCHEME)],  # noqa: ARG001 - for OpenAPI
) -> Caller:
    callers: Callers = request.app.state.callers
    if not callers.are_possible:
        raise TokenUnset
    caller = callers.find(request)
    if caller is None:
        raise Unauthorized
    if not caller.may_write:
        raise Forbidden("A viewer only reads; writing takes the role deployer or admin.")
    return caller


async def _sees_synthetic(request: Request) -> bool:
    return sees_synthetic(request)


SeesSynthetic = Annotated[bool, Depends(_sees_synthetic)]
WRITERS_ONLY = Depends(_writer)
WritingCaller = Annotated[Caller, WRITERS_ONLY]
