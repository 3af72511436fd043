"""`python -m backend.accounts`: what it does to accounts, and what it says where it cannot."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple, TypeAlias

import httpx2
import pytest
from argon2 import PasswordHasher

from backend.accounts.__main__ import main
from tests.backend.accounts.conftest import AUTH, HASH, Sql, bearer, refresh, sign_in
from tests.services import ROOT

OTHER = PasswordHasher(1, 1024, 1).hash("another password")
ANNA = {"name": "anna", "role": "deployer", "hash": HASH}


class Done(NamedTuple):
    """What a command came to: its exit code, and what it printed."""

    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Done]


@pytest.fixture(name="run")
def _run(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def run(verb: str, given: object = None) -> Done:
        text = given if isinstance(given, str) else json.dumps(given or {})
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = main([verb])
            except SystemExit as error:
                code = int(error.code or 0)
        return Done(code, out.getvalue(), err.getvalue())

    return run


def names(run: Run) -> list[tuple[str, str, bool]]:
    """The accounts that `list` prints."""
    return [(one["name"], one["role"], one["disabled"]) for one in json.loads(run("list").out)["accounts"]]


def test_accounts_come_change_and_go(run: Run) -> None:
    """Each verb prints what it did as JSON, and `list` shows it."""
    assert json.loads(run("list").out) == {"accounts": []}
    for name, role in (("bert", "viewer"), ("anna", "deployer"), ("c.d_e@f-1", "admin")):
        done = run("add", {**ANNA, "name": name, "role": role})
        assert (done.code, json.loads(done.out), done.err) == (0, {"name": name, "done": "add"}, "")
    for verb in ("disable", "disable"):
        assert json.loads(run(verb, {"name": "anna"}).out) == {"name": "anna", "done": verb}
    assert names(run) == [("anna", "deployer", True), ("bert", "viewer", False), ("c.d_e@f-1", "admin", False)]
    assert run("enable", {"name": "anna"}).code == 0
    assert run("remove", {"name": "bert"}).code == 0
    assert names(run) == [("anna", "deployer", False), ("c.d_e@f-1", "admin", False)]


def test_works_as_a_process_of_production_with_the_database_alone(environ: dict[str, str]) -> None:
    """As a deploy runs it: no other setting is read, and nothing but JSON is printed."""
    known = {"PATH", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
    given = {name: value for name, value in {**os.environ, **environ}.items() if name in known}
    command = [sys.executable, "-m", "backend.accounts", "list"]
    done = subprocess.run(
        command,
        env={**given, "ENVIRONMENT": "production"},
        cwd=ROOT,
        input="{}",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"accounts": []}\n', "")


@pytest.mark.parametrize(
    ("verb", "given", "code", "said"),
    [
        ("add", ANNA, 1, "name: there is an account `anna` already"),
        ("password", {"name": "bert", "hash": HASH}, 1, "name: there is no account `bert`"),
        ("disable", {"name": "bert"}, 1, "name: there is no account `bert`"),
        ("enable", {"name": "bert"}, 1, "name: there is no account `bert`"),
        ("remove", {"name": "bert"}, 1, "name: there is no account `bert`"),
        ("add", {**ANNA, "name": "Anna"}, 2, "name: must have 1 to 64 of a-z, 0-9"),
        ("add", {**ANNA, "name": "an\x00na"}, 2, "name: must have"),
        ("add", {**ANNA, "name": "anna\n"}, 2, "name: must have"),
        ("add", {**ANNA, "role": "owner"}, 2, "role: must be one of viewer, deployer, admin"),
        ("add", {**ANNA, "hash": "a password"}, 2, "hash: must be an argon2id hash"),
        ("add", {**ANNA, "hash": HASH.replace("argon2id", "argon2i")}, 2, "hash: must be an argon2id hash"),
        ("add", {**ANNA, "hash": HASH.replace("m=19456", "m=9999999")}, 2, "hash: must be an argon2id hash"),
        ("add", {"name": "anna"}, 2, '`add` takes one JSON object with "name", "role", "hash"'),
        ("add", {**ANNA, "password": "x"}, 2, "`add` takes one JSON object"),
        ("list", {"name": "anna"}, 2, "`list` takes one JSON object with nothing in it"),
        ("remove", ["anna"], 2, '`remove` takes one JSON object with "name"'),
        ("remove", "anna", 2, "standard input: must be one JSON object"),
    ],
)
def test_says_in_a_line_why_not(run: Run, verb: str, given: object, code: int, said: str) -> None:
    """1 where the account is not so, 2 where the request is wrong; no hash is repeated."""
    assert run("add", ANNA).code == 0
    done = run(verb, given)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert said in done.err
    assert HASH[-20:] not in done.err


def test_a_verb_that_there_is_not_is_bad_usage(run: Run) -> None:
    """As argparse says it."""
    assert run("promote").code == 2


def test_a_database_that_is_away_or_has_no_tables_is_said(run: Run, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, with what to do; a wrong setting is 2."""
    sql("ALTER TABLE accounts RENAME TO gone")
    try:
        assert run("list") == Done(
            1, "", "accounts: the database has no tables for accounts: deploy this release first\n"
        )
    finally:
        sql("ALTER TABLE gone RENAME TO accounts")
    monkeypatch.setenv("POSTGRES_HOST", "/nowhere")
    done = run("list")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("accounts: the database: ")
    monkeypatch.setenv("POSTGRES_PORT", "many")
    assert run("list").code == 2


@pytest.mark.parametrize(("verb", "given"), [("password", {"hash": OTHER}), ("disable", {}), ("remove", {})])
async def test_ends_the_sessions(run: Run, client: httpx2.AsyncClient, verb: str, given: dict[str, Any]) -> None:
    """A changed password, a disabled and a removed account: no session goes on, and those of others do."""

    async def command(verb: str, **fields: str) -> None:
        done = await asyncio.to_thread(run, verb, fields)
        assert done.code == 0, done.err

    await command("add", **ANNA)
    await command("add", **{**ANNA, "name": "bert"})
    anna, bert = [(await sign_in(client, name)) for name in ("anna", "bert")]
    await command(verb, name="anna", **given)
    assert (await refresh(client, anna["refresh_token"])).status_code == 401
    assert (await client.get(f"{AUTH}/me", headers=bearer(anna["access_token"]))).status_code == 401
    assert (await refresh(client, bert["refresh_token"])).status_code == 200
    if verb == "disable":
        await command("enable", name="anna")
        assert (await refresh(client, anna["refresh_token"])).status_code == 401, "what was ended stays so"
