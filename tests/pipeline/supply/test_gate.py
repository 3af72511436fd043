"""What is known against a release, and whether it passes: on reports as pip-audit and grype write them.

Those of pip-audit are its own (what it asked was played); grype's has its schema and made-up entries.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.policy import Allowance, allowances
from pipeline.supply.gate import Vulnerability, from_grype, from_pip_audit, judge_vulnerabilities

RECORDED = Path(__file__).parent / "recorded"
TODAY = date(2026, 11, 24)
FOUND = Vulnerability(("PYSEC-2024-60", "CVE-2024-3651", "GHSA-jjg7-2v4v-x38h"), "idna", "3.6", ("3.7",))


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def allowed(id_: str = "CVE-2024-3651", until: date = TODAY, package: str = "idna") -> Allowance:
    return Allowance(id=id_, package=package, reason="it encodes only our own names", until=until)


class TestPipAudit:
    def test_says_what_is_known(self) -> None:
        """With every name that it has, and what mends it."""
        assert from_pip_audit(recorded("pip-audit-found")) == [FOUND]

    def test_calls_nothing_well_that_it_did_not_judge(self) -> None:
        """It ended with 0 and `No known vulnerabilities found`: it had found no package."""
        found = from_pip_audit(recorded("pip-audit-skipped"))
        assert [(one.ids, one.package, one.version) for one in found] == [
            (("unaudited",), "idna", "3.6"),
            (("unaudited",), "anyio", "4.16.0"),
        ]
        assert "the service does not know it, so it was not judged" in judge_vulnerabilities(found, [], TODAY)[0][0]


class TestGrype:
    def test_stops_for_what_is_grave_and_can_be_mended(self) -> None:
        """A base image always has some that nobody can mend: those are counted."""
        found, rest = from_grype(recorded("grype"))
        assert [(one.ids, one.package, one.fixed) for one in found] == [
            (("CVE-2026-0001",), "libssl3t64", ("3.5.5-1",)),
            (("GHSA-aaaa-bbbb-cccc", "CVE-2026-0002"), "stdlib", ("1.25.4",)),
        ]
        assert rest == 2


class TestJudge:
    def test_refuses_what_nobody_allowed(self) -> None:
        """The package, the vulnerability, and what mends it; two images that have it are one line."""
        refused, passed, stale = judge_vulnerabilities([FOUND, FOUND], [], TODAY)
        assert refused == ["idna 3.6: PYSEC-2024-60, CVE-2024-3651, GHSA-jjg7-2v4v-x38h: update to 3.7"]
        assert (passed, stale) == ([], [])

    def test_lets_pass_what_is_allowed_by_any_of_its_names(self) -> None:
        """And says it, with the reason: through the last day."""
        refused, passed, _ = judge_vulnerabilities([FOUND], [allowed()], TODAY)
        assert refused == []
        assert passed == ["idna: CVE-2024-3651 is allowed until 2026-11-24: it encodes only our own names"]

    def test_an_allowance_ends(self) -> None:
        """The day after it."""
        [line], passed, stale = judge_vulnerabilities([FOUND], [allowed(until=date(2026, 11, 23))], TODAY)
        assert "(it was allowed until 2026-11-23: fix it, or give a new day and reason)" in line
        assert (passed, stale) == ([], [])

    def test_an_allowance_is_of_one_package(self) -> None:
        """However its name is written."""
        one = Vulnerability(("CVE-1",), "typing_extensions", "4", ())
        assert judge_vulnerabilities([one], [allowed("CVE-1", package="typing-extensions")], TODAY)[0] == []
        assert judge_vulnerabilities([FOUND], [allowed(package="anyio")], TODAY)[0]

    def test_says_which_allowance_is_needed_no_more(self) -> None:
        """A list that only grows is not read."""
        assert judge_vulnerabilities([], [allowed()], TODAY)[2] == [
            "[[tool.slipway.allow]]: CVE-2024-3651 of idna matches nothing: if `scan` and `audit` agree, take it out"
        ]


class TestAllowances:
    GOOD: dict[str, object] = {"id": "CVE-1", "package": "idna", "reason": "r", "until": TODAY}  # noqa: RUF012 - a table

    def test_reads_a_list_of_tables(self) -> None:
        """As TOML gives them."""
        problems: list[str] = []
        [found] = allowances([self.GOOD], problems)
        assert (found, problems) == (Allowance(id="CVE-1", package="idna", reason="r", until=TODAY), [])

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"reason": ""}, "(CVE-1): reason: must be text"),
            ({"reason": None}, "reason: must be text"),
            ({"until": "2026-11-24"}, "until: must be a day; for example `until = 2027-01-31`"),
            ({"id": 3}, "id: must be text"),
            ({"untill": TODAY}, "unknown key `untill`: did you mean `until`?"),
        ],
    )
    def test_refuses_one_without_reason_or_end(self, change: dict[str, object], says: str) -> None:
        """The entry, the key, the fix."""
        problems: list[str] = []
        assert allowances([{**self.GOOD, **change}], problems) == ()
        [problem] = problems
        assert problem.startswith("pyproject.toml [[tool.slipway.allow]] 1 (")
        assert says in problem

    def test_refuses_what_is_no_list(self) -> None:
        """One table instead of a list of them."""
        problems: list[str] = []
        allowances({"id": "CVE-1"}, problems)
        [problem] = problems
        assert problem.startswith("pyproject.toml [[tool.slipway.allow]]: must be a list of tables: write `[[")
