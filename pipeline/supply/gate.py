"""Whether what is known against a release lets it pass: pure, from the reports of pip-audit and grype."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from pipeline.config.policy import Allowance

__all__ = ["UNAUDITED", "Finding", "from_grype", "from_pip_audit", "judge"]

UNAUDITED = "unaudited"  # the id of what could not be judged
GRAVE = ("High", "Critical")


@dataclass(frozen=True)
class Finding:
    """Something that is known against a package. `ids`: all its names; `fixed`: the versions that mend it."""

    ids: tuple[str, ...]
    package: str
    version: str
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        if self.ids == (UNAUDITED,):
            return f"{self.package} {self.version}: the service does not know it, so it was not judged"
        mend = f"update to {' or '.join(self.fixed)}" if self.fixed else "no version mends it yet"
        return f"{self.package} {self.version}: {', '.join(self.ids)}: {mend}"


def judge(
    findings: Iterable[Finding], allowed: Sequence[Allowance], today: date
) -> tuple[list[str], list[str], list[str]]:
    """What of FINDINGS stops the release, what is ALLOWED to ship, and which allowances match nothing any more (a line
    each).
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
            refused.append(f"{finding} (it was allowed until {last}: mend it, or give a new day and reason)")
        else:
            refused.append(str(finding))
    stale = [
        f"[[tool.slipway.allow]]: {one.id} of {one.package} matches nothing: `scan` and `audit` say so? take it out"
        for one in allowed
        if one not in used
    ]
    return refused, passed, stale


def from_pip_audit(report: Mapping[str, Any]) -> list[Finding]:
    """The findings of a report of `pip-audit --format json`. What it skips it has not judged, and says it is well."""
    found = []
    for one in report["dependencies"]:
        if "skip_reason" in one:
            # It names the version at its end, in parentheses, and nowhere else.
            version = one["skip_reason"].rpartition("(")[2].rstrip(")")
            found.append(Finding((UNAUDITED,), one["name"], version, ()))
        for each in one.get("vulns", []):
            ids = (each["id"], *sorted(each.get("aliases", [])))
            found.append(Finding(ids, one["name"], one["version"], tuple(each["fix_versions"])))
    return found


def from_grype(report: Mapping[str, Any]) -> tuple[list[Finding], int]:
    """The findings of a report of `grype --output json` that stop a release: grave, and mended by a version that there
    is. And how many there are beside them: a base image always has some that nobody can mend.
    """
    found, rest = [], 0
    for one in report["matches"]:
        about, artifact = one["vulnerability"], one["artifact"]
        fix = about.get("fix", {})
        if about.get("severity") not in GRAVE or fix.get("state") != "fixed":
            rest += 1
            continue
        ids = (about["id"], *sorted({each["id"] for each in one.get("relatedVulnerabilities", [])} - {about["id"]}))
        found.append(Finding(ids, artifact["name"], artifact["version"], tuple(fix.get("versions", []))))
    return found, rest


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")
