"""A clone of this repository that is deployed for real, in a folder, on a port and with data stores of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import asyncpg
import httpx2
import psutil
from dotenv import dotenv_values

from pipeline.config.project import load_project
from pipeline.config.settings import COMPOSE_IMAGES, variables
from pipeline.targets.local.layout import make_layout
from pipeline.targets.local.stores import SUPERUSER
from tests.deploy.machine import free_port, processes, roster, scratch_folders, wait_until
from tests.deploy.runs import Deploy, Outcome, newest
from tests.notes import NOTES, replace_domain

__all__ = ["Checkout"]

ROOT = Path(__file__).parents[2]
IDENTITY = ("-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "-c", "commit.gpgsign=false")
ENVIRONMENT_VERBS = (
    *("deploy", "rollback", "watch", "rotate", "status", "doctor", "releases", "logs", "down"),
    *("backup", "backups", "restore", "drill", "upgrade-database"),
)
EVERYTHING = {"supervisord": 1, "postgres": 1, "valkey": 1, "edge": 1, "replica": 2, "watchdog": 1}


@dataclass
class Checkout:
    """The clone in `root`. Its environment is `environment`; `environ` is added to that of each run."""

    environment: ClassVar[str] = "local"
    root: Path
    port: int = field(default_factory=free_port)
    environ: dict[str, str] = field(default_factory=dict)
    asked: str = "/ready"  # what a user asks for
    started: list[Deploy] = field(default_factory=list)

    @classmethod
    def make(cls, template: Path, root: Path, *, rate: int = 100, bake_seconds: int = 3, own: bool = False) -> Self:
        """Copy `template` and commit it, with the tests' notes as its domain, or with its `own`.

        Its proofs and drains are shorter than the shipped ones, to save minutes.
        """
        shutil.copytree(template, root)
        if not own:
            replace_domain(root)
        clone = cls(root)
        clone.environ |= {"EDGE_PORT": str(clone.port), "DRAIN_SECONDS": "1"}
        # A secret of the service that `init` cannot make.
        given = [one.name for one in variables() if one.needed and not one.generate]
        clone.environ |= dict.fromkeys(given, "a-value-of-the-tests-Zq8")
        clone.configure(rate=rate, bake_seconds=bake_seconds)
        reads = [one.path for one in load_project(root).requests if one.method == "GET" and "{" not in one.path]
        clone.asked = reads[0] if reads else clone.asked
        clone.git("init", "--quiet")
        clone.git("add", "--all")
        clone.git(*IDENTITY, "commit", "--quiet", "--message", "the template")
        return clone

    # --- running the pipeline ---

    def start(self, verb: str, *arguments: str, **environ: str) -> Deploy:
        """Start a verb; `deploy` and `rollback` with `--json`."""
        named = [self.environment] if verb in ENVIRONMENT_VERBS and self.environment != "local" else []
        given = [verb, *named, *arguments, *(["--json"] if verb in ("deploy", "rollback") else [])]
        return self.start_program([sys.executable, "-m", "pipeline", *given], **environ)

    def start_program(self, command: list[str], **environ: str) -> Deploy:
        """Start `command` in the clone as a user would: no setting of whoever runs the tests reaches it."""
        names = {variable.name for variable in [*variables(), *COMPOSE_IMAGES]}
        outer = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in names}
        logs = self.root.with_name(f"{self.root.name}-logs")
        logs.mkdir(exist_ok=True)
        number = len(list(logs.iterdir())) // 2
        files = (logs / f"{number:03}.out", logs / f"{number:03}.err")
        with files[0].open("wb") as out, files[1].open("wb") as err:
            known = newest(self.records)
            process = subprocess.Popen(
                command, cwd=self.root, env={**outer, **self.environ, **environ},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
        self.started.append(Deploy(process, files, self.records, known))
        return self.started[-1]

    def run(self, verb: str, *arguments: str, **environ: str) -> Outcome:
        """Run a verb to its end."""
        return self.start(verb, *arguments, **environ).finish()

    def deploy(self, *arguments: str, **environ: str) -> Outcome:
        """Deploy the clone."""
        return self.run("deploy", *arguments, **environ)

    def proved(self, *arguments: str, **environ: str) -> Outcome:
        """Deploy the clone; the release must be proved without a failure."""
        outcome = self.deploy(*arguments, **environ)
        assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
        assert (outcome.traffic["failed"], outcome.traffic["writes_lost"]) == (0, 0), str(outcome)
        return outcome

    def status(self) -> dict[str, Any]:
        """Return the output of `status --json`."""
        return self.run("status", "--json").report

    # --- its files ---

    @property
    def home(self) -> Path:
        """The folder where the pipeline keeps everything of the clone."""
        return self.root / ".slipway" / self.environment

    @property
    def data(self) -> Path:
        """The folder of PostgreSQL's data, which is outside `home` for root."""
        return make_layout(self.home).postgres

    @property
    def records(self) -> Path:
        """The folder of the release records."""
        return self.home / "releases"

    def newest_record(self) -> Path:
        """Return the folder of the newest release record; its number is 0 if there is none."""
        return self.records / str(newest(self.records))

    def report(self, number: int) -> dict[str, Any]:
        """Return the report of the deploy `number`."""
        report: dict[str, Any] = json.loads((self.records / str(number) / "report.json").read_text())
        return report

    def git(self, *arguments: str) -> str:
        """Run git in the clone; return its output."""
        return subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True).stdout

    def write(self, name: str, text: str) -> None:
        """Write a file, and the folders to it."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def append(self, name: str, text: str) -> None:
        """Append `text` to a file, whatever is in it."""
        path = self.root / name
        path.write_text(f"{path.read_text(encoding='utf-8')}\n\n{text}", encoding="utf-8")

    def patch(self, name: str, old: str, new: str) -> None:
        """Replace `old`, which must occur exactly once, with `new`."""
        text = (self.root / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        (self.root / name).write_text(text.replace(old, new), encoding="utf-8")

    def change(self, line: str) -> None:
        """Add a comment with `line` to the service, which does not change what it does."""
        path = self.root / "backend" / "__init__.py"
        path.write_text(f"{path.read_text(encoding='utf-8')}# {line}\n", encoding="utf-8")

    def commit(self) -> None:
        """Commit the changes, so that `restore` keeps them."""
        self.git("add", "--all")
        self.git(*IDENTITY, "commit", "--quiet", "--allow-empty", "--message", "a change")

    def restore(self) -> None:
        """Restore the service as it was committed; `.env` and the pipeline's table stay."""
        self.git("checkout", "--quiet", "--", "backend")
        self.git("clean", "--quiet", "--force", "-d", "backend")

    def configure(self, **keys: float | str) -> None:
        """Set keys in the table of the environment in pyproject.toml; a text is as TOML has it."""
        path = self.root / "pyproject.toml"
        before, head, rest = path.read_text(encoding="utf-8").partition(
            f"[tool.slipway.environments.{self.environment}]\n"
        )
        table, bracket, after = rest.partition("\n[")
        for key, value in keys.items():
            table = re.sub(rf"(?m)^{key}\s*=.*\n?", "", table) + f"\n{key} = {value}"
        assert head, self.environment
        path.write_text(f"{before}{head}{table}\n{bracket}{after}", encoding="utf-8")

    def settings(self) -> dict[str, str]:
        """Return the values in its `.env`."""
        return {name: value or "" for name, value in dotenv_values(self.root / ".env", interpolate=False).items()}

    def set_env(self, **values: str) -> None:
        """Set variables in its `.env`, which is created if there is none."""
        path = self.root / ".env"
        if not path.exists():
            assert self.run("init").code == 0
        text = path.read_text(encoding="utf-8")
        for name, value in values.items():
            text = re.sub(rf"(?m)^{name}=.*\n", "", text) + f"{name}={value}\n"
        path.write_text(text, encoding="utf-8")

    @contextmanager
    def dotenv(self, **values: str) -> Iterator[None]:
        """Set `values` in its `.env` while the block runs, and restore it afterwards."""
        self.set_env()
        before = (self.root / ".env").read_text(encoding="utf-8")
        self.set_env(**values)
        try:
            yield
        finally:
            (self.root / ".env").write_text(before, encoding="utf-8")

    # --- the service, as a user meets it ---

    def request(self, method: str, path: str, *, token: bool = False, **options: Any) -> httpx2.Response:
        """Send one request to the edge over a connection of its own; with `token`, as a caller that may write."""
        headers = dict(options.pop("headers", {}))
        if token:
            headers["Authorization"] = f"Bearer {self.settings()['SERVICE_TOKEN']}"
        return httpx2.request(method, f"http://localhost:{self.port}{path}", headers=headers, timeout=10, **options)

    def answering(self, requests: int = 20) -> set[str]:
        """Return the releases that answer; each of the `requests` must succeed."""
        answers = [self.request("GET", self.asked) for _ in range(requests)]
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        return {answer.headers["x-release"] for answer in answers}

    def write_note(self, text: str) -> dict[str, Any]:
        """Write a note as a user does; return the answer."""
        answer = self.request("POST", NOTES, token=True, json={"text": text, "tag": "a user's"})
        assert answer.status_code == 201, answer.text
        written: dict[str, Any] = answer.json()
        return written

    def sql(self, query: str) -> Any:
        """Return the first value of `query`, sent to PostgreSQL's own socket."""
        return self.sql_in(self.settings()["POSTGRES_DB"], query)

    def sql_in(self, database: str, query: str) -> Any:
        """Do the same in another database than the one that serves."""
        return asyncio.run(self._sql(query, database))

    async def _sql(self, query: str, database: str) -> Any:
        folder = make_layout(self.home).postgres_sockets
        connection = await asyncpg.connect(host=str(folder), port=5432, user=SUPERUSER, database=database, timeout=10)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def synthetic_rows(self) -> int:
        """Return how many rows the proofs left in the tests' notes; none where it has another domain."""
        there = self.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'testing_notes'")
        return int(self.sql("SELECT count(*) FROM testing_notes WHERE synthetic")) if int(there) else 0

    def revision(self) -> str:
        """Return the schema revision of its database."""
        return str(self.sql("SELECT version_num FROM alembic_version"))

    # --- its processes ---

    def processes(self) -> list[psutil.Process]:
        """Return every process that runs because of the clone."""
        return processes(self.root, self.data.parent)

    def supervisor(self) -> psutil.Process | None:
        """Return its supervisord, or None."""
        return next((process for process in self.processes() if "supervisord" in str(process.cmdline()[1:2])), None)

    def kept(self, kind: str) -> list[psutil.Process]:
        """Return the processes of a `kind` (as in `roster`) that its supervisord keeps."""
        supervisor = self.supervisor()
        return [child for child in supervisor.children() if set(roster([child])) == {kind}] if supervisor else []

    def untidy(self) -> list[str]:
        """Return what a deploy must not leave: unexpected processes, a lock, parts, synthetic rows, open records."""
        kinds = roster(self.processes())
        wrong = [
            f"{kinds[kind]} × {kind}"
            for kind in sorted({*kinds, *EVERYTHING})
            if kinds[kind] != EVERYTHING.get(kind, 0)
        ]
        files = [
            path
            for path in self.home.rglob("*")
            if ".part" in path.name or path.name == "lock" or path.name.endswith("writes.jsonl")
        ]
        wrong += [str(path.relative_to(self.home)) for path in files if "venvs" not in path.parts]
        wrong += [str(path) for path in self.home.glob("venvs/.part*")]
        rows = self.synthetic_rows()
        wrong += [f"{rows} synthetic rows"] if rows else []
        open_records = [path.name for path in self.records.iterdir() if not (path / "report.json").exists()]
        return wrong + [f"record {number} has no verdict" for number in open_records]

    def remove(self, scratch: set[Path]) -> None:
        """Run `down --volumes`; it must leave nothing but `scratch`, the folders that were there before.

        Backups, which it leaves, too, are removed before.
        """
        shutil.rmtree(self.home / "backups", ignore_errors=True)
        for deploy in self.started:  # a test that failed may have left one running
            if deploy.process.poll() is None:
                deploy.kill()
        done = self.run("down", "--volumes")
        left = [" ".join(process.cmdline()) for process in self.processes()]
        for process in self.processes():
            process.kill()
        assert done.code == 0, done.stderr
        assert not left, left
        assert not self.data.parent.exists() or self.data.parent == self.home
        assert not self.home.exists()
        assert not make_layout(self.home).run.exists()
        wait_until(lambda: scratch_folders() <= scratch, f"{scratch_folders() - scratch} stayed", 15)
