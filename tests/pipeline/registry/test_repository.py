"""How a registry is asked: logins, and what is said where it does not do what it should."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SlipwayError, UsageError
from pipeline.registry import connection
from pipeline.registry.connection import RegistryError, RegistryLacks
from pipeline.registry.credentials import find_credentials
from pipeline.registry.image import resolve
from pipeline.registry.proofs import attach_proof, proofs
from pipeline.registry.repository import Repository, digest_of
from tests.backend.process import free_port
from tests.registries import PASSWORD, TOKEN, USER, PlayedRegistry, basic, played, push_image, report

Login = Callable[[dict[str, Any]], None]
MANIFEST = "GET /v2/team/board/manifests/latest"


@pytest.fixture(autouse=True, name="login")
def _login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """Writes docker's configuration; there is none before. Helpers are looked for in a folder of the test's."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(connection, "PAUSES", (0.01, 0.01))

    def write(config: dict[str, Any]) -> None:
        (tmp_path / ".docker").mkdir(exist_ok=True)
        (tmp_path / ".docker/config.json").write_text(json.dumps(config))

    return write


@pytest.fixture(name="registry")
def _registry() -> Iterator[PlayedRegistry]:
    with played() as registry:
        yield registry


def helper(folder: Path, name: str, script: str) -> None:
    """A credential helper."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def login_of(host: str, user: str = USER, password: str = PASSWORD) -> dict[str, Any]:
    """What `docker login` writes without a helper."""
    return {"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}}


class TestLogins:
    def test_a_challenge_is_answered_with_a_token(self, registry: PlayedRegistry, login: Login) -> None:
        """As ghcr.io has it: the password goes to the token's address alone, for this repository and right alone."""
        registry.auth = "Bearer"
        login(login_of(registry.address))
        digest = push_image(f"{registry.address}/team/board")
        registry.requests.clear()
        attach_proof(f"{registry.address}/team/board@{digest}", report())
        asked, *rest = [one for one in registry.requests if one.line.startswith("GET /token")]
        assert rest == []
        assert asked.line == "GET /token?scope=repository%3Ateam%2Fboard%3Apull%2Cpush&service=played"
        assert asked.authorization == basic(USER, PASSWORD)
        others = {one.authorization for one in registry.requests if one is not asked}
        assert others == {None, f"Bearer {TOKEN}"}

    def test_a_reader_asks_for_no_more_than_to_read(self, registry: PlayedRegistry, login: Login) -> None:
        """Production's own login needs no right to push."""
        registry.auth = "Bearer"
        login(login_of(registry.address))
        proofs(f"{registry.address}/team/board", f"sha256:{'0' * 64}")
        assert any("%3Apull&" in one.line for one in registry.requests)
        assert not any("push" in one.line for one in registry.requests)

    def test_a_public_image_needs_no_login(self, registry: PlayedRegistry) -> None:
        """A token for nobody, as ghcr.io and Docker Hub give one."""
        push_image(f"{registry.address}/team/board")
        registry.auth, registry.public = "Bearer", True
        assert resolve(f"{registry.address}/team/board").platforms

    def test_a_basic_challenge(self, registry: PlayedRegistry, login: Login) -> None:
        """A registry behind a password file."""
        registry.auth = "Basic"
        login(login_of(registry.address))
        push_image(f"{registry.address}/team/board")
        assert resolve(f"{registry.address}/team/board").platforms

    def test_a_refresh_token(self, registry: PlayedRegistry, login: Login) -> None:
        """What `docker login` keeps of registries with an identity service; sent as a form, in no address."""
        registry.auth = "Bearer"
        login({"auths": {registry.address: {"identitytoken": PASSWORD}}})
        push_image(f"{registry.address}/team/board")
        [asked] = [one for one in registry.requests if "/token" in one.line]
        assert asked.line == "POST /token"
        assert asked.form["grant_type"] == ["refresh_token"]

    @pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
    def test_a_helper(self, key: str, registry: PlayedRegistry, login: Login, tmp_path: Path) -> None:
        """Named for one registry, or for all."""
        registry.auth = "Bearer"
        answer = json.dumps({"ServerURL": registry.address, "Username": USER, "Secret": PASSWORD})
        helper(tmp_path, "test", f"read -r host; [ \"$host\" = {registry.address} ] && echo '{answer}'")
        login({key: {registry.address: "test"} if key == "credHelpers" else "test", "auths": {registry.address: {}}})
        push_image(f"{registry.address}/team/board")

    @pytest.mark.parametrize(
        ("script", "says"),
        [
            (None, "docker-credential-test: not on the PATH"),
            (f"echo {PASSWORD}", "docker-credential-test: its answer for example.com cannot be read"),
        ],
    )
    def test_a_helper_that_does_not_help(self, script: str | None, says: str, login: Login, tmp_path: Path) -> None:
        """Which one, and what to do; what it said is not repeated."""
        login({"credHelpers": {"example.com": "test"}})
        if script:
            helper(tmp_path, "test", script)
        with pytest.raises(SlipwayError, match=says) as raised:
            find_credentials("example.com")
        assert PASSWORD not in str(raised.value)

    def test_a_helper_without_an_entry(self, login: Login, tmp_path: Path) -> None:
        """The file is looked into, as for a registry that somebody logged in to before there was a helper."""
        login({"credsStore": "test", **login_of("https://example.com/v1/")})
        helper(tmp_path, "test", "echo credentials not found in native keychain; exit 1")
        assert find_credentials("other.example.com") is None
        found = find_credentials("example.com")
        assert found is not None
        assert (found.username, found.secret) == (USER, PASSWORD)
        assert PASSWORD not in repr(found)

    def test_docker_hub_has_a_key_of_its_own(self, login: Login) -> None:
        """The one that docker writes."""
        login(login_of("https://index.docker.io/v1/"))
        assert find_credentials("docker.io") is not None

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("{", "config.json: not valid JSON: fix it, or `docker login example.com` again"),
            ("[]", "config.json: not a JSON object"),
            ('{"auths": {"example.com": {"auth": "?"}}}', "the login of example.com cannot be read"),
        ],
    )
    def test_a_broken_file(self, text: str, says: str, login: Login, tmp_path: Path) -> None:
        """Which file, and how to mend it."""
        login({})
        (tmp_path / ".docker/config.json").write_text(text)
        with pytest.raises(UsageError, match=says):
            find_credentials("example.com")

    def test_no_password_goes_where_there_is_no_tls(self, registry: PlayedRegistry, login: Login) -> None:
        """A challenge that names an outside address without it."""
        registry.auth, registry.realm = "Bearer", "http://example.com/token"
        login(login_of(registry.address))
        with pytest.raises(RegistryError, match="logins to an address without TLS"):
            resolve(f"{registry.address}/team/board")

    def test_no_token_follows_to_another_host(self, registry: PlayedRegistry, login: Login) -> None:
        """Registries keep blobs in a store of somebody else's, and uploads go where the registry says."""
        registry.auth = "Bearer"
        login(login_of(registry.address))
        with played() as store:
            content = b"a blob"
            elsewhere = f"http://127.0.0.1:{store.address.rpartition(':')[2]}/v2/team/board/blobs/"
            store.blobs[digest_of(content)] = content
            path = f"/v2/team/board/blobs/{digest_of(content)}"
            registry.answers[f"GET {path}"] = [
                (401, {"WWW-Authenticate": f'Bearer realm="http://{registry.address}/token"'}, b""),
                (307, {"Location": f"{elsewhere}{digest_of(content)}"}, b""),
            ]
            registry.answers["POST /v2/team/board/blobs/uploads/"] = [(202, {"Location": f"{elsewhere}uploads/1"}, b"")]
            with Repository(f"{registry.address}/team/board", write=True) as repository:
                assert repository.blob(digest_of(content), limit=100) == content
                repository.put_blob(b"another")
            assert [one.authorization for one in store.requests] == [None, None]


class TestErrors:
    def test_away(self) -> None:
        """One line within seconds."""
        with pytest.raises(RegistryError, match=r"^localhost:\d+: no connection: is the registry up"):
            resolve(f"localhost:{free_port()}/team/board")

    def test_no_login(self, registry: PlayedRegistry, tmp_path: Path) -> None:
        """Where none was found, and how to get one."""
        registry.auth = "Bearer"
        login = (
            rf"wants a login \(401\), and {tmp_path}/.docker/config.json has none: `docker login {registry.address}`"
        )
        with pytest.raises(RegistryError, match=login):
            resolve(f"{registry.address}/team/board")

    @pytest.mark.parametrize("auth", ["Basic", "Bearer"])
    def test_a_wrong_login(self, auth: str, registry: PlayedRegistry, login: Login) -> None:
        """Neither the wrong one nor a part of it is shown."""
        registry.auth = auth
        login(login_of(registry.address, password="wr0ng-password"))
        with pytest.raises(RegistryError, match=r"is not accepted \(401\): `docker login") as raised:
            resolve(f"{registry.address}/team/board")
        assert "wr0ng" not in str(raised.value)
        assert len(raised.value.problems) == 1

    def test_no_right(self, registry: PlayedRegistry, login: Login) -> None:
        """Whether it was to read or to write."""
        login(login_of(registry.address))
        registry.answers["POST /v2/team/board/blobs/uploads/"] = [(403, {}, b"{}")]
        with pytest.raises(RegistryError, match=r"team/board: no right to write to it \(403\)"):
            push_image(f"{registry.address}/team/board")

    def test_not_there(self, registry: PlayedRegistry) -> None:
        """A kind of its own, for those who expect it."""
        with pytest.raises(RegistryLacks, match="team/board:gone: not in the registry"):
            resolve(f"{registry.address}/team/board:gone")

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            ((413, {}, b""), r"too large for localhost:\d+ \(413\): raise the limit"),
            ((429, {"Retry-After": "30"}, b""), r"limits the rate of requests \(429\): try again in 30 s"),
            ((500, {}, b'{"errors":[{"code":"UNKNOWN","message":"token s3cret"}]}'), r"answered 500 UNKNOWN: its log"),
            ((400, {}, b"<html>s3cret"), r"answered 400: its log says why"),
            ((200, {}, b"<html>"), r"localhost:\d+ did not send a manifest: is it a registry\?"),
            ((200, {}, b" " * (4 * 2**20 + 1)), r"too large, over 4194304 bytes"),
            ((302, {"Location": "/v2/team/board/manifests/latest"}, b""), "its answers lead nowhere"),
        ],
    )
    def test_other_answers(
        self, answer: tuple[int, dict[str, str], bytes], says: str, registry: PlayedRegistry
    ) -> None:
        """A line each; a registry's own words may repeat what they were sent, and are left out."""
        registry.answers[MANIFEST] = [answer]
        with pytest.raises(RegistryError, match=says) as raised:
            resolve(f"{registry.address}/team/board")
        assert len(raised.value.problems) == 1
        assert "s3cret" not in str(raised.value)

    def test_other_content_than_its_digest(self, registry: PlayedRegistry) -> None:
        """A registry is not trusted with what a digest is."""
        registry.manifests[f"sha256:{'0' * 64}"] = ("", b"{}")
        with pytest.raises(RegistryError, match="the registry sent other content"):
            resolve(f"{registry.address}/team/board@sha256:{'0' * 64}")

    def test_a_proxy_that_restarts_is_asked_again(self, registry: PlayedRegistry) -> None:
        """Twice; then it is said."""
        push_image(f"{registry.address}/team/board")
        kind, body = registry.manifests["latest"]
        registry.answers[MANIFEST] = [(503, {}, b""), (502, {}, b""), (200, {"Content-Type": kind}, body)]
        assert resolve(f"{registry.address}/team/board").platforms
        registry.answers[MANIFEST] = [(503, {}, b"")]
        with pytest.raises(RegistryError, match="answered 503"):
            resolve(f"{registry.address}/team/board")
