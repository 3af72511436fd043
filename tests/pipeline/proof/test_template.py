from __future__ import annotations

from typing import Any

import pytest

from pipeline.proof.template import MissingValue, Values, mismatch


class TestValues:
    def test_fills_texts_wherever_they_are(self) -> None:
        """Placeholders work in nested tables and lists, and leave other braces alone."""
        values = Values("u1")
        assert values.fill({"a": ["x-{unique}", 1, {"b": "{other}"}]}) == {"a": ["x-u1", 1, {"b": "{other}"}]}

    def test_keeps_the_type_of_a_value_that_is_the_whole_text(self) -> None:
        """An expected `{response.id}` must equal the number that was answered."""
        assert Values("u", {"data": [{"id": 7}]}).fill("{response.data.0.id}") == 7

    def test_quotes_values_in_a_path(self) -> None:
        """An id may hold anything; the path it is put into keeps its shape."""
        assert Values("u", {"id": "a/b c"}).fill_path("/x/{response.id}?q={unique}") == "/x/a%2Fb%20c?q=u"

    def test_spells_a_unique_text_as_its_form_says(self) -> None:
        """A service may want a tracking number or a postcode; numbers that follow each other never meet."""
        values = [Values("u", number=number).fill("RR{unique:000000}-{unique:aA-x0}") for number in (0, 9, 123456)]
        assert values == ["RR000000-aA-00", "RR000009-aA-09", "RR123456-dR-96"]
        made = {Values("u", number=7**20 + number).fill("{unique:A00000}") for number in range(5000)}
        assert len(made) == 5000

    @pytest.mark.parametrize("response", [None, {}, {"id": []}, [1], "text"])
    def test_says_what_an_answer_lacks(self, response: Any) -> None:
        """Whatever an answer looks like, a value that it does not hold is named."""
        with pytest.raises(MissingValue, match=r"the answer holds no `id\.0`"):
            Values("u", response).fill_path("/{response.id.0}")


class TestDifference:
    @pytest.mark.parametrize(
        ("actual", "expected"),
        [({"a": 1, "b": 2}, {"a": 1}), ([0, {"a": 1, "b": 2}], [{"a": 1}]), ([1], []), (None, None), (1, 1.0)],
    )
    def test_accepts_more_than_is_expected(self, actual: Any, expected: Any) -> None:
        """A subset is expected: a new key in an answer breaks nobody."""
        assert mismatch(actual, expected) is None

    @pytest.mark.parametrize(
        ("actual", "expected", "says"),
        [
            ({"a": {"b": 1}}, {"a": {"b": 2}}, "`a.b` is 1, not 2"),
            ({}, {"a": 1}, "`a` is missing"),
            ({"a": [1]}, {"a": [2, 1]}, "`a` lacks 2"),
            ([{"a": 1}], [{"a": 2}], '`the body` lacks {"a": 2}'),
            ({"a": {}}, {"a": []}, "`a` is {}, not []"),
            ({"a": 1}, {"a": True}, "`a` is 1, not true"),
            ([], {}, "`the body` is [], not {}"),
        ],
    )
    def test_says_where_it_differs(self, actual: Any, expected: Any, says: str) -> None:
        """The first difference is named by its path, with both values."""
        assert mismatch(actual, expected) == says
