"""Lines of several commands: all that there are, and those to come."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from pipeline.system.streams import Stream, follow, lines_of


def shell(name: str, script: str) -> Stream:
    return Stream(name, ("sh", "-c", script))


class TestLinesOf:
    def test_yields_each_line_of_both_outputs(self) -> None:
        """A crash may be told on the other one."""
        assert list(lines_of(shell("a", "echo one; echo two >&2; printf three"))) == ["one", "two", "three"]

    def test_replaces_what_is_no_text(self) -> None:
        """A line of whatever bytes ends nothing."""
        assert list(lines_of(shell("a", r"printf '\377\none\n'"))) == ["�", "one"]

    def test_ends_the_command_with_the_reader(self, tmp_path: Path) -> None:
        """Whoever has seen enough leaves nothing behind."""
        ended = tmp_path / "ended"
        lines = lines_of(shell("a", f"trap 'touch {ended}; exit' TERM; echo one; while :; do sleep 0.05; done"))
        assert next(lines) == "one"
        lines.close()  # type: ignore[attr-defined]
        assert ended.exists()


class TestFollow:
    def test_yields_lines_as_they_come_of_whoever_comes(self, tmp_path: Path) -> None:
        """A replica that starts later is found."""
        first = shell("first", "echo a; sleep 60")
        later = shell("later", "echo b; sleep 60")
        found = [[first], [first], [first, later]]
        lines = follow(lambda: found.pop(0) if len(found) > 1 else found[0])
        assert list(islice(lines, 2)) == [("first", "a"), ("later", "b")]
        lines.close()  # type: ignore[attr-defined]

    def test_reads_no_stream_twice(self) -> None:
        """One that has ended is over."""
        once, busy = shell("once", "echo a"), shell("busy", "while :; do echo b; sleep 0.5; done")
        lines = list(islice(follow(lambda: [once, busy]), 8))
        assert lines.count(("once", "a")) == 1
