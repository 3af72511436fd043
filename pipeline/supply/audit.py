"""What is known against what an image holds: pip-audit for its Python packages, grype (where it is) for all of it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.supply.gate import UNAUDITED, Finding, from_grype, from_pip_audit
from pipeline.supply.sbom import Sbom
from pipeline.system.run import CommandFailed, run

__all__ = ["ask_grype", "ask_pip_audit", "locked_packages", "pip_audit_command"]

TIMEOUT_SECONDS = 900
PIN = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)  # in a lock that uv wrote
AWAY = "what it answers is not known, so nothing passes: again later, or another service (PIP_AUDIT_OSV_URL)"


def locked_packages(root: Path) -> dict[str, set[str]]:
    """The Python packages that the locks below ROOT/requirements pin, with their versions, for whatever platform."""
    found: dict[str, set[str]] = {}
    for path in sorted((root / "requirements").glob("*.txt")):
        for name, version in PIN.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(version)
    return found


def ask_pip_audit(packages: Mapping[str, set[str]], say: Callable[[str], None]) -> list[Finding]:
    """What pip-audit knows against PACKAGES, Python's, each with its versions.

    Raises `SlipwayError` where the service cannot be asked: pip-audit itself calls it well when it found no package
    there.
    """
    findings: list[Finding] = []
    # A file of requirements has one version of each; two images may have two.
    for versions in zip_longest(*(sorted(one) for one in packages.values())):
        pairs = [(name, version) for name, version in zip(packages, versions, strict=True) if version]
        findings += from_pip_audit(_pip_audit([f"{name}=={version}" for name, version in pairs], say))
    skipped = [one for one in findings if one.ids == (UNAUDITED,)]
    if skipped and len({one.package for one in skipped}) == len(packages):
        raise SlipwayError(f"pip-audit: its service knows none of the {len(packages)} packages: {AWAY}")
    return findings


def pip_audit_command(requirements: Path) -> list[str]:
    """The command line that audits the pinned REQUIREMENTS as they are, and resolves nothing."""
    options = ["--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json", "--desc", "off"]
    return [sys.executable, "-m", "pip_audit", *options, "--aliases", "on", "--requirement", str(requirements)]


def _pip_audit(pins: Sequence[str], say: Callable[[str], None]) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = pip_audit_command(path)
        report = Path(folder) / "report.json"  # a report with findings ends with 1, as a failure does
        try:
            run([*command, "--output", str(report)], say=say, timeout=TIMEOUT_SECONDS)
        except CommandFailed as error:
            if not report.exists():
                away = "ConnectionError" in error.output  # it does not catch that: a traceback
                why = "its service does not answer" if away else _last(error.output)
                raise SlipwayError(f"pip-audit: {why}: {AWAY}") from error
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def ask_grype(sboms: Sequence[Sbom], say: Callable[[str], None]) -> list[Finding]:
    """What grype knows against SBOMS; nothing, and a line that says so, where it is not here or has no database."""
    if shutil.which("grype") is None:
        say("grype is not on the PATH: packages other than Python's were not judged")
        return []
    findings: list[Finding] = []
    for one in sboms:
        try:
            said = run(
                ["grype", "--quiet", f"sbom:{one.cyclonedx}", "--output", "json"], say=say, timeout=TIMEOUT_SECONDS
            )
        except CommandFailed as error:
            say(f"grype: packages other than Python's were not judged: {_last(error.output)}")
            return []
        found, rest = from_grype(json.loads(said))
        findings += found
        say(f"{one.reference}: {rest} findings that are not grave, or that no version mends")
    return findings


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
