"""Access tokens: which are accepted."""

from __future__ import annotations

import base64
import json
import time
from itertools import pairwise
from typing import Any
from uuid import UUID

import httpx2
import jwt
import pytest
from pydantic import SecretStr

from backend.accounts.schemas import Role
from backend.accounts.tokens import KNOWN, AccessTokens
from backend.settings import Settings
from tests.backend.accounts.conftest import AUTH, bearer
from tests.conftest import KEY, TOKEN
from tests.notes import NOTES

OTHER = KEY[::-1]
ID = UUID(int=7)


def tokens(key: str | None = KEY, previous: str | None = None, **changes: Any) -> AccessTokens:
    """The access tokens of a service with these keys."""
    keys = {"jwt_secret_key": key and SecretStr(key), "jwt_secret_key_previous": previous and SecretStr(previous)}
    return AccessTokens(Settings().model_copy(update={**keys, **changes}))


def signed(of: AccessTokens, role: Role = Role.DEPLOYER) -> str:
    """A good token."""
    return of.sign(ID, ID, name="anna", role=role)


def changed(header: dict[str, Any] | None = None, *, key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    """A good token with another header and other claims (None: without), signed by who has the `key`."""
    good = signed(tokens())
    payload = {**jwt.decode(good, options={"verify_signature": False}), **claims}
    headers = {**jwt.get_unverified_header(good), "alg": algorithm, **(header or {})}
    return jwt.encode(_without_none(payload), key, algorithm=algorithm, headers=_without_none(headers))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def unsigned(algorithm: str) -> str:
    """A token that says `algorithm`, and has no signature."""
    head, body, _ = signed(tokens()).split(".")
    header = json.loads(base64.urlsafe_b64decode(f"{head}=="))
    forged = base64.urlsafe_b64encode(json.dumps({**header, "alg": algorithm}).encode()).decode().rstrip("=")
    return f"{forged}.{body}."


BAD = {
    "none": unsigned("none"),
    "None": unsigned("None"),
    "unsigned": unsigned("HS256"),
    "another algorithm": changed(algorithm="HS512"),
    "another key": changed(key=OTHER),
    "no kid": changed({"kid": None}),
    "an unknown kid": changed({"kid": "00000000"}),
    "a kid that is no text": ".".join((
        base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"at+jwt","kid":[]}').decode().rstrip("="),
        *signed(tokens()).split(".")[1:],
    )),
    "a deep header": base64.urlsafe_b64encode(b"[" * 1500).decode() + ".e30.x",
    "another type": changed({"typ": "JWT"}),
    "another audience": changed(aud="another:production"),
    "another issuer": changed(iss="elsewhere"),
    "expired": changed(exp=int(time.time()) - 1),
    "no expiry": changed(exp=None),
    "no jti": changed(jti=None),
    "no session": changed(sid=None),
    "an unknown role": changed(role="owner"),
    "a subject that is no id": changed(sub="anna"),
    "truncated": signed(tokens())[:-1],
    "long": signed(tokens()) + "A" * 4096,
    "empty": "",
    "no token": "a.b.c",
}  # fmt: skip


class TestAccepted:
    def test_is_a_token_until_it_expires(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """JWT_EXPIRE_MINUTES after it was signed, to the second, also where it was seen before."""
        service = tokens(jwt_expire_minutes=2)
        token = signed(service)
        claims = service.read(token)
        assert claims is not None
        assert (claims.account, claims.session, claims.name, claims.role) == (ID, ID, "anna", Role.DEPLOYER)
        now = time.time()
        for seconds, accepted in ((118, True), (121, False)):
            monkeypatch.setattr(time, "time", lambda seconds=seconds: now + seconds)
            assert (service.read(token) is not None) == accepted

    def test_is_one_of_a_replica_whose_clock_is_a_minute_ahead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or behind."""
        now = time.time()
        for skew in (60, -60):
            monkeypatch.setattr(time, "time", lambda skew=skew: now + skew)
            token = signed(tokens())
            monkeypatch.undo()
            assert tokens().read(token) is not None

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    def test_is_what_jwt_algorithm_says(self, algorithm: str) -> None:
        """And nothing else."""
        services = {name: tokens(jwt_algorithm=name) for name in ("HS256", "HS384", "HS512")}
        token = signed(services[algorithm])
        assert jwt.get_unverified_header(token)["alg"] == algorithm
        assert [name for name, service in services.items() if service.read(token)] == [algorithm]

    def test_goes_on_through_a_rotation_of_the_key(self) -> None:
        """At each of its steps, a token of the replicas before is accepted by those after, and the other way round."""
        steps = [tokens(KEY), tokens(KEY, OTHER), tokens(OTHER, KEY), tokens(OTHER)]
        for before, after in pairwise(steps):
            assert before.read(signed(after)) is not None or after is steps[3]
            assert after.read(signed(before)) is not None or after is steps[3]
        assert steps[3].read(signed(steps[2])) is not None

    def test_is_not_one_of_the_key_after_next(self) -> None:
        """In one rollout, a replica of before would refuse what one of after has signed: that is why there are two."""
        assert tokens(KEY).read(signed(tokens(OTHER, KEY))) is None

    def test_is_remembered_up_to_a_number(self) -> None:
        """So that tokens cannot fill the memory."""
        service = tokens()
        for _ in range(KNOWN + 5):
            assert service.read(signed(service)) is not None
        assert len(service._known) == KNOWN

    def test_names_its_key_without_telling_it(self) -> None:
        """`kid` follows from the key, so that each replica knows it by the same name."""
        names = [jwt.get_unverified_header(signed(tokens(key)))["kid"] for key in (KEY, OTHER, KEY)]
        assert names[0] == names[2] != names[1]


class TestRefused:
    @pytest.mark.parametrize("kind", BAD)
    def test_is_everything_else(self, kind: str) -> None:
        """Without an error, and without being remembered."""
        service = tokens()
        assert service.read(BAD[kind]) is None
        assert service._known == {}

    @pytest.mark.usefixtures("notes", "app")
    @pytest.mark.parametrize("kind", ["none", "another algorithm", "another key", "another audience", "expired"])
    async def test_is_a_401_problem(self, client: httpx2.AsyncClient, kind: str) -> None:
        """On a route that writes, and on those of the account; a public read does not ask."""
        for answer in (
            await client.post(NOTES, json={"text": "x"}, headers=bearer(BAD[kind])),
            await client.get(f"{AUTH}/me", headers=bearer(BAD[kind])),
        ):
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get(NOTES, headers=bearer(BAD[kind]))).status_code == 200

    async def test_is_a_service_token_where_an_account_is_meant(self, client: httpx2.AsyncClient) -> None:
        """A pipeline has no sessions."""
        assert (await client.get(f"{AUTH}/me", headers=bearer(TOKEN))).status_code == 403
