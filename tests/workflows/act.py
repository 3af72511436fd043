"""A clone whose workflows `act` runs on this machine, as a runner would; what is GitHub's own is played and counted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uv
import yaml

from tests.deploy.checkout import IDENTITY
from tests.project import NAME
from tests.tools import need
from tests.workflows.flows import LOCAL, NOX, read, understood

__all__ = ["Checkout", "Run"]

# Not GitHub's own, and so long that here the harness gives them less to do: the same session with other arguments.
# The whole of each runs in those sessions.
STAND_INS = {
    "ci": {
        "session: lint": "session: settings",
        "session: test,": "session: test, args: tests/pipeline/releases/test_lock.py,",
        "session: workflows,": "session: workflows, args: tests/workflows/test_action.py,",
        "needs.changes.outputs.e2e }}": "needs.changes.outputs.e2e || 'tests/deploy --collect-only -q' }}",
    },
    "matrix": {'args: "${{ matrix.args }}"': 'args: "${{ matrix.args }} --collect-only -q"'},
    "image": {"${{ inputs.image }}": "${{ inputs.image || 'tests/image -k says_where_it_comes_from' }}"},
    # Without a token zizmor asks nobody; pip-audit asks what is played.
    "security": {'env: { GH_TOKEN: "${{ github.token }}" }': 'env: { NOTHING: "" }'},
    "action": {'default: "3.13"': 'default: "3.11"'},  # the Python of a machine that may have no other
}
# Two platforms need a builder of their own (setup-buildx-action, which is played). The audit asks services that know
# advisories, which not every machine reaches: here SBOMs are made, and not judged.
HERE = {"|| 'linux/amd64,linux/arm64'": "", 'session: scan, args: "': 'session: scan, args: "--sbom-only '}
# Without a cluster Compose takes the digest, with the same story and the same proof, in the place of a release that is
# built there; and the copy goes to the test's registry.
WITHOUT_CLUSTER = {
    "session: cluster": "session: deploy, args: compose",
    f' localhost:5001/{NAME}"': ' ${{ vars.COPY }}"',
    f"kind --release localhost:5001/{NAME}@": "compose --release ${{ vars.COPY }}@",
    "args: kind --unfinished": "args: compose --unfinished",
    ".slipway/kind/": ".slipway/compose/",
}
# Compose needs no access; the release before is built there, too.
ON_COMPOSE = {'session: access, args: "${{ inputs.environment }}"': "session: deploy, args: compose"}
# One of each matrix.
MATRIX = ("python:3.11", "shard:local 1", "shard:cd 1")
KEPT = re.compile(
    r"PATH|LANG|TMPDIR|(PIP|UV|SSL|DOCKER|TESTCONTAINERS|KIND)_\w+|\w+_(CA|CERTS?)_?\w*|https?_proxy|no_proxy", re.I
)


@dataclass(frozen=True)
class Run:
    """What one run of a workflow did."""

    code: int
    seconds: float
    output: str
    lines: list[dict[str, Any]]
    calls: list[dict[str, Any]]

    @property
    def jobs(self) -> dict[str, str]:
        """The result of each job that ran, and of each that called it; of several by one name it is `failure` where one
        failed.
        """
        found: dict[str, str] = {}
        for line in self.lines:
            if "jobResult" in line:
                for name in _jobs(line):
                    found[name] = "failure" if found.get(name) == "failure" else line["jobResult"]
        return found

    @property
    def summary(self) -> str:
        """What the run's page would show."""
        parts = [line["content"] for line in self.lines if line.get("command") == "summary"]
        return "\n".join(dict.fromkeys(parts))  # that of a composite action is told twice

    def played(self, job: str | None = None) -> Counter[str]:
        """How often each stand-in was called."""
        return Counter(call["action"] for call in self.calls if job in (None, call["job"]))

    def said(self, job: str = "") -> str:
        """What its steps printed."""
        return "\n".join(str(line.get("msg", "")).rstrip() for line in self.lines if not job or job in _jobs(line))

    def __str__(self) -> str:
        return f"exit {self.code}, {self.jobs}\n{self.said()[-8000:]}\n{self.output[-2000:]}"


@dataclass
class Checkout:
    """A clone in `root`, with the stand-ins beside it."""

    root: Path
    home: Path
    log: Path
    actions: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, template: Path, folder: Path, *, gateway_api: str | None = None, cluster: bool = False) -> Checkout:
        """Clone TEMPLATE into FOLDER. With CLUSTER cd.yml makes one by kind, its GATEWAY_API from a file."""
        gateway = {"session: cluster": f"session: cluster, args: --gateway-api {gateway_api}"} if gateway_api else {}
        cd = {**HERE, **(gateway if cluster else WITHOUT_CLUSTER)}
        stand_ins = {**STAND_INS, "cd": cd, "deploy": {} if cluster else ON_COMPOSE}
        one = cls(folder / "app", folder / "home", folder / "calls.jsonl")
        shutil.copytree(template, one.root)
        one.home.mkdir()
        for path in one.root.glob(".github/**/*.yml"):
            text = understood(path.read_text(encoding="utf-8"))
            for old, new in stand_ins.get(path.stem, {}).items():
                assert text.count(old) >= 1, f"{path.stem}: {old}"
                text = text.replace(old, new)
            path.write_text(text, encoding="utf-8")
        one._play(folder / "stand-ins")
        one.git("init", "--quiet", "--initial-branch=main")
        one.git("remote", "add", "origin", "https://github.com/Acme/App.git")
        one.commit("the template")
        return one

    def _play(self, folder: Path) -> None:
        """Write a stand-in for each action but checkout, which act does by itself: it notes what it was given."""
        for name, sha in sorted({(name, rest[1:41]) for _, name, rest in read().uses() if name not in (NOX, *LOCAL)}):
            owner, repository, *rest = name.split("/")
            if name == "actions/checkout":
                continue
            place = folder / repository
            (place / "/".join(rest)).mkdir(parents=True, exist_ok=True)
            given = {key for text in self._texts() for key in _given(text, f"{name}@{sha}")}
            note = 'jq -cn --arg action "$NAME" --arg job "$GITHUB_JOB" --argjson with "$GIVEN" \'$ARGS.named\' '
            note += '>> "$CALLS"'
            env = {"NAME": name, "GIVEN": "${{ toJSON(inputs) }}", "CALLS": str(self.log)}
            action = {
                "name": name,
                "description": "a stand-in",
                "inputs": {key: {"description": key, "required": False} for key in sorted(given)},
                "runs": {"using": "composite", "steps": [{"shell": "bash", "env": env, "run": note}]},
            }
            (place / "/".join(rest) / "action.yml").write_text(yaml.safe_dump(action))
            self.actions.append(f"--local-repository={owner}/{repository}@{sha}={place}")

    def _texts(self) -> list[str]:
        return [path.read_text() for path in self.root.glob(".github/**/*.yml")]

    def git(self, *arguments: str) -> str:
        """What a git command says in it."""
        return subprocess.run(
            ["git", *IDENTITY, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, message: str) -> str:
        """Commit what was changed; the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD").strip()

    def replace(self, name: str, old: str, new: str) -> None:
        """Change a file."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name}: {old}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def start(
        self, workflow: str, event: str = "push", *, payload: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None, job: str | None = None, **environ: str,
    ) -> Started:  # fmt: skip
        """Start a workflow by EVENT, with what GitHub would know: its payload, variables, secrets, inputs."""
        file = self.home / "event.json"
        file.write_text(json.dumps({"repository": {"private": False}, "inputs": inputs or {}, **(payload or {})}))
        options = [f"--var={key}={value}" for key, value in (variables or {}).items()]
        options += [f"--input={key}={value}" for key, value in (inputs or {}).items()]
        options += [f"--secret={key}={value}" for key, value in {"GITHUB_TOKEN": "dummy", **(secrets or {})}.items()]
        options += [f"--matrix={one}" for one in MATRIX] + ([f"--job={job}"] if job else [])
        command = [need("act"), event, f"--workflows=.github/workflows/{workflow}", f"--eventpath={file}", "--json",
                   "--platform=ubuntu-24.04=-self-hosted", "--no-cache-server", "--action-offline-mode", "--rm",
                   "--concurrent-jobs=2", *options, *self.actions]  # fmt: skip
        kept = {key: value for key, value in os.environ.items() if KEPT.fullmatch(key)}
        own = {
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "TTY_COMPATIBLE": "0",  # act gives steps a terminal, a runner does not
            "PATH": f"{Path(uv.find_uv_bin()).parent}{os.pathsep}{os.environ['PATH']}",
            "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip")),
        }
        self.log.write_text("")
        output = self.home / f"act-{time.monotonic_ns()}.log"
        with output.open("wb") as out:
            process = subprocess.Popen(command, cwd=self.root, env={**kept, **own, **environ}, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        return Started(process, output, self.log, time.monotonic())

    def run(self, workflow: str, event: str = "push", *, timeout: float = 900, **how: Any) -> Run:
        """Run a workflow to its end."""
        return self.start(workflow, event, **how).finish(timeout)


@dataclass
class Started:
    """A run that goes on."""

    process: subprocess.Popen[bytes]
    output: Path
    log: Path
    since: float

    def said(self) -> str:
        """All of its output so far."""
        return self.output.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 300, *, times: int = 1) -> None:
        """Wait until it said TEXT so many TIMES."""
        deadline = time.monotonic() + seconds
        while self.said().count(text) < times:
            assert self.process.poll() is None, f"it ended without `{text}`:\n{self.said()[-6000:]}"
            assert time.monotonic() < deadline, f"no `{text}` within {seconds} s:\n{self.said()[-6000:]}"
            time.sleep(0.05)

    def finish(self, timeout: float = 900) -> Run:
        """What it did. A run that does not end is killed with all that it started."""
        try:
            code = self.process.wait(timeout)
        except BaseException as error:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                pytest.fail(f"the run did not end within {timeout} s:\n{self.said()[-6000:]}")
            raise
        lines = [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        return Run(code, time.monotonic() - self.since, self.said(), lines, calls)


def _jobs(line: Mapping[str, Any]) -> set[str]:
    """The job that a LINE of act is about, by its ID; and the job that called its workflow, by its name."""
    caller = str(line.get("job", "")).split("/")[:-2]  # [CALLER/]WORKFLOW/NAME
    return {line.get("jobID", ""), *caller}


def _given(text: str, uses: str) -> set[str]:
    """The inputs that TEXT gives to an action."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("uses") == uses:
                found.update(node.get("with", {}))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(yaml.load(text, Loader=yaml.CBaseLoader))
    return found
