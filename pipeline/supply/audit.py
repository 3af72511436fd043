"""The known vulnerabilities of an image: pip-audit for its Python packages, grype (where it is) for all of them."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.supply.gate import UNAUDITED, Vulnerability, from_grype, from_pip_audit
from pipeline.supply.sbom import Sbom
from pipeline.system.run import CommandFailed, run
from pipeline.system.text import shorten

__all__ = ["ask_grype", "ask_pip_audit", "locked_packages", "pip_audit_command"]

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 900
PIN = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)  # in a lock that uv wrote
AWAY = "nothing passes without its answer: try again later, or use another service (PIP_AUDIT_OSV_URL)"


def locked_packages(root: Path) -> dict[str, set[str]]:
    """Return the Python packages that the locks below `root`/requirements pin, with their versions on any platform."""
    packages: dict[str, set[str]] = {}
    for path in sorted((root / "requirements").glob("*.txt")):
        for name, version in PIN.findall(path.read_text(encoding="utf-8")):
            packages.setdefault(name, set()).add(version)
    return packages


def ask_pip_audit(packages: Mapping[str, set[str]]) -> list[Vulnerability]:
    """Return what pip-audit knows against the Python `packages`, each with its versions.

    Raise `SlipwayError` where its service cannot be asked, or knows none of them.
    """
    findings: list[Vulnerability] = []
    # A requirements file has one version of each package; two images may have two.
    for versions in zip_longest(*(sorted(each) for each in packages.values())):
        pairs = [(name, version) for name, version in zip(packages, versions, strict=True) if version]
        findings += from_pip_audit(_pip_audit([f"{name}=={version}" for name, version in pairs]))
    # pip-audit itself reports success where the service knows no package at all.
    skipped = [finding for finding in findings if finding.ids == (UNAUDITED,)]
    if skipped and len({finding.package for finding in skipped}) == len(packages):
        raise SlipwayError(f"pip-audit: its service knows none of the {len(packages)} packages: {AWAY}")
    return findings


def pip_audit_command(requirements: Path) -> list[str]:
    """Return the command line that audits the pinned `requirements` as they are, and resolves nothing."""
    options = ["--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json", "--desc", "off"]
    return [sys.executable, "-m", "pip_audit", *options, "--aliases", "on", "--requirement", str(requirements)]


def _pip_audit(pins: Sequence[str]) -> Mapping[str, Any]:
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = pip_audit_command(path)
        report = Path(folder) / "report.json"  # with findings it exits with 1, as it does for a failure
        try:
            run([*command, "--output", str(report)], timeout=TIMEOUT_SECONDS)
        except CommandFailed as error:
            if not report.exists():
                away = "ConnectionError" in error.output  # which it does not catch: there is a traceback
                why = "its service does not answer" if away else _last(error.output)
                raise SlipwayError(f"pip-audit: {why}: {AWAY}") from error
        content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return content


def ask_grype(sboms: Sequence[Sbom]) -> list[Vulnerability]:
    """Return what grype knows against `sboms`.

    Return nothing, and say so in a line, where grype is not installed or has no database.
    """
    if shutil.which("grype") is None:
        log.warning("grype is not on the PATH: only Python packages were judged")
        return []
    findings: list[Vulnerability] = []
    for sbom in sboms:
        try:
            output = run(["grype", "--quiet", f"sbom:{sbom.cyclonedx}", "--output", "json"], timeout=TIMEOUT_SECONDS)
        except CommandFailed as error:
            log.warning(f"grype: only Python packages were judged: {_last(error.output)}")
            return []
        found, rest = from_grype(json.loads(output))
        findings += found
        log.warning(f"{sbom.reference}: {rest} findings that are not high or critical, or that no version fixes")
    return findings


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return shorten(lines[-1]) if lines else "it said nothing"
