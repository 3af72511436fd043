"""What GitHub Actions gets of a deploy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.deploy import github
from pipeline.proof.report import Report, Rollback
from pipeline.proof.results import Bin, Failure
from pipeline.system.progress import StageRecord, tame
from tests.logs import logged
from tests.pipeline.proof.test_report import (
    FACTS,
    INTERRUPTED,
    NEW,
    NO_BUILD,
    OLD,
    STUCK,
    TRAFFIC,
    UNCHANGED,
    UNDONE,
    failure,
    measured,
)

START = 1_800_000_000.0
MIB = 1024 * 1024
PLACE = ".slipway/kind/releases/7/report.json"
NASTY = (
    "\n\n# owned <img src=x onerror=1> ![x](https://evil.example) [go](javascript:1) |a| **b** ~~c~~ _d_ ``e`` ``` f \\"
)


def traffic(bins: list[tuple[dict[str, int], int]], failures: tuple[Failure, ...] = TRAFFIC.failures) -> Report:
    """A deploy whose BINS of half a second held these answers and failures."""
    made = tuple(Bin(START + number / 2, 0.5, answered, failed, 4, 9) for number, (answered, failed) in enumerate(bins))
    seen = measured(replace(TRAFFIC, bins=made, failures=failures))
    return replace(FACTS, traffic=seen, stages=(StageRecord("prove", START + 1, 1.0, "ok"),))


def publish(report: Report, folder: Path) -> tuple[str, str, list[str]]:
    """The summary, the outputs, and the warnings."""
    summary, output = folder / "summary.md", folder / "output"
    environ = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)}
    with logged() as warned:
        github.publish(report, PLACE, environ)
    return summary.read_text(encoding="utf-8"), output.read_text(encoding="utf-8"), warned


class TestPublish:
    @pytest.mark.parametrize("report", [FACTS, UNDONE, UNCHANGED, NO_BUILD, INTERRUPTED, STUCK])
    def test_writes_however_the_deploy_ended(self, report: Report, tmp_path: Path) -> None:
        """A failed run is the one whose summary is read."""
        summary, output, warned = publish(report, tmp_path)
        assert warned == []
        assert summary.startswith("# ")
        assert "timeline.svg" not in summary
        lines = [f"verdict={report.verdict}", f"release={report.release or ''}", f"url={report.url}", f"report={PLACE}"]
        assert output.splitlines() == [*lines, "watch="]

    def test_says_what_the_next_job_has_to_watch(self, tmp_path: Path) -> None:
        """By its number: another deploy may serve by then."""
        output = tmp_path / "output"
        github.publish(FACTS, PLACE, {"GITHUB_OUTPUT": str(output)}, listen=True)
        assert output.read_text().splitlines()[-1] == f"watch={FACTS.number}"

    def test_adds_to_what_is_there(self, tmp_path: Path) -> None:
        """A job may deploy twice."""
        publish(FACTS, tmp_path)
        summary, output, _ = publish(UNDONE, tmp_path)
        assert summary.count("\n# Release") + summary.startswith("# Release") == 2
        assert output.count("verdict=") == 2

    def test_stays_below_what_github_takes(self, tmp_path: Path) -> None:
        """1 MiB a step: what is too much is cut at a line, no block is left open, and the reader is told."""
        many = tuple(failure("5xx", NEW, "2027-01-15T08:00:01", "ü" * 300_000) for _ in range(5))
        report = replace(traffic([({OLD: 25}, 0)] * 4, many), reason="x" * 10)
        (tmp_path / "summary.md").write_text("before\n")
        summary, _, _ = publish(report, tmp_path)
        assert len(summary.encode()) <= MIB
        assert summary.startswith("before\n# Release")
        assert summary.endswith("the rest is in `report.md`, an artifact of the run.\n")
        assert summary.count("```") % 2 == 0

    def test_says_what_it_could_not_write(self, tmp_path: Path) -> None:
        """The deploy goes on."""
        with logged() as warned:
            github.publish(FACTS, PLACE, {"GITHUB_STEP_SUMMARY": str(tmp_path / "no/such/folder")})
        [line] = warned
        assert "no/such/folder: No such file or directory" in line

    def test_does_nothing_elsewhere(self, tmp_path: Path) -> None:
        """A laptop has no summary."""
        with logged() as warned:
            github.publish(FACTS, PLACE, {})
        assert warned == []

    def test_lets_no_text_of_others_out_of_its_place(self, tmp_path: Path) -> None:
        """A reason, a note, an answer or the name of a release may hold any markup: none of it takes effect."""
        answered = f'{NEW}"]\n```{NASTY}'
        report = replace(
            traffic([({OLD: 25}, 0), ({answered: 25}, 1)], (failure("5xx", NEW, "", NASTY),)),
            verdict="rolled_back",
            reason=f"it said `$(id)` and {NASTY}",
            stages=(StageRecord("prove", START + 1, 1.0, "failed", NASTY),),
            rollback=Rollback(release=OLD, verdict="failed", reason=NASTY),
        )
        summary, output, _ = publish(report, tmp_path)
        assert output.count("\n") == 5
        assert re.findall(r"(?m)^#+ .*owned.*$", summary) == [summary.splitlines()[0]], "one heading, which is ours"
        assert summary.count("\n```") == 2, "our chart opens and ends"
        chart = summary[summary.index("```mermaid") : summary.rindex("\n```")]
        assert "owned" not in chart
        outside = re.sub(r"(?<!\\)`[^`]*`", "", summary.replace(f"{chart}\n```", "").replace("\\`", ""))
        assert "owned" in outside
        for sign in ("<img", "![", "](", "**", "~~", "``"):
            assert not re.search(rf"(?<!\\){re.escape(sign)}", outside), sign
        for line in outside.splitlines():
            if line.startswith("| prove"):
                assert len(re.findall(r"(?<!\\)\|", line)) == 5


class TestChart:
    def test_shows_who_answered_and_what_failed(self) -> None:
        """A line for the old release, one for the new one, one for failures, in the order of the legend."""
        chart = github.chart(traffic([({OLD: 25}, 0), ({OLD: 15, NEW: 10}, 0), ({NEW: 24}, 1)]))
        assert "    line [50.0, 30.0, 0.0]\n    line [0.0, 20.0, 48.0]\n    line [0.0, 0.0, 2.0]\n" in chart
        assert "plotColorPalette: '#9ca3af, #2563eb, #dc2626'" in chart
        assert 'x-axis "seconds since the traffic began" 0.25 --> 1.25' in chart
        assert chart.endswith(f"⬜ `{OLD}` old · 🟦 `{NEW}` new · 🟥 failed (1) · prove from 1 s")

    def test_draws_no_failures_where_there_are_none(self) -> None:
        """A red line on the ground would look like some."""
        chart = github.chart(traffic([({"": 25}, 0), ({"other": 25}, 0)]))
        assert "dc2626" not in chart
        assert "🟨 no release named · 🟩 `other`" in chart

    def test_shows_one_failure_in_a_thousand(self) -> None:
        """It is why the deploy failed."""
        chart = github.chart(traffic([({NEW: 1000}, 1), ({NEW: 1000}, 0)]))
        assert "    line [80.0, 0.0]\n" in chart

    def test_stays_readable_for_a_long_rollout(self) -> None:
        """Ten minutes are no more columns than ten seconds."""
        chart = github.chart(traffic([({NEW: 25}, 0)] * 1201))
        [line] = re.findall(r"line \[(.*)\]", chart)
        assert len(line.split(", ")) == github.COLUMNS
        assert len(chart) < 2000

    @pytest.mark.parametrize("report", [UNCHANGED, NO_BUILD])
    def test_says_when_nothing_was_sent(self, report: Report) -> None:
        """And draws no empty axes."""
        assert github.chart(report) == "No traffic was sent."


class TestAnnotation:
    def test_is_one_line_that_nothing_ends(self) -> None:
        """GitHub's own escapes: a reason cannot begin another command."""
        line = github.annotation("deploy: a,b", "100 %\r\n::add-mask::x", {"GITHUB_ACTIONS": "true"})
        assert line == "::error title=deploy%3A a%2Cb::100 %25%0D%0A::add-mask::x\n"

    def test_is_nothing_elsewhere(self) -> None:
        """A terminal would show it as it is."""
        assert github.annotation("deploy", "it broke", {}) == ""


class TestTame:
    @pytest.mark.parametrize(
        "text", ["::add-mask::secret", "    ::error::no", "fine\n  ::stop-commands::x", "a ##[error]b"]
    )
    def test_makes_no_command_of_what_a_service_says(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        """The runner obeys `::` at the start of a line, spaces or not, and `##[` anywhere."""
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert not re.search(r"(?m)^\s*::|##\[", tame(text))
        assert tame(text).replace("\u200b", "") == text
        monkeypatch.delenv("GITHUB_ACTIONS")
        assert tame(text) == text
