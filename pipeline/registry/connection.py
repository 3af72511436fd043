"""Requests to a registry: over HTTP, with a login where it wants one, repeated where that may help.

Each refusal is one line. By the distribution specification 1.1, RFC 9110 and docker's token protocol.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from pipeline.errors import SlipwayError
from pipeline.registry.credentials import config_path, find_credentials
from pipeline.registry.reference import HUB, Reference, is_local

__all__ = ["Connection", "RegistryError", "RegistryLacks", "Response", "json_object"]

MANIFEST_BYTES = 4 * 2**20  # the size that a registry must accept, by the specification; none of ours comes near
TOKEN_BYTES = 2**20
TIMEOUT = httpx2.Timeout(30, connect=5)
PAUSES = (0.5, 1.5)  # seconds before asking again, after a proxy's restart or a broken connection
PASSING = (502, 503, 504)


class RegistryError(SlipwayError):
    """A registry did not do what was asked. One line, with the fix and never a credential."""


class RegistryLacks(RegistryError):
    """The registry has no such manifest, blob or repository."""


@cache
def _trusted(outside: bool, /) -> ssl.SSLContext:
    """Return the authorities that are trusted."""
    # Read once: it takes 20 ms, and a deploy opens a repository a dozen times.
    return httpx2.create_ssl_context(trust_env=outside)


@dataclass(frozen=True)
class Response:
    """A registry's answer, its body read."""

    status: int
    headers: httpx2.Headers
    body: bytes


class Connection:
    """A connection to one repository; with `write`, it asks for a token that may push.

    Each method raises `RegistryError` where the registry is away or refuses.
    """

    def __init__(self, reference: Reference, *, write: bool) -> None:
        self.reference, self.name = reference, reference.repository
        self._host, self._path = reference.host, reference.path
        self.root = f"{reference.address}/v2/{self._path}/"
        self._write = write
        self._authorization: str | None = None
        # The environment's proxy is not for a registry on this machine.
        outside = reference.address.startswith("https:")
        agent = {"User-Agent": "slipway"}
        self._http = httpx2.Client(timeout=TIMEOUT, trust_env=outside, verify=_trusted(outside), headers=agent)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        follow: bool = False,
        limit: int = MANIFEST_BYTES,
    ) -> Response:
        """Send a request for `path`, logging in where the registry wants a login; return the answer.

        `follow`: follow redirects, because registries keep blobs elsewhere. Raise `RegistryError` for an answer of more
        than `limit` bytes, too.
        """
        url = urljoin(self.root, path)

        def send() -> Response:
            # The registry says where an upload goes: if that is another host, it does not get this one's credential.
            mine = self._authorization is not None and url.startswith(f"{self.reference.address}/")
            login = {"Authorization": self._authorization or ""} if mine else {}
            request = self._http.build_request(method, url, content=content, headers={**(headers or {}), **login})
            return self._send(request, follow=follow, limit=limit)

        answer = send()
        if answer.status == httpx2.codes.UNAUTHORIZED:
            self._authorization = self._log_in(answer.headers.get_list("WWW-Authenticate"))
            answer = send()
        if answer.status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            raise self._refused(answer.status)
        return answer

    def _send(self, request: httpx2.Request, *, follow: bool, limit: int) -> Response:
        """Send `request`, and again where that may help."""
        # Every request made here may be repeated.
        for pause in (*PAUSES, None):
            try:
                answer = self._send_once(request, follow=follow, limit=limit)
            except httpx2.TransportError as error:
                if pause is None or "CERTIFICATE" in str(error):
                    raise RegistryError(self._away(error)) from error
            except (httpx2.TooManyRedirects, httpx2.InvalidURL, httpx2.DecodingError) as error:
                raise RegistryError(f"{self._host}: its answers lead nowhere: is it a registry?") from error
            else:
                if pause is None or answer.status not in PASSING:
                    return answer
            time.sleep(pause)
        raise AssertionError

    def _send_once(self, request: httpx2.Request, *, follow: bool, limit: int) -> Response:
        answer = self._http.send(request, stream=True, follow_redirects=follow)
        try:
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > limit:
                    raise RegistryError(
                        f"{self._host}: {request.url.path}: too large, over {limit} bytes: slipway did not make it"
                    )
            return Response(answer.status_code, answer.headers, bytes(body))
        finally:
            answer.close()

    def _log_in(self, challenges: list[str]) -> str:
        """Return the `Authorization` that the registry's challenge asks for (RFC 9110, and docker's token protocol)."""
        said = ", ".join(challenges)
        login = find_credentials(self._host)
        bearer = re.search(r"\bBearer\s+(.*)", said, re.IGNORECASE)
        if bearer is None:
            if login is None or not re.search(r"\bBasic\b", said, re.IGNORECASE):
                raise self._refused(httpx2.codes.UNAUTHORIZED)
            return login.basic
        facts = dict(re.findall(r'(\w+)="([^"]*)"', bearer[1]))
        realm = facts.get("realm", "")
        place = urlsplit(realm)
        if place.scheme != "https" and not (is_local(self._host) and is_local(place.netloc)):
            raise RegistryError(
                f"{self._host}: it sends logins to an address without TLS, so none was sent: tell its owner"
            )
        wanted = {"scope": f"repository:{self._path}:{'pull,push' if self._write else 'pull'}"}
        wanted |= {"service": facts["service"]} if "service" in facts else {}
        if login and login.refresh:
            form = {**wanted, "grant_type": "refresh_token", "client_id": "slipway", "refresh_token": login.secret}
            request = self._http.build_request("POST", realm, data=form)
        else:
            headers = {"Authorization": login.basic} if login else {}
            request = self._http.build_request("GET", realm, params=wanted, headers=headers)
        answer = self._send(request, follow=False, limit=TOKEN_BYTES)
        if answer.status in (httpx2.codes.BAD_REQUEST, httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            raise self._refused(httpx2.codes.UNAUTHORIZED)
        self.expect(answer, f"{self._host}: its login")
        token = json_object(answer.body) or {}
        if not (token.get("token") or token.get("access_token")):
            raise RegistryError(f"{self._host}: its login gave no token: is it a registry?")
        return f"Bearer {token.get('token') or token['access_token']}"

    def _refused(self, status: int) -> RegistryError:
        login = f"`docker login {'' if self._host == HUB else self._host}".strip() + "`"
        if find_credentials(self._host) is None:
            return RegistryError(f"{self.name}: wants a login ({status}), and {config_path()} has none: {login}")
        if status == httpx2.codes.FORBIDDEN:
            right = "write to" if self._write else "read"
            return RegistryError(
                f"{self.name}: no right to {right} it ({status}): ask its owner, or {login} as another user"
            )
        return RegistryError(f"{self.name}: the login of {config_path()} is not accepted ({status}): {login}")

    def _away(self, error: httpx2.TransportError) -> str:
        if "CERTIFICATE" in str(error):
            fix = "SSL_CERT_FILE names the authority of a registry of your own"
            return f"{self._host}: its certificate is not trusted: {fix}"
        why = "no answer in time" if isinstance(error, httpx2.TimeoutException) else "no connection"
        return f"{self._host}: {why}: is the registry up, and its name right in {self.name}?"

    def expect(self, answer: Response, what: str, status: int = httpx2.codes.OK) -> None:
        """Raise `RegistryError` where `answer` has another `status`, `RegistryLacks` for 404. `what` was asked for."""
        # A registry's own words are left out: they may repeat what it was sent.
        if answer.status == status:
            return
        if answer.status == httpx2.codes.NOT_FOUND:
            raise RegistryLacks(f"{what}: not in the registry: is its name right, and was it pushed?")
        if answer.status == httpx2.codes.CONTENT_TOO_LARGE:
            raise RegistryError(f"{what}: too large for {self._host} (413): raise the limit of the proxy before it")
        if answer.status == httpx2.codes.TOO_MANY_REQUESTS:
            wait = answer.headers.get("Retry-After", "")
            when = f"in {wait} s" if wait.isdigit() else "later"
            raise RegistryError(f"{what}: {self._host} limits the rate of requests (429): try again {when}")
        errors = (json_object(answer.body) or {}).get("errors")
        code = errors[0].get("code") if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None
        named = f" {code}" if isinstance(code, str) and re.fullmatch(r"[A-Z_]+", code) else ""
        raise RegistryError(f"{what}: {self._host} answered {answer.status}{named}: its log says why")


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in `body`, None for anything else."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
