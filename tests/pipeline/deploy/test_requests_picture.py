"""The picture of how many times as slow each request is."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

from pipeline.deploy.evidence import render_markdown
from pipeline.deploy.requests_picture import requests_svg
from pipeline.proof.comparison import Compared, Comparison, Side
from pipeline.proof.significance import Effect
from tests.pipeline.proof.test_report import FACTS

OLD, NEW = Side(100, 0, 3.0, 5.0), Side(100, 0, 33.0, 1234.0)
SLOW = Compared("<a> & b", OLD, NEW, Effect(11.0, 9.5, 12.0, 30.0, 1e-9), slow=True)
SAME = Compared("list", OLD, OLD, Effect(1.0, None, None, 0.0, 0.5))
RARE = Compared("rare", None, NEW, without="the release before was not asked")
FOUND = Comparison((SLOW, SAME, RARE))


def shapes(comparison: Comparison, tag: str) -> list[ET.Element]:
    """Return the elements of a kind in the picture."""
    root = ET.fromstring(requests_svg(comparison, title="Each request"))
    return list(root.iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


def test_each_compared_request_has_a_row_with_its_interval() -> None:
    """The slow one in red; what is not compared is in the table alone."""
    assert [dot.get("class") for dot in shapes(FOUND, "circle")] == ["failed", "new"]
    words = [text.text for text in shapes(FOUND, "text")]
    assert "<a> & b" in words
    assert "11 ×: 3 → 33 ms" in words
    assert "rare" not in words
    bars = [bar for bar in shapes(FOUND, "rect") if bar.get("height") == "2"]
    assert [bar.get("class") for bar in bars] == ["failed"]
    dot, bar = shapes(FOUND, "circle")[0], bars[0]
    assert float(bar.get("x") or 0) < float(dot.get("cx") or 0)
    assert float(dot.get("cx") or 0) < float(bar.get("x") or 0) + float(bar.get("width") or 0)


def test_nothing_compared_is_no_picture() -> None:
    """As of a first deploy."""
    assert requests_svg(Comparison((RARE,)), title="x") == ""


def test_the_report_has_the_table_and_the_picture() -> None:
    """GitHub's summary, which cannot show a file, has the table alone."""
    assert FACTS.traffic
    report = replace(FACTS, traffic=replace(FACTS.traffic, comparison=FOUND))
    text = render_markdown(report)
    assert "| `<a> & b` | 100 | 3 | 5 | 100 | 0 | 33 | 1234 | 11 (9.5 to 12), **slow** |" in text
    assert "| `list` | 100 | 3 | 5 | 100 | 0 | 3 | 5 | 1 |" in text
    assert "| `rare` | — | — | — | 100 | 0 | 33 | 1234 | not compared: the release before was not asked |" in text
    assert "(requests.svg)" in text
    assert "With 95 % confidence, at most 3 % of the requests fail." in text
    summary = render_markdown(report, picture="a chart")
    assert "**slow**" in summary
    assert "requests.svg" not in summary
