"""The two cookies of a page that is signed in, and where a request that they authenticate must come from."""

from __future__ import annotations

import re
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response

from backend.problems import Problem
from backend.settings import Settings

__all__ = ["CookieNeedsHttps", "Cookies", "ForeignOrigin", "OwnOrigins"]

ACCESS_PATH, REFRESH_PATH = "/api/v1", "/api/v1/auth"
DAY_SECONDS = 86_400
STRICT: Literal["strict"] = "strict"


class ForeignOrigin(Problem):
    """A cookie came along with a request from another origin, or from none that is known."""

    status = 403
    kind = "urn:problem-type:foreign-origin"

    def __init__(self) -> None:
        super().__init__(
            "A request with a cookie that changes something must come from the service's own page:"
            " `Sec-Fetch-Site: same-origin`, or an `Origin` that is this host, FRONTEND_URL or one of CORS_ORIGINS."
        )


class CookieNeedsHttps(Problem):
    """The cookies would be Secure, and the request did not come by https: no browser would keep them."""

    status = 400
    kind = "urn:problem-type:cookie-needs-https"

    def __init__(self, page: str | None) -> None:
        address = f"at {page}" if page else "by https"
        super().__init__(
            f"This request came by http, so a browser would drop the cookies, which are Secure: sign in {address}. If a"
            " proxy ends TLS before the service, name it in TRUSTED_PROXIES and let it send X-Forwarded-Proto."
        )


def page_address(settings: Settings) -> str | None:
    """Return the address of the page, None where only a proxy before the service knows it: it is then on https."""
    if settings.frontend_url or settings.edge_domain:
        return settings.frontend_url or f"https://{settings.edge_domain}"
    return f"http://localhost:{settings.edge_port}" if settings.environment == "development" else None


class Cookies:
    """The cookies: HttpOnly and SameSite=Strict, and Secure where the page is on https."""

    def __init__(self, settings: Settings) -> None:
        self._page = page_address(settings)
        self.secure = self._page is None or self._page.startswith("https:")
        # Cookies ignore ports: two services on one host must not sign each other out.
        name = f"{'__Secure-' if self.secure else ''}{re.sub('[^A-Za-z0-9_-]', '-', settings.project_name)}"
        self._access, self._refresh = f"{name}-access", f"{name}-refresh"
        self._refresh_seconds = settings.jwt_refresh_days * DAY_SECONDS

    def access(self, request: HTTPConnection) -> str | None:
        """Return the access token that `request` has in a cookie."""
        return request.cookies.get(self._access)

    def refresh(self, request: HTTPConnection) -> str | None:
        """Return the refresh token that `request` has in a cookie."""
        return request.cookies.get(self._refresh)

    def set(self, response: Response, *, access: str, seconds: int, refresh: str) -> None:
        """Give a browser both tokens; the `access` token lasts so many `seconds`."""
        self._put(response, self._access, access, path=ACCESS_PATH, seconds=seconds)
        self._put(response, self._refresh, refresh, path=REFRESH_PATH, seconds=self._refresh_seconds)

    def clear(self, response: Response) -> None:
        """Take both from a browser. Only a logout may: any other answer may come later than one that set them."""
        for name, path in ((self._access, ACCESS_PATH), (self._refresh, REFRESH_PATH)):
            self._put(response, name, "", path=path, seconds=0)

    def must_hold(self, request: HTTPConnection) -> None:
        """Raise `CookieNeedsHttps` where a browser would drop the cookies of the answer to `request`."""
        secure = request.scope["scheme"] == "https" or request.headers.get("origin", "").startswith("https:")
        if self.secure and not secure:
            raise CookieNeedsHttps(self._page)

    def _put(self, response: Response, name: str, value: str, *, path: str, seconds: int) -> None:
        response.set_cookie(name, value, max_age=seconds, path=path, secure=self.secure, httponly=True, samesite=STRICT)


class OwnOrigins:
    """Whether a browser's request comes from our own page."""

    def __init__(self, settings: Settings, *, secure: bool) -> None:
        own = page_address(settings)
        self._known = frozenset(origin.lower() for origin in (own, *settings.cors_origins) if origin)
        self._schemes = ("https",) if secure else ("https", "http")

    def has(self, headers: Headers, *, unknown: bool = False) -> bool:
        """Return whether a request with these `headers` comes from there; `unknown` where no header says it."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "").lower()
        if site is not None:
            return site == "same-origin"
        if not origin:
            return unknown
        host = headers.get("host", "").lower()
        return origin in self._known or origin in {f"{scheme}://{host}" for scheme in self._schemes}
