from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

from pipeline.deploy.timeline import CHARACTER, Timeline, timeline_svg
from pipeline.proof.report import Mark
from pipeline.proof.results import Bin

START = 1_800_000_000.0
SVG = "{http://www.w3.org/2000/svg}"


def bin_at(seconds: float, answered: dict[str, int], failed: int = 0, p95: float | None = 9.0) -> Bin:
    """Half a second of traffic."""
    return Bin(START + seconds, 0.5, answered, failed, p95 and p95 / 2, p95)


def draw(bins: list[Bin], marks: list[Mark] | None = None) -> ET.Element:
    """The picture of a rollout from `old` to `new`."""
    timeline = Timeline(bins, marks or [], new="new", old="old")
    return ET.fromstring(timeline_svg(timeline, title="Deploy 1 on local: proved", subtitle="<all> is well & good"))


def boxes(root: ET.Element, style: str) -> list[dict[str, float]]:
    """The bars of a class, without its square in the legend."""
    found = [box for box in root.iter(f"{SVG}rect") if box.get("class") == style]
    return [{key: float(box.get(key, 0)) for key in ("x", "y", "width", "height")} for box in found][:-1]


BINS = [bin_at(0, {"old": 25}), bin_at(0.5, {"old": 10, "new": 14}, failed=1), bin_at(1, {"new": 25})]


class TestTimeline:
    def test_is_a_picture_that_says_what_it_shows(self) -> None:
        """A reader of the screen gets the verdict, too."""
        root = draw(BINS)
        assert root.get("role") == "img"
        assert root.findtext(f"{SVG}title") == "Deploy 1 on local: proved"
        assert root.findtext(f"{SVG}desc") == "<all> is well & good"

    def test_stacks_releases_and_shows_every_failure(self) -> None:
        """Bars stand on each other, the new release on the old one, and one failure is seen in any crowd."""
        root = draw(BINS)
        old, new, failed = boxes(root, "old")[1], boxes(root, "new")[0], boxes(root, "failed")[0]
        assert old["x"] == new["x"] == failed["x"]
        assert new["y"] + new["height"] == pytest.approx(old["y"], abs=0.02)
        assert failed["y"] + failed["height"] == pytest.approx(new["y"], abs=0.02)
        crowd = draw([bin_at(0, {"new": 5000}, failed=1)])
        assert boxes(crowd, "failed")[0]["height"] >= 4

    @pytest.mark.parametrize("spread", [0.0, 0.05, 0.4, 2.0])
    @pytest.mark.parametrize("length", [4, 60, 300])
    def test_no_labels_overlap_and_no_line_crosses_one(self, spread: float, length: int) -> None:
        """Six marks in two seconds, or all at once, anywhere on the axis, the very end included."""
        bins = [bin_at(0.5 * index, {"new": 5}) for index in range(length * 2)]
        names = [
            "roll out",
            "replica 1 of 2 in",
            "old replica 1 out of the edge",
            "prove",
            "replica 2 of 2 in",
            "record",
        ]
        for begin in (0.0, length / 2, max(0.0, length - 5 * spread)):
            marks = [Mark(START + min(begin + index * spread, length), name) for index, name in enumerate(names)]
            root = draw(bins, marks)
            top = min(float(line.get("y2", 0)) for line in root.iter(f"{SVG}line") if line.get("class") == "grid")
            drawn = [
                text for text in root.iter(f"{SVG}text") if not text.get("class") and float(text.get("y", 0)) < top
            ]
            spans = [(float(text.get("x", 0)), float(text.get("y", 0)), len(text.text or "")) for text in drawn]
            labels = [(x, x + CHARACTER * count, y) for x, y, count in spans]
            assert len(labels) == 6
            assert all(right <= 960 for _, right, _ in labels)
            for (left, right, y), (other_left, other_right, other_y) in combinations(labels, 2):
                assert right <= other_left or other_right <= left or abs(y - other_y) >= 12
            lines = [line for line in root.iter(f"{SVG}line") if line.get("class") == "mark"]
            for line in lines:
                x, y1 = float(line.get("x1", 0)), float(line.get("y1", 0))
                assert not [label for label in labels if label[0] < x < label[1] and label[2] > y1]

    def test_leaves_out_marks_beyond_the_traffic(self) -> None:
        """The build came before there was any."""
        root = draw(BINS, [Mark(START - 60, "build"), Mark(START - 0.2, "migrate"), Mark(START + 1, "prove")])
        names = [text.text for text in root.iter(f"{SVG}text")]
        assert [name for name in ("build", "migrate", "prove") if name in names] == ["migrate", "prove"]

    def test_draws_no_line_through_a_gap(self) -> None:
        """Between a deploy's traffic and its rollback's nothing was measured."""
        root = draw([*BINS, bin_at(9, {"old": 25}), bin_at(9.5, {"old": 25})])
        assert len(list(root.iter(f"{SVG}polyline"))) == 4

    def test_copes_with_traffic_that_nobody_answered(self) -> None:
        """No latency, no release, failures alone."""
        root = draw([bin_at(0, {}, failed=25, p95=None)])
        assert len(boxes(root, "failed")) == 1

    def test_says_when_there_was_no_traffic(self) -> None:
        """A deploy that failed in its build has a picture, too."""
        assert "No traffic was sent." in [text.text for text in draw([]).iter(f"{SVG}text")]

    def test_reads_on_dark_pages(self) -> None:
        """Every colour of the light card has one of the dark card."""
        style = draw(BINS).findtext(f"{SVG}style") or ""
        light, dark = (set(re.findall(r"(--[\w-]+):", part)) for part in style.split("@media"))
        assert light == dark
