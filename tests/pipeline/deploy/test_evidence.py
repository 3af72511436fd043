"""The evidence of a deploy: its summary, its report and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.deploy.evidence import render_markdown, summary_line, write_evidence
from pipeline.proof.report import Report
from tests.pipeline.proof.test_report import (
    FACTS,
    INTERRUPTED,
    MOVED,
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


class TestSummaryLine:
    @pytest.mark.parametrize(
        ("report", "line"),
        [
            (FACTS, f"Release {NEW} serves local: 252 requests, 12 failed"),
            (UNCHANGED, f"Nothing was changed on local: release {NEW} is already running and every replica is ready"),
            (
                UNDONE,
                f"Release {NEW} was undone on local: 12 of 840 requests failed: 12 × 5xx; release {OLD} serves again",
            ),
            (
                NO_BUILD,
                f"The deploy of the new release to local failed: no space left; release {OLD} still serves, untouched",
            ),
            (INTERRUPTED, f"The deploy of release {NEW} to local was interrupted; nothing running was touched"),
            (
                STUCK,
                f"The deploy of release {NEW} to local failed: it broke; THE ROLLBACK FAILED, TOO: no replica is ready",
            ),
        ],
    )
    def test_says_what_happened_and_who_serves(self, report: Report, line: str) -> None:
        """One sentence for each way a deploy can end."""
        assert summary_line(report) == line


class TestRenderMarkdown:
    def test_begins_with_what_happened_and_ends_with_what_to_do(self) -> None:
        """A tired engineer reads the first and the last line."""
        text = render_markdown(UNDONE)
        assert text.startswith(f"# Release {NEW} was undone on local: ")
        assert "(timeline.svg)" in text
        assert "## The rollback" in text
        assert text.rstrip().endswith("`nox -s deploy -- local` deploys again once it is fixed.")

    def test_shows_examples_with_the_id_to_look_for(self) -> None:
        """The request id leads to the line in the log."""
        text = render_markdown(UNDONE)
        assert "### 10 × 5xx" in text
        assert (
            "| 08:00:01.000 | `GET /api/v1/releases?limit=5` | `77c0de4410aa` | `0123456789abcdef` | `500 {}` |" in text
        )

    def test_survives_what_a_service_answers(self) -> None:
        """A body full of markup stays in its cell."""
        nasty = failure("5xx", NEW, "2027-01-15T08:00:01", "500 <b>`a`|b\n\n# c")
        text = render_markdown(replace(FACTS, traffic=measured(replace(TRAFFIC, failures=(nasty,)))))
        assert "| `500 <b>'a'\\|b # c` |" in text

    def test_says_what_the_engine_did_by_itself(self) -> None:
        """More replicas, for example: that is no verdict, but it explains a latency."""
        assert "\n\nRemark: the autoscaler backend went from 2 to 3 replicas.\n\n" in render_markdown(MOVED)
        assert summary_line(MOVED).endswith("; the autoscaler backend went from 2 to 3 replicas")

    def test_does_not_claim_what_was_not_read_back(self) -> None:
        """After a rollout that was stopped at once, nothing is known about its writes."""
        text = render_markdown(replace(FACTS, traffic=measured(replace(TRAFFIC, writes_unread=30))))
        assert "30 writes acknowledged, not read back, because the rollout had already failed" in text

    def test_says_how_long_it_took_though_the_clock_was_set(self) -> None:
        """The times say when, by whatever clock there was; the seconds are measured."""
        for finished in ("2027-01-15T06:00:20+00:00", "2027-01-15T10:00:20+00:00"):
            assert "| started | 2027-01-15T08:00:00+00:00, took 22 s |" in render_markdown(
                replace(FACTS, finished=finished)
            )

    def test_says_when_the_old_release_failed_already(self) -> None:
        """So the reader sees why a deploy with failures can be proved."""
        assert "10 requests had already failed before anything was changed" in render_markdown(FACTS)


class TestWriteEvidence:
    def test_leaves_the_three_files_and_nothing_else(self, tmp_path: Path) -> None:
        """Each file is written whole or not at all; writing it again does no harm."""
        for _ in range(2):
            write_evidence(tmp_path, UNDONE)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md", "timeline.svg"]
        assert json.loads((tmp_path / "report.json").read_text())["number"] == 12
        assert "replica 1 of 2 in" in (tmp_path / "timeline.svg").read_text()

    def test_works_for_a_deploy_that_was_killed(self, tmp_path: Path) -> None:
        """Nobody knows how far it came, or when it ended: the report claims nothing, and has all names."""
        reason = "the deploy died in stage `roll out`, without a report"
        killed = replace(FACTS, verdict="interrupted", reason=reason, finished=None, seconds=None, traffic=None)
        write_evidence(tmp_path, killed)
        report = json.loads((tmp_path / "report.json").read_text())
        assert report.keys() == FACTS.document().keys()
        assert (report["finished"], report["traffic"]) == (None, None)
        said = (tmp_path / "report.md").read_text()
        assert "was killed: the deploy died in stage `roll out`" in said
        assert "untouched" not in said
        assert "took" not in said

    def test_works_for_a_deploy_that_sent_nothing(self, tmp_path: Path) -> None:
        """A failed build leaves evidence, too."""
        write_evidence(tmp_path, replace(NO_BUILD, previous=None))
        assert "No traffic was sent." in (tmp_path / "timeline.svg").read_text()
