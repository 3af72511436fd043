#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""The menu of Slipway: `nox -l` lists the sessions, `nox -s NAME -- ARGUMENTS` runs one.

The work is in pipeline/ and tests/.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "test"]
nox.options.stop_on_first_error = True
# Sessions share one environment for each dependency group (see `environment`): nox has one for each session.
nox.options.default_venv_backend = "none"
# Before each session nox looks for a uv to make environments with, and says so where there is none: none is needed.
logging.getLogger("nox").addFilter(lambda record: record.getMessage() != "uv binary not found.")

GROUPS = (
    *("backend", "backup", "dev", "engines", "lint", "manifests", "migrate", "nox", "pipeline", "supply", "test", "uv"),
    "workflows",
)


# Whether a Python has the folder that its packages are in: after an upgrade in its place, it looks for another one.
HAS_PACKAGES = "import os, sys, sysconfig; sys.exit(not os.path.isdir(sysconfig.get_path('purelib')))"


def environment(session: nox.Session, group: str) -> Path:
    """Return the Python of .nox/`group`, after installing exactly what the group's lock says.

    One session at a time does so; what one of them did not finish, or what lost its Python, is made anew.
    """
    folder = Path(session.cache_dir).parent / group
    python, lock, synced = folder / "bin/python", Path(f"requirements/{group}.txt"), folder / "synced.txt"
    # uv asks the index even when nothing is missing: a rollback must not need it.
    wanted = lock.read_bytes()
    if content(synced) == wanted and runs(python):
        return python
    with alone(session, folder):
        done, whole = content(synced), runs(python)
        if done is not None and not whole:
            session.log(f"the Python of .nox/{group} was removed or upgraded: making it anew")
        if done is None or not whole:  # the file is written last: without it, the environment is half made
            session.run(sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(folder), silent=True)
        if done != wanted or not whole:  # else another session has made it meanwhile
            synced.unlink(missing_ok=True)
            install(session, folder, lock)
            synced.write_bytes(wanted)
    return python


def content(path: Path) -> bytes | None:
    """Return what is in the file `path`, None where there is none."""
    return path.read_bytes() if path.exists() else None


@contextlib.contextmanager
def alone(session: nox.Session, folder: Path) -> Iterator[None]:
    """Keep other sessions from making the environment in `folder` meanwhile, or wait until they have."""
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            session.log(f"another session is making .nox/{folder.name}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def runs(python: Path) -> bool:
    """Return whether `python` starts, and has its packages."""
    try:
        return not subprocess.run([python, "-I", "-c", HAS_PACKAGES], capture_output=True, check=False).returncode
    except OSError:
        return False


def install(session: nox.Session, folder: Path, lock: Path) -> None:
    """Install what `lock` says in the environment `folder`, and nothing else."""
    python, uv = folder / "bin/python", folder / "bin/uv"
    hashed = ("install", "--quiet", "--no-deps", "--require-hashes", "-r", "requirements/uv.txt")
    if not uv.exists():
        # The locked uv, whether or not the machine has one.
        session.run(python, "-m", "pip", *hashed, silent=True)
    session.run(uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, str(lock), silent=True)


def slipway(session: nox.Session, *arguments: str) -> None:
    """Run a verb of the pipeline."""
    run(environment(session, "pipeline"), "-m", "pipeline", *arguments)


def run(program: Path, *arguments: str) -> None:
    """Run `program`, and end nox with its exit code unless that is 0."""
    if code := tried(program, *arguments):
        raise SystemExit(code if code > 0 else 128 - code)


def tried(program: Path, *arguments: str) -> int:
    """Run `program`, keep its streams apart and leave Ctrl-C to it; return its exit code."""
    # `session.run` would merge the streams, make each failure a 1 and kill the child half a second after Ctrl-C.
    variables = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen([program, *arguments], env=variables) as child:
        signal.signal(signal.SIGINT, _ignore)  # Ctrl-C reaches the child directly: it is in our process group
        for number in (signal.SIGTERM, signal.SIGHUP):  # a runner's cancel reaches only us
            signal.signal(number, lambda number, _: child.send_signal(number))
        return child.wait()


def _ignore(*_: object) -> None:
    """Do nothing: the child decides what Ctrl-C means. Not SIG_IGN, which a child would inherit."""


@nox.session
def deploy(session: nox.Session) -> None:
    """Ship it: plan, build, check, migrate, roll out, prove, record (-- [ENV] [--dry-run] [--release REF] [--json])."""
    slipway(session, "deploy", *session.posargs)


@nox.session
def rollback(session: nox.Session) -> None:
    """Go back to the previous release, with the same proof (-- [ENV] [--release N | --unfinished] [--json])."""
    slipway(session, "rollback", *session.posargs)


@nox.session
def watch(session: nox.Session) -> None:
    """Listen to the deploy that serves; go back where an alert fires (-- [ENV] [--release N] [--json])."""
    slipway(session, "watch", *session.posargs)


@nox.session
def status(session: nox.Session) -> None:
    """Show what runs: release, replicas, lock; live, with traffic and alerts, too (-- [ENV] [--watch] [--json])."""
    slipway(session, "status", *session.posargs)


@nox.session
def logs(session: nox.Session) -> None:
    """Show what the service says (-- [ENV] [--release R] [--request ID] [--follow] [--json])."""
    slipway(session, "logs", *session.posargs)


@nox.session
def doctor(session: nox.Session) -> None:
    """Say what is wrong with a running environment, each finding with its fix (-- [ENV] [--json])."""
    slipway(session, "doctor", *session.posargs)


@nox.session
def releases(session: nox.Session) -> None:
    """List the recorded releases with their verdicts, newest first (-- [ENV] [--json])."""
    slipway(session, "releases", *session.posargs)


@nox.session
def down(session: nox.Session) -> None:
    """Stop everything; the data stays unless --volumes is given (-- [ENV] [--volumes])."""
    slipway(session, "down", *session.posargs)


@nox.session
def init(session: nox.Session) -> None:
    """Write .env with fresh secrets; existing values are never touched (-- [--recover]: taken back from what runs)."""
    slipway(session, "init", *session.posargs)


@nox.session
def rename(session: nox.Session) -> None:
    """Make the template yours: package, images, labels, docs (-- NAME [--bare] [--owner @org/team])."""
    slipway(session, "rename", *session.posargs)


@nox.session
def settings(session: nox.Session) -> None:
    """Check that all that is made from backend/settings.py and the objectives agrees with them (-- [--write])."""
    slipway(session, "settings", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the images; the last line is the service's ID."""
    slipway(session, "build", *session.posargs)


@nox.session
def pins(session: nox.Session) -> None:
    """Check that base images are pinned to the digests that their registries have (-- [--write])."""
    slipway(session, "pins", *session.posargs)


@nox.session
def push(session: nox.Session) -> None:
    """Build the images and push them to IMAGE_REPOSITORY; the last line is the digest."""
    slipway(session, "push", *session.posargs)


@nox.session
def scan(session: nox.Session) -> None:
    """Write a release's SBOMs to .slipway/supply and gate on known vulnerabilities (-- REPOSITORY@sha256:…)."""
    run(environment(session, "supply"), "-m", "pipeline", "scan", *session.posargs)


@nox.session
def sign(session: nox.Session) -> None:
    """Sign a release, its SBOMs and provenance: keyless on GitHub, else by COSIGN_KEY (-- REPOSITORY@sha256:…)."""
    run(environment(session, "supply"), "-m", "pipeline", "sign", *session.posargs)


@nox.session(name="verify-image")
def verify_image(session: nox.Session) -> None:
    """Verify the signature, provenance and SBOM of a release (-- REPOSITORY@sha256:… [--env ENV])."""
    slipway(session, "verify-image", *session.posargs)


@nox.session
def copy(session: nox.Session) -> None:
    """Copy the images of a release to another repository, byte for byte (-- REPOSITORY@DIGEST REPOSITORY)."""
    slipway(session, "copy", *session.posargs)


@nox.session
def proved(session: nox.Session) -> None:
    """Print the digest that was proved last, as its registry knows it; it is the last line (-- [ENV])."""
    slipway(session, "proved", *session.posargs)


@nox.session
def access(session: nox.Session) -> None:
    """Write the kubeconfig of an environment, in a job of GitHub Actions (-- ENV)."""
    slipway(session, "access", *session.posargs)


@nox.session
def changes(session: nox.Session) -> None:
    """Say what CI runs for the difference to a commit, by `[tool.slipway.harmless]` (-- [--base COMMIT])."""
    slipway(session, "changes", *session.posargs)


@nox.session
def cluster(session: nox.Session) -> None:
    """Set up a kind cluster and a local registry for `deploy -- kind` (-- [up | down [--all]] [--gateway-api FILE])."""
    slipway(session, "cluster", *session.posargs)


@nox.session
def rotate(session: nox.Session) -> None:
    """Give a secret a new value, under traffic (-- [ENV] NAME [--continue])."""
    slipway(session, "rotate", *session.posargs)


@nox.session
def user(session: nox.Session) -> None:
    """Manage people's accounts (-- add NAME --role ROLE | list | password, disable, enable, remove NAME; --env ENV)."""
    slipway(session, "user", *session.posargs)


@nox.session
def backup(session: nox.Session) -> None:
    """Back the database up, and check that the backup is whole (-- [ENV] [--json])."""
    slipway(session, "backup", *session.posargs)


@nox.session
def backups(session: nox.Session) -> None:
    """List the backups, newest first: age, size, rows, release, where they are (-- [ENV] [--json])."""
    slipway(session, "backups", *session.posargs)


@nox.session
def restore(session: nox.Session) -> None:
    """Bring a backup back (-- [ENV] --backup REF|latest [--yes] [--database NAME | --download PATH] [--json])."""
    slipway(session, "restore", *session.posargs)


@nox.session(name="upgrade-database")
def upgrade_database(session: nox.Session) -> None:
    """Move the data to the new major of PostgreSQL that docker-compose.yml names (-- [ENV] [--yes] [--json])."""
    slipway(session, "upgrade-database", *session.posargs)


@nox.session
def drill(session: nox.Session) -> None:
    """Try the newest backup on a throwaway PostgreSQL, and say how long that took (-- [ENV] [--json])."""
    slipway(session, "drill", *session.posargs)


@nox.session
def dev(session: nox.Session) -> None:
    """Run the service with reload, and its page, on a database and a cache of its own."""
    run(environment(session, "dev"), "-m", "pipeline", "dev", *session.posargs)


@nox.session
def migration(session: nox.Session) -> None:
    """Write the next numbered migration, or move one to the end of the chain (-- MESSAGE | --renumber NNNN)."""
    if any(argument.split("=")[0] == "--renumber" for argument in session.posargs):
        slipway(session, "migrations", *session.posargs)
        return
    run(environment(session, "test"), "-m", "backend.migrations", "new", *session.posargs)


@nox.session
def test(session: nox.Session) -> None:
    """Test on a real PostgreSQL and Redis: containers if Docker answers, else embedded (-- [PYTEST ARGUMENTS])."""
    # Tests spend a third of their time waiting, so run three workers on two cores.
    usual = ["-n", "3", "--dist", "worksteal", "--ignore=tests/workflows"]  # those have a session, and its tools
    run(environment(session, "test"), "-m", "pytest", *(session.posargs or usual))


@nox.session
def image(session: nox.Session) -> None:
    """Test the production image: contents, rights, API; it is built unless it is given (-- [REPOSITORY@DIGEST])."""
    # The API through HTTP: of each folder beside the migrations', what looks inside the service skips itself.
    api = sorted({str(path.parent) for path in Path("tests/backend").glob("*/test_*.py")})
    folders = ["tests/image", *(folder for folder in api if folder != "tests/backend/migrations")]
    if folders == ["tests/image", "tests/backend/health"]:
        session.warn("tests/backend has no folder with tests of your API: only /health and /ready are asked")
    pushed = ["--pushed", *session.posargs, *folders] if "@sha256:" in "".join(session.posargs) else None
    run(environment(session, "test"), "-m", "pytest", *(pushed or ["--image", *(session.posargs or folders)]))


@nox.session
def e2e(session: nox.Session) -> None:
    """Test each target's deploy story; named ones with faults (-- [local compose kind observe own page|all|ARGS])."""
    # Two deploys at once for two cores, all tests of a file by one worker; of clusters there is one.
    beside, aside = ("-n", "2", "--dist", "loadfile"), "--ignore=tests/deploy/kind"
    machine = (*beside, "tests/deploy", "tests/page", "tests/pipeline/proof", "tests/pipeline/supply", aside)
    targets: dict[str, list[tuple[str, ...]]] = {
        "": [machine, ("tests/deploy/kind",)],
        "all": [machine, ("tests/deploy/kind",), ("tests/workflows",)],
        "local": [(*beside, "tests/deploy", "tests/page", "--ignore=tests/deploy/compose", aside)],
        "compose": [(*beside, "tests/deploy/compose")],
        "kind": [("tests/deploy/kind",)],
        "own": [(*beside, "-m", "own", "tests/deploy", aside)],  # the story of the service that is here
        "observe": [
            tuple(f"tests/deploy/compose/test_{name}.py" for name in ("monitoring", "unheeded", "causes", "quiet"))
        ],
        "page": [("tests/page",)],
    }
    tier, asked = ("e2e" if session.posargs else "e2e and gate"), session.posargs or [""]
    chosen = [one for name in asked for one in targets.get(name, [])] if targets.keys() >= {*asked} else [tuple(asked)]
    codes = []
    for arguments in chosen:
        python = environment(session, "workflows" if arguments == ("tests/workflows",) else "test")
        codes.append(tried(python, "-m", "pytest", "-m", tier, *arguments))
        if codes[-1] not in (0, 1):  # 1: a test failed, which hides nothing of the next target
            break
    if any(codes):
        raise SystemExit(max(code if code >= 0 else 128 - code for code in codes))


@nox.session
def workflows(session: nox.Session) -> None:
    """Judge the workflows of .github/; with arguments, act runs them, too; minutes (-- [PYTEST ARGUMENTS])."""
    python, given = environment(session, "workflows"), session.posargs
    asked = ["-m", "e2e or not e2e", *given] if given else ["tests/workflows"]
    run(python, "-m", "pytest", "-rs", *asked)


@nox.session
def audit(session: nox.Session) -> None:
    """Check pinned actions and packages for what is known against them today; GH_TOKEN lets zizmor ask GitHub."""
    run(environment(session, "workflows").parent / "zizmor", "--persona", "auditor", "--no-config", ".github")
    run(environment(session, "supply"), "-m", "pipeline", "audit")


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, lint, types, settings, migrations, leaks, alerts, Dockerfiles, workflows, manifests."""
    python = environment(session, "lint")
    if tried(python, "-m", "ruff", "check", ".") or tried(python, "-m", "ruff", "format", "--check", "."):
        sys.exit("`nox -s format` mends what needs no decision of yours")
    run(python, "-m", "mypy")
    run(python, "-m", "pipeline", "settings")
    run(python, "-m", "pipeline", "migrations")
    run(python, "-m", "pipeline", "parts")
    run(python, "-m", "pipeline", "leaks")
    run(python, "-m", "pipeline", "rules")
    run(python.parent / "hadolint", "docker/Dockerfile.backend", "docker/Dockerfile.frontend")
    run(python.parent / "zizmor", "--persona", "auditor", "--offline", "--no-config", "--quiet", ".github")
    run(environment(session, "manifests"), "-m", "pipeline.engines.kustomize")


@nox.session
def format(session: nox.Session) -> None:  # noqa: A001 - what users type
    """Format the code, and fix what lint can fix by itself."""
    python = environment(session, "lint")
    fixed = tried(python, "-m", "ruff", "check", "--fix", ".")  # what it cannot fix may be what the formatter does
    run(python, "-m", "ruff", "format", ".")
    if fixed:
        run(python, "-m", "ruff", "check", ".")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the service's hot endpoints against a bare ASGI app (-- [--json FILE] [--rounds N] [--traced SHARE])."""
    run(environment(session, "test"), "-m", "tests.bench", *session.posargs)


@nox.session
def lock(session: nox.Session) -> None:
    """Pin every dependency group with hashes, in requirements/ (-- [--upgrade])."""
    uv = environment(session, "uv").parent / "uv"
    for group in GROUPS:
        # Versions and hashes only: where packages come from is the client's choice.
        session.run(
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
            "--no-emit-index-url",
            "--group",
            group,
            "--output-file",
            f"requirements/{group}.txt",
            *session.posargs,
            silent=True,
        )


if __name__ == "__main__":
    nox.main()
