"""Where secrets come from: a command that prints them, and the one that takes them back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pyrage
import pytest

from pipeline.config.project import load_project
from pipeline.config.settings import needed_secrets
from pipeline.config.sources import Source, environment_values
from pipeline.errors import UsageError
from tests.tools import need

VALUE, OTHER = "canary-of-the-source-1", "canary-of-the-source-2"
WHERE = "pyproject.toml [tool.slipway.environments.staging]: secrets: "


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs `code`."""
    return (sys.executable, "-c", code, *arguments)


def prints(text: str) -> Source:
    """Return a source that prints `text`."""
    return Source(command=python("import sys; sys.stdout.write(sys.argv[1])", text))


def kept(path: Path) -> Source:
    """Return a source that keeps its secrets in a file."""
    take = python("import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.stdin.read())", str(path))
    return Source(command=python("import sys; print(open(sys.argv[1]).read(), end='')", str(path)), write=take)


def problem(source: Source, root: Path) -> str:
    """Return the one line that says why `source` cannot be read; it has no value in it."""
    with pytest.raises(UsageError) as caught:
        source.read(root, "staging")
    [line] = caught.value.problems
    assert line.startswith(WHERE)
    assert "\n" not in line
    assert VALUE not in line
    return line.removeprefix(WHERE)


class TestRead:
    @pytest.mark.parametrize(
        "text",
        [
            f"# a comment\nSERVICE_TOKEN={VALUE}\nexport REDIS_PASSWORD='{OTHER}'\nJWT_SECRET_KEY=\n",
            json.dumps({"SERVICE_TOKEN": VALUE, "REDIS_PASSWORD": OTHER, "JWT_SECRET_KEY": ""}),
        ],
    )
    def test_takes_lines_and_json(self, tmp_path: Path, text: str) -> None:
        """An empty value is unset, as in `.env`."""
        assert prints(text).read(tmp_path, "staging") == {"SERVICE_TOKEN": VALUE, "REDIS_PASSWORD": OTHER}

    def test_runs_in_the_folder_of_the_project(self, tmp_path: Path) -> None:
        """So a relative path means a file of the repository, wherever somebody is."""
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets/staging.env").write_text(f"SERVICE_TOKEN={VALUE}\n")
        assert Source(command=("cat", "secrets/staging.env")).read(tmp_path, "staging") == {"SERVICE_TOKEN": VALUE}

    @pytest.mark.parametrize(
        ("code", "said"),
        [
            ("print('SERVICE_TOKEN'); print('x=', end='')", "what `python` prints: line 1: must be NAME=VALUE"),
            ("pass", "what `python` prints: there is no NAME=VALUE in it: does it print the secrets?"),
            ("print('{\"SERVICE_TOKEN\": ')", "begins as JSON and is not: print an object, or lines NAME=VALUE"),
            ("print('{\"SERVICE_TOKEN\": 3}')", "SERVICE_TOKEN: must be text, in one object of names and values"),
            ("import sys; sys.exit(3)", "`python` failed (3): it said nothing"),
            ("import sys; sys.exit('no\\n  key\\n')", "`python` failed (1): no key"),
        ],
    )
    def test_refuses_anything_else_in_one_line(self, tmp_path: Path, code: str, said: str) -> None:
        """With what the command said, where it said why."""
        name = Path(sys.executable).name
        assert said.replace("`python`", f"`{name}`") in problem(Source(command=python(code)), tmp_path)

    def test_no_message_has_a_value(self, tmp_path: Path) -> None:
        """Not even where the command printed it before it failed, or says it itself."""
        code = f"import sys; print('SERVICE_TOKEN={VALUE}'); sys.exit('cannot use {VALUE}')"
        assert problem(Source(command=python(code)), tmp_path).endswith("failed (1): cannot use …")
        code = f"import sys; print('SERVICE_TOKEN={VALUE}'); sys.exit(1)"
        assert problem(Source(command=python(code)), tmp_path).endswith("failed (1): it said nothing")

    def test_refuses_what_is_no_secret(self, tmp_path: Path) -> None:
        """A typing error is found, and a setting has its place elsewhere."""
        said = problem(prints(f"SERVICE_TOKN={VALUE}\n"), tmp_path)
        assert said.startswith("SERVICE_TOKN is no secret of the service (")
        assert "SERVICE_TOKEN" in said
        assert problem(prints("LOG_LEVEL=DEBUG\n"), tmp_path).startswith("LOG_LEVEL is no secret")

    def test_gives_up_in_time(self, tmp_path: Path) -> None:
        """A command that waits for somebody ends the deploy before it began."""
        before = time.monotonic()
        source = Source(command=python("import time; time.sleep(60)"), timeout=1)
        assert "did not end within 1 s (`timeout`)" in problem(source, tmp_path)
        assert time.monotonic() - before < 20

    def test_names_a_program_that_is_missing(self, tmp_path: Path) -> None:
        """Or that may not be run."""
        assert "`no-such-vault` is no program here" in problem(Source(command=("no-such-vault",)), tmp_path)
        (tmp_path / "vault").write_text("")
        assert "`vault` cannot be run (Permission denied)" in problem(Source(command=("./vault",)), tmp_path)


class TestPut:
    def test_changes_what_is_asked_and_keeps_the_rest(self, tmp_path: Path) -> None:
        """Comments and what is not asked for stay; the value goes by standard input."""
        (tmp_path / "vault").write_text(f"# ours\nSERVICE_TOKEN={VALUE}\nREDIS_PASSWORD={VALUE}x\n")
        kept(tmp_path / "vault").put(tmp_path, "staging", {"SERVICE_TOKEN": OTHER, "SERVICE_TOKEN_PREVIOUS": VALUE})
        assert (tmp_path / "vault").read_text() == (
            f"# ours\nREDIS_PASSWORD={VALUE}x\nSERVICE_TOKEN={OTHER}\nSERVICE_TOKEN_PREVIOUS={VALUE}\n"
        )

    def test_writes_json_where_the_command_prints_it(self, tmp_path: Path) -> None:
        """As Vault's and AWS' command lines have it."""
        (tmp_path / "vault").write_text(json.dumps({"SERVICE_TOKEN": VALUE, "REDIS_PASSWORD": VALUE}))
        kept(tmp_path / "vault").put(tmp_path, "staging", {"SERVICE_TOKEN": OTHER})
        assert json.loads((tmp_path / "vault").read_text()) == {"SERVICE_TOKEN": OTHER, "REDIS_PASSWORD": VALUE}

    def test_reads_it_again(self, tmp_path: Path) -> None:
        """A command that writes to another place is found before anything is rolled out."""
        (tmp_path / "vault").write_text(f"SERVICE_TOKEN={VALUE}\n")
        source = Source(command=kept(tmp_path / "vault").command, write=kept(tmp_path / "another").write)
        with pytest.raises(UsageError, match=r"SERVICE_TOKEN: `.*` ended well, but `.*` prints another value"):
            source.put(tmp_path, "staging", {"SERVICE_TOKEN": OTHER})

    def test_no_message_has_what_was_given(self, tmp_path: Path) -> None:
        """Whatever the command says of it."""
        (tmp_path / "vault").write_text(f"SERVICE_TOKEN={VALUE}\n")
        code = "import sys; sys.exit('cannot take ' + sys.stdin.read())"
        source = Source(command=kept(tmp_path / "vault").command, write=python(code))
        with pytest.raises(UsageError) as caught:
            source.put(tmp_path, "staging", {"SERVICE_TOKEN": OTHER})
        assert str(caught.value).endswith("failed (1): cannot take SERVICE_TOKEN=…")


class TestEnvironmentValues:
    def test_the_secrets_are_the_commands_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither `.env`, nor a file that it names, nor the shell adds one; settings come from there as ever."""
        (tmp_path / ".env").write_text(
            f"SERVICE_TOKEN=of-env\nREDIS_PASSWORD=of-env\nJWT_SECRET_KEY_FILE={tmp_path}\nLOG_LEVEL=DEBUG\n"
        )
        monkeypatch.setenv("SERVICE_TOKEN", "of-the-shell")
        monkeypatch.setenv("DATABASE_URL", "postgresql://of-the-shell/x")
        values = environment_values(tmp_path, "staging", prints(f"SERVICE_TOKEN={VALUE}\n"))
        assert values == {"SERVICE_TOKEN": VALUE, "LOG_LEVEL": "DEBUG"}

    def test_a_role_goes_with_its_password(self, tmp_path: Path) -> None:
        """That of the command wins over that of `.env`, which stays where the command has none."""
        (tmp_path / ".env").write_text("POSTGRES_USER=board\n")
        text = f"POSTGRES_PASSWORD={VALUE}\n"
        assert environment_values(tmp_path, "staging", prints(text))["POSTGRES_USER"] == "board"
        given = environment_values(tmp_path, "staging", prints(f"{text}POSTGRES_USER=board-other\n"))
        assert given["POSTGRES_USER"] == "board-other"


class TestTheTable:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("secrets = { }", "secrets: missing key `command`: for example `command = "),
            ("secrets = { command = [] }", "secrets: command: must not be empty"),
            ('secrets = { command = "sops" }', "secrets: command: must be a list"),
            ('secrets = { command = ["sops"], writes = [] }', "secrets: unknown key `writes`: did you mean `write`?"),
            ('secrets = { command = ["sops"], timeout = 0 }', "secrets: timeout: must be 1 or more"),
        ],
    )
    def test_refuses_a_wrong_key_with_its_fix(self, tmp_path: Path, line: str, message: str) -> None:
        """As every table does."""
        table = (
            f'[project]\nname = "shop"\n[tool.slipway.environments.local]\ntarget = "local"\nurl = "http://x"\n{line}\n'
        )
        (tmp_path / "pyproject.toml").write_text(table)
        (tmp_path / "backend").mkdir()
        with pytest.raises(UsageError) as caught:
            load_project(tmp_path)
        [problem] = caught.value.problems
        assert message in problem


class TestSops:
    """The first example of docs/13-secrets.md, with the real program and real keys of age."""

    @pytest.fixture(name="source")
    def _source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
        sops = need("sops")
        name = "secrets/staging.env"
        dotenv = ("--input-type", "dotenv", "--output-type", "dotenv")
        encrypt = (sops, "encrypt", "--filename-override", name, *dotenv, "--output", name)
        one = Source(command=(sops, "decrypt", "--output-type", "dotenv", name), write=encrypt)
        identity = pyrage.x25519.Identity.generate()
        rule = f"creation_rules:\n  - path_regex: ^secrets/staging\\.env$\n    age: {identity.to_public()}\n"
        (tmp_path / ".sops.yaml").write_text(rule)
        (tmp_path / "secrets").mkdir()
        (tmp_path / name).write_text("".join(f"{secret}={VALUE}-{secret}\n" for secret in needed_secrets()))
        subprocess.run([sops, "encrypt", "--in-place", name], cwd=tmp_path, check=True)
        monkeypatch.setenv("SOPS_AGE_KEY", str(identity))
        return one

    def test_gives_what_was_encrypted(self, tmp_path: Path, source: Source) -> None:
        """The file itself has no value in it."""
        assert VALUE not in (tmp_path / "secrets/staging.env").read_text()
        assert source.read(tmp_path, "staging") == {name: f"{VALUE}-{name}" for name in needed_secrets()}

    def test_takes_a_rotated_value(self, tmp_path: Path, source: Source) -> None:
        """It is encrypted for the same recipients; nothing else is left beside the file."""
        source.put(tmp_path, "staging", {"SERVICE_TOKEN": OTHER})
        assert source.read(tmp_path, "staging")["SERVICE_TOKEN"] == OTHER
        text = (tmp_path / "secrets/staging.env").read_text()
        assert not [value for value in (VALUE, OTHER) if value in text]
        assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["staging.env"]

    def test_nobody_reads_it_without_the_key(
        self, tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One line says so, without a traceback."""
        monkeypatch.delenv("SOPS_AGE_KEY")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert "`sops` failed (128): Failed to get the data key required to decrypt" in problem(source, tmp_path)
