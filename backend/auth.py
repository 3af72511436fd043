"""Callers with SERVICE_TOKEN: they may write, and they say whether they are synthetic traffic of the proof."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from backend.problems import Problem

__all__ = ["SERVICE_ONLY", "Caller", "SeesSynthetic", "ServiceCaller", "TokenUnset", "Unauthorized", "sees_synthetic"]

BEARER = HTTPBearer(auto_error=False, description="SERVICE_TOKEN of the service", scheme_name="SERVICE_TOKEN")


class Unauthorized(Problem):
    """The bearer token is missing or wrong."""

    status = 401

    def __init__(self) -> None:
        super().__init__(
            "Writing requires `Authorization: Bearer SERVICE_TOKEN`.", headers={"WWW-Authenticate": "Bearer"}
        )


class TokenUnset(Problem):
    """The service has no SERVICE_TOKEN, so nobody can write."""

    status = 503
    kind = "urn:problem-type:service-token-unset"

    def __init__(self) -> None:
        super().__init__("This service was started without SERVICE_TOKEN, so nobody can write; set it and restart.")


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller with a valid SERVICE_TOKEN."""

    synthetic: bool


async def _service_caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
) -> Caller:
    token = request.app.state.settings.service_token
    if token is None:
        raise TokenUnset
    given = credentials.credentials.encode() if credentials else b""
    if not hmac.compare_digest(given, token.get_secret_value().encode()):
        raise Unauthorized
    return Caller(synthetic=_says_synthetic(request))


def sees_synthetic(request: Request) -> bool:
    """Return whether lists show the caller what the proof wrote: it says that it is synthetic, and has SERVICE_TOKEN.

    No answer to such a caller may be put into a cache, or come from one.
    """
    token = request.app.state.settings.service_token
    if token is None or not _says_synthetic(request):
        return False
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.get_secret_value().encode())


def _says_synthetic(request: Request) -> bool:
    return request.headers.get("slipway-synthetic", "").lower() == "true"


async def _sees_synthetic(request: Request) -> bool:
    return sees_synthetic(request)


SeesSynthetic = Annotated[bool, Depends(_sees_synthetic)]
SERVICE_ONLY = Depends(_service_caller)
ServiceCaller = Annotated[Caller, SERVICE_ONLY]
