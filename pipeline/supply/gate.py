"""The gate: whether what is known against a release lets it pass, purely from the reports of pip-audit and grype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline.config.policy import Allowance

__all__ = ["UNAUDITED", "Vulnerability", "from_grype", "from_pip_audit", "judge_vulnerabilities"]

UNAUDITED = "unaudited"  # the id of a package that could not be judged
GRAVE = ("High", "Critical")


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of a package. `ids`: all its names; `fixed`: the versions that fix it."""

    ids: tuple[str, ...]
    package: str
    version: str
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        if self.ids == (UNAUDITED,):
            return f"{self.package} {self.version}: the service does not know it, so it was not judged"
        fix = f"update to {' or '.join(self.fixed)}" if self.fixed else "no version fixes it yet"
        return f"{self.package} {self.version}: {', '.join(self.ids)}: {fix}"


def judge_vulnerabilities(
    findings: Iterable[Vulnerability], allowed: Sequence[Allowance], today: date
) -> tuple[list[str], list[str], list[str]]:
    """Return which `findings` stop the release, which are `allowed`, and which allowances match nothing any more.

    Each is a line.
    """
    refused, passed, used = [], [], set()
    for finding in dict.fromkeys(findings):
        mine = [one for one in allowed if one.id in finding.ids and _same(one.package, finding.package)]
        used.update(mine)
        valid = [one for one in mine if one.until >= today]
        if valid:
            passed.append(f"{finding.package}: {valid[0].id} is allowed until {valid[0].until}: {valid[0].reason}")
        elif mine:
            last = max(one.until for one in mine)
            refused.append(f"{finding} (it was allowed until {last}: fix it, or give a new day and reason)")
        else:
            refused.append(str(finding))
    stale = [
        f"[[tool.slipway.allow]]: {one.id} of {one.package} matches nothing: if `scan` and `audit` agree, take it out"
        for one in allowed
        if one not in used
    ]
    return refused, passed, stale


def from_pip_audit(report: Mapping[str, Any]) -> list[Vulnerability]:
    """Return the findings of a report of `pip-audit --format json`, with an unaudited one for what it skipped."""
    findings = []
    for package in report["dependencies"]:
        # pip-audit has not judged what it skips, and yet reports success.
        if "skip_reason" in package:
            # The reason names the version at its end, in parentheses, and the report nowhere else.
            version = package["skip_reason"].rpartition("(")[2].rstrip(")")
            findings.append(Vulnerability((UNAUDITED,), package["name"], version, ()))
        for each in package.get("vulns", []):
            ids = (each["id"], *sorted(each.get("aliases", [])))
            findings.append(Vulnerability(ids, package["name"], package["version"], tuple(each["fix_versions"])))
    return findings


def from_grype(report: Mapping[str, Any]) -> tuple[list[Vulnerability], int]:
    """Return the findings of a report of `grype --output json` that stop a release, and the number of the others.

    Those that stop it are high or critical, and fixed by a version that exists.
    """
    # A base image always has some that nobody can fix.
    found, rest = [], 0
    for match in report["matches"]:
        about, artifact = match["vulnerability"], match["artifact"]
        fix = about.get("fix", {})
        if about.get("severity") not in GRAVE or fix.get("state") != "fixed":
            rest += 1
            continue
        ids = (about["id"], *sorted({each["id"] for each in match.get("relatedVulnerabilities", [])} - {about["id"]}))
        found.append(Vulnerability(ids, artifact["name"], artifact["version"], tuple(fix.get("versions", []))))
    return found, rest


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")
