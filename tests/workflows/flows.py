"""What `.github/` says, and the rules that it keeps: each rule names what breaks it, so that a test can break it."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.commands.changes import JOBS
from pipeline.config.project import LONGEST_WATCH
from tests.project import deploy_minutes

__all__ = [
    "ACTIONS",
    "LOCAL",
    "NOX",
    "PERMISSIONS",
    "ROOT",
    "Flows",
    "problems",
    "read",
    "sessions",
    "table",
    "understood",
]

ROOT = Path(__file__).parents[2]
NOX = "$/.github/actions/nox"
GATE = "all-green"
# What the gate is content with, and what the end-to-end tests are given.
PASSES = (
    'jq --exit-status \'(.changes.outputs.left_out | fromjson) as $left | to_entries | all(.value.result == "success"'
    ' or (.value.result == "skipped" and IN(.key; $left[])))\' <<< "$NEEDS"'
)
WORDS = "${{ needs.changes.outputs.e2e }}"
WATCH = "deploy.watch"
DEPLOYS = "$/.github/workflows/deploy.yml"
LOCAL = ("$/.github/workflows/image.yml", "$/.github/workflows/ci.yml", DEPLOYS)

# What GitHub has since 2026, and act and actionlint do not know yet, with what they get instead.
UNKNOWN = (("uses: $/", "uses: ./"), (", queue: max }", " }"))
# Who is let into a run. Which commit of it, and the version of that, say the workflows; Dependabot moves them.
ACTIONS = {
    *("actions/attest", "actions/checkout", "actions/upload-artifact", "astral-sh/setup-uv", "docker/login-action"),
    *("docker/setup-buildx-action", "docker/setup-qemu-action", "github/codeql-action/analyze"),
    *("github/codeql-action/init", "sigstore/cosign-installer"),
}

# What each job may do, and no more: contents, packages, id-token, attestations, others.
READ = {"contents": "read"}
DEPLOY = {**READ, "packages": "write", "id-token": "write"}
SIGN = {"id-token": "write", "attestations": "write"}
PERMISSIONS: dict[str, dict[str, str]] = {
    "cd.ci": {**READ, "packages": "read"},
    "cd.image": {**READ, "packages": "read"},
    "cd.kind": {**READ, "packages": "read", **SIGN},
    "cd.left-out": {},
    "cd.production": {**DEPLOY, **SIGN},
    "cd.push": {**READ, "packages": "write"},
    "cd.sign": {**READ, "packages": "write", **SIGN},
    "cd.staging": {**DEPLOY, **SIGN},
    "deploy.deploy": {**DEPLOY, **SIGN},
    "deploy.watch": DEPLOY,
    "ci.all-green": {},
    "ci.changes": READ,
    "ci.e2e": READ,
    "ci.image": {**READ, "packages": "read"},
    "ci.lint": READ,
    "ci.test": READ,
    "ci.workflows": READ,
    "matrix.e2e": READ,
    "matrix.image": {**READ, "packages": "read"},
    "matrix.red": {"issues": "write"},
    "matrix.workflows": READ,
    "image.image": {**READ, "packages": "read"},
    "rollback.rollback": {**DEPLOY, **SIGN},
    "security.audit": READ,
    "security.codeql": {**READ, "security-events": "write", "actions": "read"},
    "security.left-out": {},
    "security.rescan": {**READ, "packages": "read"},
}

# What an outsider cannot choose: a number, a commit, whether the repository is private. Titles, branches and messages
# are not here, and so are in no workflow.
EVENT = {
    *("github.event.pull_request.number", "github.event.repository", "github.event.repository.private"),
    *("github.event.before", "github.event.merge_group.base_sha", "github.event.pull_request.base.sha"),
}
# Workflows that a fork's pull request starts, or that such a one calls.
OPEN = ("ci", "image")
SECRET = re.compile(r"(?<!\w)secrets\.(\w+)")  # and not the file test_external_secrets.py
# Those that publish and deploy nothing: what others wrote into a cache reaches nobody.
CACHED = ("ci", "matrix")


LEVELS = ("none", "read", "write")
Flow = dict[str, Any]


@dataclass(frozen=True)
class Flows:
    """The workflows and the composite action: their text, and what it means (each scalar a string)."""

    texts: Mapping[str, str]

    @property
    def flows(self) -> dict[str, Flow]:
        """The workflows by name."""
        return {name: _parse(text) for name, text in self.texts.items() if name != "action"}

    def jobs(self) -> Iterator[tuple[str, Flow]]:
        """Each job as `workflow.job`."""
        for name, flow in self.flows.items():
            for job, content in flow["jobs"].items():
                yield f"{name}.{job}", content

    def calls(self) -> Iterator[tuple[str, Flow, Flow]]:
        """Each job that calls a workflow of this repository: its name, the job, and the workflow."""
        for name, job in self.jobs():
            if job.get("uses") in LOCAL:
                yield name, job, self.flows[Path(job["uses"]).stem]

    def uses(self) -> Iterator[tuple[str, str, str]]:
        """File, action and what comes after its name, for each place that uses one."""
        for file, text in self.texts.items():
            for name, rest in re.findall(r"uses: ([^\s@]+)(.*)", text):
                yield file, name, rest

    def steps(self) -> Iterator[tuple[str, Flow]]:
        """Each step of each job, and of the action."""
        for name, job in self.jobs():
            for step in job.get("steps", []):
                yield name, step
        for step in _parse(self.texts["action"])["runs"]["steps"]:
            yield "action", step


def read() -> Flows:
    """Those of this repository."""
    paths = sorted((ROOT / ".github/workflows").glob("*"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    return Flows({**texts, "action": (ROOT / ".github/actions/nox/action.yml").read_text(encoding="utf-8")})


def understood(text: str) -> str:
    """TEXT of a workflow as act and actionlint read it."""
    for new, known in UNKNOWN:
        text = text.replace(new, known)
    return text


@cache
def _parse(text: str) -> Flow:
    found: Flow = yaml.load(text, Loader=yaml.CBaseLoader)
    return found


def problems(flows: Flows) -> list[str]:
    """What breaks a rule, a line each."""
    rules = (_pins, _steps, _permissions, _jobs, _calls, _gate, _left_out, _matrix, _shards, _groups, _expressions,
             _forks, _deploys)  # fmt: skip
    return [line for rule in rules for line in rule(flows)]


def _pins(flows: Flows) -> Iterator[str]:
    seen: dict[str, set[str]] = {}
    for file, name, rest in flows.uses():
        if name in (NOX, *LOCAL):
            continue
        seen.setdefault("/".join(name.split("/")[:2]), set()).add(rest)
        if name not in ACTIONS:
            yield f"{file}: {name} is no action that somebody looked at"
        if not re.fullmatch(r"@[0-9a-f]{40} # v\d+(\.\d+){2}", rest):
            yield f"{file}: {name}{rest} is not pinned to a commit, with its version behind it"
    yield from (f"{name}: more than one version: {', '.join(sorted(rests))}" for name, rests in seen.items()
                if len(rests) > 1)  # fmt: skip
    yield from (
        f"{name}: let in, and used by nothing" for name in sorted(ACTIONS - {name for _, name, _ in flows.uses()})
    )


def _steps(flows: Flows) -> Iterator[str]:
    known = sessions()
    asked = {job["with"]["session"] for _, job, _ in flows.calls() if job["uses"] == DEPLOYS}
    for name, step in flows.steps():
        uses, run, given = step.get("uses", ""), step.get("run", ""), step.get("with", {})
        if "\n" in run.strip():
            yield f"{name}: a script of more than a line"
        if "${{" in run:
            yield f"{name}: an expression in a script: {run}"
        wanted = asked if given.get("session") == "${{ inputs.session }}" else {given.get("session")}
        if uses == NOX and not wanted <= known:
            yield f"{name}: there is no session {', '.join(sorted(wanted - known))}"
        if uses == NOX and name.partition(".")[0] not in CACHED and given.get("cache", "false") != "false":
            yield f"{name}: a cache, which others may write, where something is published"
        if uses.startswith("astral-sh/setup-uv@") and given.get("version-file") != "requirements/uv.txt":
            yield f"{name}: a uv that no lock names"
        if uses.startswith("actions/checkout@") and given.get("persist-credentials") != "false":
            yield f"{name}: a checkout that leaves its token behind"


def _permissions(flows: Flows) -> Iterator[str]:
    for name, flow in flows.flows.items():
        if flow.get("permissions") != {}:
            yield f"{name}: not `permissions: {{}}` at the top"
    found = {name: job.get("permissions") for name, job in flows.jobs()}
    for name in sorted(found.keys() | PERMISSIONS.keys()):
        if found.get(name) != PERMISSIONS.get(name):
            yield f"{name}: may {found.get(name)}, not {PERMISSIONS.get(name)}"


def _jobs(flows: Flows) -> Iterator[str]:
    for name, job in flows.jobs():
        given = [step.get("with", {}) for step in job.get("steps", [])]
        if "lint" in [one.get("session") for one in given] and given[0].get("fetch-depth") != "0":
            yield f"{name}: searches the last commit for secrets, and not each one"
        if "name" not in job:
            yield f"{name}: no name"
        longest = deploy_minutes() + (LONGEST_WATCH if name == WATCH else 0) if name in ("deploy.deploy", WATCH) else 30
        if "uses" not in job and not 0 < int(job.get("timeout-minutes", 0)) <= longest:
            yield f"{name}: no timeout of {longest} minutes or less"
        if name in ("deploy.deploy", WATCH) and int(job.get("timeout-minutes", 0)) < longest - 10:
            yield f"{name}: ends a deploy that is still in time: it may take {longest} minutes"
        if "continue-on-error" in job:
            yield f"{name}: continues on an error"


def _calls(flows: Flows) -> Iterator[str]:
    """A caller grants what is asked for, else no job starts; and names each secret, else the environment's is empty."""
    for name, job, called in flows.calls():
        declared = (called["on"]["workflow_call"] or {}).get("secrets", {})
        if job.get("secrets", {}) != {secret: f"${{{{ secrets.{secret} }}}}" for secret in declared}:
            yield f"{name}: hands on other secrets than those that {job['uses']} declares"
        if "concurrency" in job:
            yield f"{name}: a group around what may wait for it"
        held = job.get("permissions") or {}
        for inner, asked in ((inner, of.get("permissions") or {}) for inner, of in called["jobs"].items()):
            lacking = [key for key, level in asked.items() if LEVELS.index(held.get(key, "none")) < LEVELS.index(level)]
            if lacking:
                yield f"{name}: does not grant {', '.join(lacking)}, which {inner} asks for"


def _gate(flows: Flows) -> Iterator[str]:
    jobs = flows.flows["ci"]["jobs"]
    gate = jobs[GATE]
    if set(gate["needs"]) != jobs.keys() - {GATE}:
        yield f"ci.{GATE}: does not need {', '.join(sorted(jobs.keys() - {GATE} - set(gate['needs'])))}"
    if gate.get("if") != "always()" or gate["steps"][-1]["run"] != PASSES:
        yield f"ci.{GATE}: skipped, or content with less than success"
    for name in ("e2e", "test", "workflows"):
        given = {step["with"].get("args") for step in jobs[name]["steps"] if step.get("uses") == NOX}
        if given != {WORDS if name == "e2e" else None}:
            yield f"ci.{name}: not the whole session"


def _left_out(flows: Flows) -> Iterator[str]:
    """Jobs of ci are left out by the word of its first job and by nothing else, and cd goes on behind them."""
    for name, job in flows.flows["ci"]["jobs"].items():
        says = f"${{{{ !contains(fromJSON(needs.changes.outputs.left_out), '{name}') }}}}"
        wanted = (says, ["changes"]) if name in JOBS else (None, None)
        if name != GATE and (job.get("if"), job.get("needs")) != wanted:
            yield f"ci.{name}: has a condition that is not the first job's word on it"
    for name, job in flows.flows["cd"]["jobs"].items():
        waits = f"!cancelled() && needs.{job.get('needs', [''])[-1]}.result == 'success'"
        if "needs" in job and job.get("if") != "always()" and waits not in job.get("if", ""):
            yield f"cd.{name}: GitHub skips it where ci left a job out"
    for name, flow in flows.flows.items():
        filtered = [event for event, how in flow["on"].items() if re.search("'paths(-ignore)?'", repr(how))]
        yield from (f"{name}: {event} by paths, and a required check that never starts hangs" for event in filtered)


def _matrix(flows: Flows) -> Iterator[str]:
    """It waits for nobody, nobody waits for it, it is not red in silence, and it runs what ci may leave out."""
    flow = flows.flows["matrix"]
    yield from (f"matrix: no {name}, which ci may leave out" for name in JOBS if name not in flow["jobs"])
    if "" not in [shard["args"] for shard in flow["jobs"]["workflows"]["strategy"]["matrix"]["include"]]:
        yield "matrix: no judge of the workflows, which ci may leave out"
    if flow["on"].keys() != {"schedule", "workflow_dispatch"}:
        yield f"matrix: started by {', '.join(flow['on'])}"
    red = flow["jobs"]["red"]
    if set(red["needs"]) != flow["jobs"].keys() - {"red"} or red.get("if") != "${{ !success() }}":
        yield "matrix: red, and silent"


def _shards(flows: Flows) -> Iterator[str]:
    """Every file with an end-to-end test in one shard; or in two, whose `-k` are each other's contrary."""
    parts: dict[str, list[str]] = {}
    jobs = flows.flows["matrix"]["jobs"]
    for shard in [one for job in ("e2e", "workflows") for one in jobs[job]["strategy"]["matrix"]["include"]]:
        words = shlex.split(shard["args"])
        chosen = words[words.index("-k") + 1] if "-k" in words else ""
        for word in words:
            place = ROOT / word
            files = [place] if place.is_file() else place.glob("test_*.py") if word.startswith("tests/") else []
            for file in files:
                parts.setdefault(str(file.relative_to(ROOT)), []).append(chosen)
    tests = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py")}
    wanted = {name for name, text in tests.items() if "pytest.mark.e2e" in text}
    yield from (f"matrix: {name} is in no shard" for name in sorted(wanted - parts.keys()))
    for name, chosen_by in parts.items():
        if sorted(chosen_by) not in ([""], sorted([chosen_by[0], f"not {chosen_by[0]}".replace("not not ", "")])):
            yield f"matrix: the shards of {name} leave something out, or run it twice: {chosen_by}"


def _groups(flows: Flows) -> Iterator[str]:
    for name, flow in flows.flows.items():
        group = flow.get("concurrency", {}).get("group", "")
        # Never `github.workflow`: in a called workflow that is the caller's name.
        if "workflow_call" not in flow["on"] and not re.match(rf"{name}(-\$|$)", group):
            yield f"{name}: its concurrency group does not begin with its own name: {group}"
        if "github.workflow" in group:
            yield f"{name}: a concurrency group by the caller's name"
    jobs = dict(flows.jobs())
    for name, job in jobs.items():
        guarded = job.get("environment", {}).get("name")
        if name == WATCH and ("concurrency" in job or guarded == jobs["deploy.deploy"]["environment"]["name"]):
            yield f"{name}: holds up the next deploy, or asks for a second approval"
        if name != WATCH and guarded:
            wanted = {"group": f"deploy-{guarded}", "cancel-in-progress": "false", "queue": "max"}
            if job.get("concurrency") != wanted:
                found = job.get("concurrency")
                yield f"{name}: two deploys at once, or one that is cancelled or loses its place: {found}"


def _expressions(flows: Flows) -> Iterator[str]:
    for name, text in flows.texts.items():
        for one in sorted(set(re.findall(r"github\.(?:event\.[\w.]+|head_ref)", text)) - EVENT):
            yield f"{name}: {one} is chosen by whoever opens a pull request"


def _forks(flows: Flows) -> Iterator[str]:
    for name, flow in flows.flows.items():
        for event in {"pull_request_target", "workflow_run", "issue_comment"} & set(flow["on"]):
            yield f"{name}: {event} runs with secrets for strangers"
    for name, job in flows.jobs():
        text = json.dumps(job)
        if name.partition(".")[0] in OPEN:
            if SECRET.search(text) or "write" in (job.get("permissions") or {}).values():
                yield f"{name}: a pull request reaches a secret, or may write"
            for step in job.get("steps", []):
                if "login-action" in step.get("uses", "") and step.get("if") != "inputs.image != ''":
                    yield f"{name}: logs in for a pull request"
        elif SECRET.search(text) and "environment" not in job and job.get("uses") != DEPLOYS:
            yield f"{name}: a secret without an environment that guards it"


def _deploys(flows: Flows) -> Iterator[str]:
    jobs = dict(flows.jobs())
    if _told(jobs["cd.staging"], "staging") != _told(jobs["cd.production"], "production"):
        yield "cd: staging and production differ in more than their names"
    for name, job in jobs.items():
        if "environment" not in job:
            continue
        used = [(step.get("if"), step["with"]) for step in job["steps"] if step.get("uses") == NOX]
        heal = {"session": "rollback", "args": f"{job['environment']['name'].removesuffix('-watch')} --unfinished"}
        if used[-1] != ("failure() || cancelled()", heal):
            yield f"{name}: nothing undoes what a killed runner has begun"
    for source, name in (("kind", "staging"), ("staging", "production"), ("sign", "kind")):
        if source not in jobs[f"cd.{name}"]["needs"] or "always()" in jobs[f"cd.{name}"].get("if", ""):
            yield f"cd.{name}: does not wait for {source}"


def _told(job: Flow, name: str) -> str:
    rest = {key: value for key, value in job.items() if key not in ("needs", "if")}
    return json.dumps(rest).replace(name, "NAME").replace(name.upper(), "NAME")


def sessions() -> set[str]:
    """The sessions of noxfile.py, read and not run."""
    found = set()
    for one in ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body:
        if isinstance(one, ast.FunctionDef):
            marks = [ast.unparse(mark) for mark in one.decorator_list if "nox.session" in ast.unparse(mark)]
            names = [re.search(r"name='([\w-]+)'", mark) for mark in marks]
            found |= {name[1] if name else one.name for name in names}
    return found


def table(flows: Flows) -> str:
    """Who may do what, for docs/8-github.md."""
    lines = ["| job | may | secrets | environment |", "|---|---|---|---|"]
    for name, job in sorted(flows.jobs()):
        rights = ", ".join(f"{key}: {value}" for key, value in (job.get("permissions") or {}).items()) or "nothing"
        held = ", ".join(sorted(set(SECRET.findall(json.dumps(job))))) or "none"
        place = job.get("environment", {}).get("name") or job.get("with", {}).get("environment", "")
        lines.append(
            f"| `{name}` | {rights} | {held} | {place.replace('${{ inputs.environment }}', 'the one given')} |"
        )
    return "\n".join(lines) + "\n"
