"""A repository of an OCI registry, over its HTTP interface (distribution specification 1.1).

Written on httpx2, which the pipeline has anyway, and not on `oras` (PyPI, 0.2.43): that has no referrers API and no
fallback tag, which is most of what is needed here, and would bring requests, jsonschema and 3900 lines.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
import re
import ssl
import time
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx2

from pipeline.credentials import config_path, find_credentials
from pipeline.errors import SlipwayError, UsageError

__all__ = [
    "ARTIFACT",
    "DIGEST",
    "EMPTY",
    "EMPTY_TYPE",
    "INDEXES",
    "Manifest",
    "Reference",
    "RegistryError",
    "RegistryLacks",
    "Repository",
    "digest_of",
    "parse_reference",
    "written",
]

ARTIFACT = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
ACCEPT = ", ".join((*INDEXES, ARTIFACT, "application/vnd.docker.distribution.manifest.v2+json"))
EMPTY = b"{}"  # the specification's config of an artifact that has none, and its type
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
NAME = re.compile(
    rf"(?P<repository>(?:[a-zA-Z0-9.-]+(?::\d+)?/|\[[0-9a-f:]+\](?::\d+)?/)?{PART}(?:/{PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
HUB = "docker.io"
HUB_ADDRESS = "registry-1.docker.io"

MANIFEST_BYTES = 4 * 2**20  # what a registry must take, by the specification; none of ours comes near
TOKEN_BYTES = 2**20
TIMEOUT = httpx2.Timeout(30, connect=5)
PAUSES = (0.5, 1.5)  # seconds before asking again: a proxy that restarts, a connection that was cut
PASSING = (502, 503, 504)
# A fallback list has no compare-and-swap: read again after longer than a writer needs from reading to writing.
SETTLE_SECONDS = (0.5, 1.5)
LIST_ATTEMPTS = 12
PAGES = 50  # of referrers: where a registry has more, it goes round in circles


class RegistryError(SlipwayError):
    """A registry did not do what was asked. One line, with the fix and never a credential."""


class RegistryLacks(RegistryError):
    """It has no such manifest, blob or repository."""


@dataclass(frozen=True)
class Reference:
    """`[HOST/]PATH[:TAG][@DIGEST]`; `repository` is the part before the tag, as it was written."""

    repository: str
    tag: str | None
    digest: str | None

    @property
    def host(self) -> str:
        """The registry: what docker takes for it, `docker.io` where none is named."""
        first, slash, _ = self.repository.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else HUB

    @property
    def path(self) -> str:
        """The repository's name in its registry."""
        path = self.repository.removeprefix(f"{self.host}/")
        return f"library/{path}" if self.host == HUB and "/" not in path else path

    @property
    def address(self) -> str:
        """`http` for a registry of this machine, as docker has it, `https` for every other."""
        if self.host == HUB:
            return f"https://{HUB_ADDRESS}"
        return f"{'http' if _is_local(self.host) else 'https'}://{self.host}"


def parse_reference(text: str) -> Reference:
    """Read a reference to an image. Raises `UsageError`."""
    found = NAME.fullmatch(text)
    if not found:
        raise UsageError(f"`{text}` is no name of an image: for example ghcr.io/owner/name@sha256:… (lower case)")
    return Reference(found["repository"], found["tag"], found["digest"])


@cache
def _trusted(outside: bool, /) -> ssl.SSLContext:
    """The authorities that are trusted. Read once: it takes 20 ms, and a deploy opens a repository a dozen times."""
    return httpx2.create_ssl_context(trust_env=outside)


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    name = name.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index as it was sent."""

    digest: str
    media_type: str
    size: int
    content: dict[str, Any]
    raw: bytes = field(default=b"", repr=False, compare=False)

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The entries of an index that name something."""
        return _entries(self.content)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: httpx2.Headers
    body: bytes


class Repository:
    """One repository, open for the length of a `with`. WRITE: a token is asked for that may push.

    Everything raises `RegistryError` where the registry is away, refuses or answers something else.
    """

    def __init__(self, name: str, *, write: bool = False) -> None:
        self.reference = parse_reference(name)
        self.name = self.reference.repository
        self._host, self._path = self.reference.host, self.reference.path
        self._root = f"{self.reference.address}/v2/{self._path}/"
        self._write = write
        self._authorization: str | None = None
        # A proxy of the environment is not for a registry of this machine.
        outside = self.reference.address.startswith("https:")
        agent = {"User-Agent": "slipway"}
        self._http = httpx2.Client(timeout=TIMEOUT, trust_env=outside, verify=_trusted(outside), headers=agent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def manifest(self, reference: str) -> Manifest:
        """The manifest or index of a tag or digest, whose bytes are what its digest says."""
        answer = self._ask("GET", f"manifests/{reference}", headers={"Accept": ACCEPT}, follow=True)
        what = f"{self.name}{'@' if DIGEST.fullmatch(reference) else ':'}{reference}"
        self._expect(answer, what)
        digest = digest_of(answer.body)
        if DIGEST.fullmatch(reference) and digest != reference:
            raise RegistryError(f"{what}: the registry sent other content, {digest}: its storage or a proxy is broken")
        content = _object(answer.body)
        if content is None:
            raise RegistryError(f"{what}: no manifest came from {self._host}: is it a registry?")
        kind = str(content.get("mediaType") or answer.headers.get("Content-Type", "").partition(";")[0])
        return Manifest(digest, kind, len(answer.body), content, answer.body)

    def blob(self, digest: str, *, limit: int) -> bytes:
        """The blob with DIGEST, of LIMIT bytes at most."""
        answer = self._ask("GET", f"blobs/{digest}", follow=True, limit=limit)
        what = f"{self.name}: blob {digest}"
        self._expect(answer, what)
        if digest_of(answer.body) != digest:
            raise RegistryError(f"{what}: the registry sent other content: its storage or a proxy is broken")
        return answer.body

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob with DIGEST."""
        return self._ask("HEAD", f"blobs/{digest}").status == httpx2.codes.OK

    def put_blob(self, content: bytes) -> dict[str, Any]:
        """Have CONTENT in the repository; the digest and size of its descriptor."""
        digest = digest_of(content)
        if not self.has_blob(digest):
            begun = self._ask("POST", "blobs/uploads/", content=b"")
            self._expect(begun, self.name, httpx2.codes.ACCEPTED)
            place = httpx2.URL(urljoin(self._root, begun.headers.get("Location", "")))
            done = self._ask(
                "PUT",
                str(place.copy_merge_params({"digest": digest})),
                content=content,
                headers={"Content-Type": "application/octet-stream"},
            )
            self._expect(done, f"{self.name}: {len(content)} bytes", httpx2.codes.CREATED)
        return {"digest": digest, "size": len(content)}

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> bool:
        """Have CONTENT under a tag or its digest; whether the registry lists it with its subject by itself."""
        answer = self._ask("PUT", f"manifests/{reference}", content=content, headers={"Content-Type": media_type})
        self._expect(answer, f"{self.name}: {reference}", httpx2.codes.CREATED)
        return "OCI-Subject" in answer.headers

    def tag(self, digest: str, tag: str) -> None:
        """Let TAG name DIGEST: the same bytes again, since a manifest that is written anew may have another digest."""
        found = self.manifest(digest)
        self.put_manifest(tag, found.raw, found.media_type)

    def attach(self, manifest: dict[str, Any]) -> str:
        """Push MANIFEST, which has a `subject`, so that it is found from that; its digest.

        A registry without the referrers API (CNCF distribution 3, ghcr.io) does not say `OCI-Subject`; there the client
        keeps the list, an index under a tag made of the subject's digest.
        """
        content = written(manifest)
        digest = digest_of(content)
        if not self.put_manifest(digest, content, manifest["mediaType"]):
            told = ("mediaType", "artifactType", "annotations")
            descriptor = {key: manifest[key] for key in told if key in manifest}
            self._list(manifest["subject"]["digest"], {**descriptor, "digest": digest, "size": len(content)})
        return digest

    def referrers(self, digest: str, artifact_type: str) -> list[dict[str, Any]]:
        """The descriptors of all artifacts whose subject is DIGEST, and which may be of ARTIFACT_TYPE: a registry may
        tell the type of the (empty) config instead (go-containerregistry #1931), so it is not asked to leave out the
        others, and the manifest itself has the last word.
        """
        found = self._from_api(f"referrers/{digest}")
        if found is None:
            found = _entries(self._kept(digest) or {})
        return [one for one in found if one.get("artifactType") in (artifact_type, EMPTY_TYPE)]

    def _from_api(self, path: str) -> list[dict[str, Any]] | None:
        """What the referrers API lists, None where there is none: some answer that with a page and 200."""
        found: list[dict[str, Any]] = []
        for _ in range(PAGES):
            answer = self._ask("GET", path, headers={"Accept": INDEX})
            page = _object(answer.body) or {}
            if answer.status == httpx2.codes.TOO_MANY_REQUESTS or answer.status >= httpx2.codes.INTERNAL_SERVER_ERROR:
                self._expect(answer, f"{self.name}: referrers")
            if answer.status != httpx2.codes.OK or not isinstance(page.get("manifests"), list):
                return None
            found += _entries(page)
            following = re.search(r'<([^>]+)>;\s*rel="?next', answer.headers.get("Link", ""))
            if not following:
                break
            path = following[1]
        return found

    def _kept(self, digest: str) -> dict[str, Any] | None:
        """The list that clients keep of what refers to DIGEST."""
        tag = digest.replace(":", "-")
        try:
            content = self.manifest(tag).content
        except RegistryLacks:
            return None
        if not isinstance(content.get("manifests"), list):
            raise RegistryError(
                f"{self.name}:{tag}: not a list of referrers: delete that tag, which nothing else needs"
            )
        return content

    def _list(self, digest: str, descriptor: dict[str, Any]) -> None:
        """Add DESCRIPTOR to the list of what refers to DIGEST, others' entries untouched."""
        for _ in range(LIST_ATTEMPTS):
            kept = self._kept(digest) or {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
            if any(one["digest"] == descriptor["digest"] for one in _entries(kept)):
                return
            kept["manifests"] = [*kept["manifests"], descriptor]
            self.put_manifest(digest.replace(":", "-"), written(kept), INDEX)
            # Somebody who read before this was written overwrites it: seen by looking again, and mended.
            time.sleep(random.uniform(*SETTLE_SECONDS))  # noqa: S311 - apart from each other, not secret
        raise RegistryError(
            f"{self.name}: {LIST_ATTEMPTS} times another client overwrote the list of {digest}: deploy again later"
        )

    def _ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        follow: bool = False,
        limit: int = MANIFEST_BYTES,
    ) -> _Answer:
        """Ask for PATH, logging in where the registry wants that. FOLLOW redirects: registries keep blobs elsewhere."""
        url = urljoin(self._root, path)

        def send() -> _Answer:
            # Where an upload goes is the registry's word: another host gets no credential of this one.
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

    def _send(self, request: httpx2.Request, *, follow: bool, limit: int) -> _Answer:
        """Send REQUEST; again where that may help: all that is asked here may be asked twice."""
        for pause in (*PAUSES, None):
            try:
                answer = self._send_once(request, follow=follow, limit=limit)
            except httpx2.TransportError as error:
                if pause is None or "CERTIFICATE" in str(error):
                    raise RegistryError(self._away(error)) from error
            except (httpx2.TooManyRedirects, httpx2.InvalidURL, httpx2.DecodingError) as error:
                raise RegistryError(f"{self._host}: answers that lead nowhere: is it a registry?") from error
            else:
                if pause is None or answer.status not in PASSING:
                    return answer
            time.sleep(pause)
        raise AssertionError

    def _send_once(self, request: httpx2.Request, *, follow: bool, limit: int) -> _Answer:
        answer = self._http.send(request, stream=True, follow_redirects=follow)
        try:
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > limit:
                    raise RegistryError(
                        f"{self._host}: {request.url.path}: too large, over {limit} bytes: nothing that slipway made"
                    )
            return _Answer(answer.status_code, answer.headers, bytes(body))
        finally:
            answer.close()

    def _log_in(self, challenges: list[str]) -> str:
        """The `Authorization` that the registry's challenge asks for (RFC 9110, and docker's token protocol)."""
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
        if place.scheme != "https" and not (_is_local(self._host) and _is_local(place.netloc)):
            raise RegistryError(f"{self._host}: it sends logins to an address without TLS: not done; tell its owner")
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
        self._expect(answer, f"{self._host}: its login")
        token = _object(answer.body) or {}
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
                f"{self.name}: no right to {right} it ({status}): ask its owner, or {login} as another"
            )
        return RegistryError(f"{self.name}: the login of {config_path()} is not accepted ({status}): {login}")

    def _away(self, error: httpx2.TransportError) -> str:
        if "CERTIFICATE" in str(error):
            fix = "SSL_CERT_FILE names the authority of a registry of your own"
            return f"{self._host}: its certificate is not trusted: {fix}"
        why = "no answer in time" if isinstance(error, httpx2.TimeoutException) else "no connection"
        return f"{self._host}: {why}: is the registry up, and its name right in {self.name}?"

    def _expect(self, answer: _Answer, what: str, status: int = httpx2.codes.OK) -> None:
        """Raise what is wrong with ANSWER. A registry's own words are left out: they may repeat what they were sent."""
        if answer.status == status:
            return
        if answer.status == httpx2.codes.NOT_FOUND:
            raise RegistryLacks(f"{what}: not in the registry: is its name right, and was it pushed?")
        if answer.status == httpx2.codes.CONTENT_TOO_LARGE:
            raise RegistryError(f"{what}: too large for {self._host} (413): raise the limit of the proxy before it")
        if answer.status == httpx2.codes.TOO_MANY_REQUESTS:
            wait = answer.headers.get("Retry-After", "")
            when = f"in {wait} s" if wait.isdigit() else "later"
            raise RegistryError(f"{what}: {self._host} limits how often one asks (429): again {when}")
        errors = (_object(answer.body) or {}).get("errors")
        code = errors[0].get("code") if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None
        named = f" {code}" if isinstance(code, str) and re.fullmatch(r"[A-Z_]+", code) else ""
        raise RegistryError(f"{what}: {self._host} answered {answer.status}{named}: its log says why")


def digest_of(content: bytes) -> str:
    """`sha256:` and 64 digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def written(content: dict[str, Any]) -> bytes:
    """CONTENT as bytes that are always the same, and so have one digest."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _entries(index: dict[str, Any]) -> list[dict[str, Any]]:
    found = index.get("manifests")
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [one for one in listed if DIGEST.fullmatch(str(one.get("digest")))]


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
