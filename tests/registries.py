"""Registries for tests: a real one in a container, and one that plays what other registries do."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2

from pipeline.proof.report import Report, traffic_report
from pipeline.proof.results import Failure, Latency, Share, TrafficResult
from pipeline.registry.proofs import ProofFacts
from pipeline.registry.repository import ARTIFACT, INDEXES, Repository, digest_of, written
from pipeline.targets.kubernetes.artifacts import proof_facts
from tests.backend.process import wait_until
from tests.containers import docker
from tests.played import Answer, serving
from tests.tools import need

__all__ = ["PlayedRegistry", "Request", "played", "push_image", "push_index", "report", "running_registry"]

USER, PASSWORD, TOKEN = "deployer", "s3cret-of-the-registry", "a-short-lived-token"


@contextlib.contextmanager
def running_registry() -> Iterator[str]:
    """Run an empty registry in a container until the block ends; yield its address."""
    need("docker")
    ident = docker("run", "--detach", "--publish", "127.0.0.1::5000", "registry:3")
    try:
        address = "localhost:" + docker("port", ident, "5000/tcp").splitlines()[0].rpartition(":")[2]

        def ready() -> bool:
            with contextlib.suppress(httpx2.TransportError):
                return httpx2.get(f"http://{address}/v2/", trust_env=False, verify=False).status_code == httpx2.codes.OK
            return False

        wait_until(ready, "the registry did not get ready")
        yield address
    finally:
        docker("rm", "--force", "--volumes", ident)


def push_image(repository: str, content: str = "an image", *, tag: str = "latest") -> str:
    """Push an image of one layer with `content` in it; return its digest."""
    with Repository(repository, write=True) as opened:
        manifest = _image(opened, content)
        opened.put_manifest(tag, manifest, ARTIFACT)
    return digest_of(manifest)


def push_index(repository: str, *architectures: str) -> tuple[str, list[str]]:
    """Push an image for each of `architectures`, with an attestation as BuildKit makes it.

    Return the digest of the index, and those of the manifests.
    """
    with Repository(repository, write=True) as opened:
        manifests = [_image(opened, architecture) for architecture in (*architectures, "unknown")]
        for manifest in manifests:
            opened.put_manifest(digest_of(manifest), manifest, ARTIFACT)
        entries = [
            {
                "mediaType": ARTIFACT,
                "digest": digest_of(manifest),
                "size": len(manifest),
                "platform": {"os": "unknown" if architecture == "unknown" else "linux", "architecture": architecture},
            }
            for manifest, architecture in zip(manifests, (*architectures, "unknown"), strict=True)
        ]
        index = written({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": entries})
        opened.put_manifest("latest", index, INDEXES[0])
    return digest_of(index), [digest_of(manifest) for manifest in manifests]


def _image(repository: Repository, content: str) -> bytes:
    config = repository.put_blob(
        written({"os": "linux", "architecture": "amd64", "config": {"Labels": {"content": content}}})
    )
    layer = repository.put_blob(content.encode())
    return written(
        {
            "schemaVersion": 2,
            "mediaType": ARTIFACT,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}],
        }
    )


def report(environment: str = "staging", verdict: str = "proved", minute: int = 0) -> ProofFacts:
    """Return what a proof has of the report of a deploy that ended `minute` minutes after twelve."""
    release = f"sha256:{'1' * 64}"
    result = TrafficResult(
        seconds=60,
        phase="bake",
        outstanding=0,
        shares=(Share("bake", release, 899, {"body": 1}, 0, None),),
        failures=(Failure("body", "", "bake", "list", "GET", "/?hunter2", "hunter2", release, 200, "hunter2"),),
        started=0,
        latency=Latency(3.0, 4.0, 5.0, 6.0),
    )
    whole = Report(
        environment=environment,
        target="kubernetes",
        url="https://admin:hunter2@staging.example.com",
        number=7,
        release=release,
        previous=None,
        commit="0123abc",
        dirty=False,
        verdict=verdict,
        reason="postgresql://user:hunter2@db went away" if verdict != "proved" else None,
        started=f"2026-11-24T11:{minute:02}:00+00:00",
        finished=f"2026-11-24T12:{minute:02}:00+00:00",
        traffic=traffic_report(result, release),
    )
    return proof_facts(whole)


@dataclass(frozen=True)
class Request:
    """A client's request: `method path?query`, its `Authorization`, and a form."""

    line: str
    authorization: str | None
    form: Mapping[str, list[str]]


@dataclass
class PlayedRegistry:
    """A registry in this process. `auth`: None, `Basic` or `Bearer`; `api`: whether it has the referrers API.

    `answers` take precedence: `METHOD /path` → statuses, headers and bodies, each used once and the last one forever.
    """

    address: str = ""
    auth: str | None = None
    api: bool = True
    old: bool = False  # reports the type of the config, as registries did before artifacts had one
    public: bool = False  # gives a token to whoever has no login
    realm: str | None = None
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return its answer to a request."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        form = parse_qs(body.decode()) if path == "/token" else {}
        self.requests.append(Request(f"{method} {target}", headers.get("Authorization"), form))
        set_answers = self.answers.get(f"{method} {path}")
        if set_answers:
            return set_answers.pop(0) if len(set_answers) > 1 else set_answers[0]
        if path == "/token":
            return self._token(headers, form)
        if self.auth and headers.get("Authorization") != self._wanted():
            realm = self.realm or f"http://{self.address}/token"
            return 401, {"WWW-Authenticate": f'{self.auth} realm="{realm}",service="played"'}, b""
        return self._have(method, path, query, headers.get("Content-Type", ""), body)

    def _have(self, method: str, path: str, query: Mapping[str, list[str]], kind: str, body: bytes) -> Answer:
        what, _, name = path.removeprefix("/v2/team/board/").partition("/")
        match what:
            case "blobs":
                return self._blob(method, name, query, body)
            case "manifests":
                return self._manifest(method, name, kind, body)
            case "referrers" if self.api:
                return self._referrers(name)
        return 404, {}, b"404 page not found"

    def _wanted(self) -> str:
        return f"Bearer {TOKEN}" if self.auth == "Bearer" else basic(USER, PASSWORD)

    def _token(self, headers: Mapping[str, str], form: Mapping[str, list[str]]) -> Answer:
        known = headers.get("Authorization") == basic(USER, PASSWORD) or form.get("refresh_token") == [PASSWORD]
        known = known or (self.public and "Authorization" not in headers)
        return (200, {}, json.dumps({"token": TOKEN}).encode()) if known else (401, {}, b"{}")

    def _blob(self, method: str, name: str, query: Mapping[str, list[str]], body: bytes) -> Answer:
        if method == "POST":
            return 202, {"Location": "/v2/team/board/blobs/uploads/1?state=x"}, b""
        if method == "PUT":
            self.blobs[query["digest"][0]] = body
            return 201, {}, b""
        return (200, {}, self.blobs[name]) if name in self.blobs else (404, {}, b"")

    def _manifest(self, method: str, name: str, kind: str, body: bytes) -> Answer:
        if method == "PUT":
            self.manifests[name] = self.manifests[digest_of(body)] = (kind, body)
            subject = json.loads(body).get("subject")
            return 201, {"OCI-Subject": subject["digest"]} if self.api and subject else {}, b""
        if name not in self.manifests:
            return 404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'
        kind, body = self.manifests[name]
        return 200, {"Content-Type": kind}, body

    def _referrers(self, digest: str) -> Answer:
        listed = []
        for name, (kind, body) in self.manifests.items():
            content = json.loads(body)
            if name.startswith("sha256:") and content.get("subject", {}).get("digest") == digest:
                told = {"artifactType": content["config"]["mediaType"]} if self.old else {}
                told |= {
                    key: content[key] for key in ("artifactType", "annotations") if key in content and not self.old
                }
                listed.append({"mediaType": kind, "digest": name, "size": len(body), **told})
        return 200, {}, written({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": listed})


def basic(user: str, password: str) -> str:
    """Return the value of an `Authorization` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextlib.contextmanager
def played(**how: Any) -> Iterator[PlayedRegistry]:
    """Run a played registry with the fields `how`, on a port of this machine."""
    registry = PlayedRegistry(**how)
    with serving(registry.answer) as port:
        registry.address = f"localhost:{port}"
        yield registry
