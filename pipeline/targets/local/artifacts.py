"""Release folders, named by content, and the virtual environments they share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uv

from pipeline.config.project import Project
from pipeline.config.requests import parse_requests
from pipeline.config.settings import needed_secrets
from pipeline.errors import SlipwayError, UsageError
from pipeline.releases.migrations import required_revision
from pipeline.releases.model import Artifact
from pipeline.releases.records import read_json, write_json
from pipeline.system.git import BACKUP_LOCK, LOCKS, Source, content_hash, read_source, shipped_files
from pipeline.system.run import CommandFailed, run
from pipeline.targets.local.layout import Layout

__all__ = ["Artifacts", "python_works"]

log = logging.getLogger(__name__)

NAME_LENGTH = 12  # hexadecimal digits: 48 bits, yet short enough for a header, a label or a line
ENGINES_LOCK = "requirements/engines.txt"
META = "release.json"
# After an upgrade of Python in its place, a virtual environment's one starts and looks for its packages elsewhere.
HAS_PACKAGES = "import os, sys, sysconfig; sys.exit(not os.path.isdir(sysconfig.get_path('purelib')))"


@dataclass(frozen=True)
class Artifacts:
    """The releases of a layout."""

    project: Project
    layout: Layout

    def build(self, config: dict[str, str]) -> Artifact:
        """Build the release of the working tree with the settings `config` (which contain no secrets)."""
        root = self.project.root
        source = read_source(root)
        part = Path(tempfile.mkdtemp(dir=self.layout.artifacts, prefix=".part-"))
        try:
            # Copy first and name the copy, so that a file saved meanwhile cannot make the name wrong.
            names = shipped_files(root, self.project.source, [*LOCKS.values(), BACKUP_LOCK])
            for name in names:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, part / name)
                (part / name).chmod(0o600 | ((root / name).stat().st_mode & 0o100))
            settings = json.dumps(config, sort_keys=True)
            digest = content_hash(part, names, settings, _python_tag())[:NAME_LENGTH]
            self.prepare_venvs([part / lock for lock in LOCKS.values()])
            folder = self.layout.artifacts / digest
            if not self._intact(digest):
                shutil.rmtree(folder, ignore_errors=True)
                self._compile(part)
                facts = {"config": config, "requests": [], "source": asdict(source), "files": names}
                write_json(part / META, {**facts, "python": _python_tag()})
                part.rename(folder)
            # Requests judge a release but are not part of it: changing only them ships nothing.
            meta = {
                **read_json(folder / META),
                "source": asdict(source),
                "requests": [spec.table() for spec in self.project.requests],
                "needs": needed_secrets(),
            }
            write_json(folder / META, meta)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return self.recorded(digest)

    def recorded(self, name: str) -> Artifact:
        """Return the release `name`, after checking that its files still match its name.

        Raise `UsageError` where it is not kept here, `SlipwayError` where its files have changed.
        """
        folder = self.layout.artifacts / name
        meta = read_json(folder / META)
        if not meta:
            raise UsageError(
                f"release {name} is not kept here: only the last {self.project.retain} proved ones are (`*` in"
                " `nox -s releases`; `retain` in [tool.slipway]); check out its commit and deploy that"
            )
        settings = json.dumps(meta["config"], sort_keys=True)
        missing = [file for file in meta["files"] if not (folder / file).is_file()]
        if missing or content_hash(folder, meta["files"], settings, _tag(meta))[:NAME_LENGTH] != name:
            raise SlipwayError(
                f"the files of release {name} are not what was built ({folder}): remove that folder and deploy again"
            )
        return Artifact(
            name=name,
            source=Source(**meta["source"]),
            revision=required_revision(folder),
            requests=parse_requests(meta["requests"], f"release {name}"),
            needs=tuple(meta.get("needs", ())),
        )

    def _intact(self, name: str) -> bool:
        try:
            self.recorded(name)
        except SlipwayError:
            return False
        return True

    def folder(self, name: str) -> Path:
        """Return the folder of the release `name`."""
        return self.layout.artifacts / name

    def config(self, name: str) -> dict[str, str]:
        """Return the settings that the release `name` was built with."""
        config = read_json(self.folder(name) / META).get("config", {})
        return dict(config)

    def python(self, name: str, kind: str) -> Path:
        """Return the Python that has the locked packages of the release `name`; `kind` is `backend` or `migrate`."""
        return self._venv(self.folder(name) / LOCKS[kind], self._built_with(name)) / "bin/python"

    def backup_lock(self, name: str) -> Path:
        """Return the lock of what the release `name` needs for backups; one made before there were any has none."""
        return self.folder(name) / BACKUP_LOCK

    def backup_python(self, name: str) -> Path:
        """Return the Python that has it, made now if necessary: it is large, and most releases make no backup."""
        return self.prepare_venvs([self.backup_lock(name)], self._built_with(name))[0] / "bin/python"

    def prepare(self, name: str) -> None:
        """Make the virtual environments of the release `name` that are missing, or that lost their Python."""
        self.prepare_venvs([self.folder(name) / lock for lock in LOCKS.values()], self._built_with(name))

    def prepare_venvs(self, locks: list[Path], tag: str | None = None) -> list[Path]:
        """Return the virtual environment of each lock; create, in parallel, those that are missing or do not work.

        `tag` is the Python that they were first made with, by default our own: it is part of their names.
        """
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda lock: self._prepare_venv(lock, self._venv(lock, tag)), locks))

    def remake_venv(self, venv: Path, lock: Path) -> None:
        """Make the environment `venv` anew from `lock` where its Python was removed or upgraded."""
        self._prepare_venv(lock, venv)

    def _built_with(self, name: str) -> str:
        return _tag(read_json(self.folder(name) / META))

    def prune(self, kept: set[str], engines: Path) -> None:
        """Remove the releases not in `kept`, and the virtual environments no longer needed (`engines` is kept)."""
        for folder in self.layout.artifacts.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)
        needed = {
            self._venv(self.folder(name) / lock, self._built_with(name))
            for name in kept
            for lock in (*LOCKS.values(), BACKUP_LOCK)
            if (self.folder(name) / lock).exists()
        }
        for folder in self.layout.venvs.iterdir():
            if folder not in needed | {engines}:
                shutil.rmtree(folder)

    def _venv(self, lock: Path, tag: str | None = None) -> Path:
        if not lock.exists():
            raise UsageError(f"{lock.name} is missing: `nox -s lock` creates it")
        key = hashlib.sha256(lock.read_bytes() + (tag or _python_tag()).encode()).hexdigest()[:NAME_LENGTH]
        return self.layout.venvs / key

    def _prepare_venv(self, lock: Path, venv: Path) -> Path:
        if python_works(venv):
            return venv
        if venv.exists():
            log.warning(f"the Python of {venv} was removed or upgraded: making it anew")
        part = Path(tempfile.mkdtemp(dir=self.layout.venvs, prefix=".part-"))
        environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "UV_PYTHON")}
        program = uv.find_uv_bin()
        try:
            run(
                [
                    program,
                    "venv",
                    "--quiet",
                    "--relocatable",
                    "--allow-existing",
                    "--python",
                    sys.executable,
                    str(part),
                ],
                env=environment,
            )
            run(
                [
                    program,
                    "pip",
                    "sync",
                    "--quiet",
                    "--require-hashes",
                    "--python",
                    str(part / "bin/python"),
                    str(lock),
                ],
                env=environment,
            )
            shutil.rmtree(venv, ignore_errors=True)
            part.rename(venv)
        except CommandFailed as error:
            raise SlipwayError(
                f"the packages of requirements/{lock.name} could not be installed: {_essence(error.output)}"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return venv

    def _compile(self, folder: Path) -> None:
        """Byte-compile the source. Raise `SlipwayError` where it has a syntax error, which ends the build."""
        # Without .pyc files a start takes three times as long.
        try:
            run(
                [
                    sys.executable,
                    "-m",
                    "compileall",
                    "-q",
                    "-j",
                    "0",
                    "--invalidation-mode",
                    "unchecked-hash",
                    "-s",
                    str(folder),
                    *(str(folder / name) for name in self.project.source),
                ]
            )
        except CommandFailed as error:
            text = re.sub(r"\s+", " ", error.output.replace(f"{folder}/", "")).strip()
            raise SlipwayError(f"the source does not compile: {text}") from error


def python_works(venv: Path) -> bool:
    """Return whether the Python of the virtual environment `venv` starts, and has its packages."""
    command: list[str | Path] = [venv / "bin/python", "-I", "-c", HAS_PACKAGES]
    try:
        return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def _tag(meta: dict[str, Any]) -> str:
    """Return the Python that a release was built with; ours for one from before it was noted."""
    return str(meta.get("python") or _python_tag())


def _python_tag() -> str:
    return f"{sysconfig.get_platform()}-{platform.python_implementation()}-{sysconfig.get_python_version()}"


def _essence(output: str) -> str:
    lines = [line.strip(" ×╰─▶·") for line in output.splitlines() if line.strip()]
    return "; ".join(lines[:3]) or "uv printed nothing"
