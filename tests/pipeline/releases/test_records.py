"""The release records."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.releases.records import Records, read_json, write_json


def recorded(folder: Path, *told: tuple[str, str | None]) -> Records:
    """Records of these releases and verdicts, from number 1."""
    records = Records(folder)
    for release, verdict in told:
        record = records.begin({"release": release, "started": "2026-01-01T00:00:00+00:00", "stage": "plan"})
        if verdict:
            write_json(record.folder / "report.json", {"verdict": verdict, "reason": "because"})
    return records


class TestRecords:
    def test_number_releases_from_one(self, tmp_path: Path) -> None:
        """The first record is 1, the next one more than the highest."""
        assert [one.number for one in recorded(tmp_path, ("a", "proved"), ("b", "failed")).all()] == [1, 2]

    def test_know_what_serves(self, tmp_path: Path) -> None:
        """What serves is the newest proved one: failed, undone and unchanged ones change nothing."""
        records = recorded(tmp_path, ("a", "proved"), ("b", "rolled_back"), ("a", "unchanged"), ("c", "failed"))
        serving = records.serving()
        assert serving is not None
        assert (serving.release, serving.number) == ("a", 1)

    def test_know_which_deploys_died(self, tmp_path: Path) -> None:
        """A record without a report is a deploy that was killed, in the stage it noted last."""
        records = recorded(tmp_path, ("a", "proved"), ("b", None))
        records.note(records.all()[-1], stage="migrate")
        assert [(one.number, one.stage) for one in records.killed()] == [(2, "migrate")]

    def test_go_back_to_the_release_before(self, tmp_path: Path) -> None:
        """The previous release is the one proved before what serves was first proved."""
        assert recorded(tmp_path, ("a", "proved"), ("b", "proved"), ("b", "proved")).previous().release == "a"

    def test_do_not_go_forward_again(self, tmp_path: Path) -> None:
        """After a rollback from b to a, `rollback` does not bring b back: it was left for a reason."""
        with pytest.raises(UsageError, match="a is the oldest one recorded"):
            recorded(tmp_path, ("a", "proved"), ("b", "proved"), ("a", "proved")).previous()

    def test_say_when_there_is_none_to_go_back_to(self, tmp_path: Path) -> None:
        """Without any proved release there is no previous one."""
        with pytest.raises(UsageError, match="none to go back to: `nox -s deploy` first"):
            recorded(tmp_path, ("a", "failed")).previous()

    def test_find_by_number_and_by_name(self, tmp_path: Path) -> None:
        """A number is a record; a name, or its beginning, the newest record of that release."""
        records = recorded(tmp_path, ("aaaa1", "proved"), ("bbbb2", "proved"), ("aaaa1", "proved"))
        assert [records.find(one).number for one in ("2", "aaaa1", "bbbb")] == [2, 3, 2]

    @pytest.mark.parametrize(
        ("reference", "message"), [("9", "no release `9`"), ("zzzz", "no release `zzzz`"), ("aaaa", "more than one")]
    )
    def test_refuse_what_they_do_not_know(self, tmp_path: Path, reference: str, message: str) -> None:
        """An unknown or ambiguous reference is a usage error."""
        with pytest.raises(UsageError, match=message):
            recorded(tmp_path, ("aaaa1", "proved"), ("aaaa2", "proved")).find(reference)

    def test_retain_the_newest_different_releases(self, tmp_path: Path) -> None:
        """Releases are kept by name: one that was proved twice counts once."""
        records = recorded(
            tmp_path, ("a", "proved"), ("b", "proved"), ("a", "proved"), ("c", "failed"), ("d", "proved")
        )
        assert records.retained(2) == ["d", "a"]


class TestWriteJson:
    def test_replaces_whole_files_only(self, tmp_path: Path) -> None:
        """What cannot be written leaves the file that was there."""
        path = tmp_path / "x.json"
        write_json(path, {"a": 1})
        with pytest.raises(TypeError):
            write_json(path, {"a": object()})
        assert read_json(path) == {"a": 1}

    @pytest.mark.parametrize("text", ["", '{"a": ', "[1]"])
    def test_a_cut_or_foreign_file_reads_as_empty(self, tmp_path: Path, text: str) -> None:
        """A machine that lost power mid-write is no reason to fail later."""
        (tmp_path / "x.json").write_text(text)
        assert read_json(tmp_path / "x.json") == {}
