from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.requests import ReadBack, Remove, common, parse_requests, renamed
from pipeline.errors import UsageError
from tests.pipeline.proof.servers import LIST, MAKE, MAKE_AND_MARK, MARK, SEE

PLACE = '{ path = "/things/{response.id}" }'


def problem(**changes: Any) -> str:
    """The one problem of the write MAKE with CHANGES (None takes a key out)."""
    table = {key: value for key, value in {**MAKE, **changes}.items() if value is not None}
    with pytest.raises(UsageError) as caught:
        parse_requests([table])
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


class TestParseRequests:
    def test_fills_in_what_is_usual(self) -> None:
        """A read needs a name, a method and a path; a write also how it is read back and removed."""
        read, write = parse_requests([{"name": "a", "method": "GET", "path": "/"}, MAKE])
        assert (read.weight, read.status, read.writes) == (1, 200, False)
        assert (write.writes, write.readback, write.remove) == (
            True,
            ReadBack(path="/things/{response.id}"),
            Remove(path="/things/{response.id}", method="DELETE", status=204),
        )

    def test_reads_what_a_spec_dumps(self) -> None:
        """A release is recorded with its table, so a spec survives becoming a table again."""
        specs = parse_requests([{**LIST, "headers": {"A": "b"}}, {**MAKE, "expect": {"id": "{response.id}"}}])
        assert parse_requests([spec.table() for spec in specs]) == specs

    def test_lets_a_post_say_that_it_only_reads(self) -> None:
        """A search by POST has nothing to read back."""
        (search,) = parse_requests([{"name": "find", "method": "POST", "path": "/find", "body": {}, "writes": False}])
        assert not search.writes

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"pth": "/x"}, "unknown key `pth`: did you mean `path`?"),
            ({"path": None}, 'missing key `path`: for example `path = "/notes"`'),
            ({"method": "TEACH"}, "method: must be one of 'GET', 'HEAD', 'POST', 'PUT' or 'PATCH', not `TEACH`"),
            ({"path": "things"}, 'path: must start with "/"'),
            ({"path": "/{uniqe}"}, "path: unknown placeholder `{uniqe}`"),
            ({"path": "/{response.id}"}, "path: `{response…}` is known after the write only"),
            ({"weight": 0}, "weight: must be 1 or more; for example `weight = 1`"),
            ({"weight": True}, "weight: must be a whole number; for example `weight = 1`"),
            ({"status": 99}, "status: must be 200 or more; for example `status = 200`"),
            ({"body": {"a": {1, 2}}}, "body: must be JSON"),
            ({"headers": {"Idempotency-Key": "1"}}, "headers: `Idempotency-Key` is set by the proof itself"),
            ({"headers": ["a"]}, "headers: must be a table; for example `headers = { Accept-Language"),
            ({"readback": None}, f"missing key `readback`: say how the write is read back: `readback = {PLACE}`"),
            (
                {"remove": None, "path": "/things?sort=1"},
                f"missing key `remove`: say how the write is removed: `remove = {PLACE}` or, for a service without a",
            ),
            ({"remove": "/x"}, "remove: must be a table"),
            ({"remove": {"path": "/x", "verb": "DELETE"}}, "remove: unknown key `verb`"),
            ({"remove": "comand"}, "remove: must be a table"),
            ({"readback": {"status": 200}}, "readback: missing key `path`"),
            ({"body": {"a": "{unique:AA-000}"}}, "body: `{unique:AA-000}` has 676000 values and needs a million"),
            ({"path": "/things/{unique:000}"}, "path: `{unique:000}` has 1000 values and needs a million"),
            ({"then": MARK}, "then: must be a list"),
            ({"then": [1]}, "then, number 1: must be a table"),
            ({"then": [SEE, {**MARK, "verb": 1}]}, "then, number 2: unknown key `verb`"),
            ({"then": [{**MARK, "path": "/{respons.id}"}]}, "then, number 1: path: unknown placeholder `{respons.id}`"),
            ({"then": [{**MARK, "weight": 2}]}, "then, number 1: unknown key `weight`"),
            ({"then": [{**SEE, "body": {}}]}, "then, number 1: body: is for POST, PUT, PATCH: take it out"),
            ({"then": [{**SEE, "name": "make"}]}, "name: `make` is used twice"),
        ],
    )
    def test_says_what_is_wrong_where_and_how_to_mend_it(self, changes: dict[str, Any], says: str) -> None:
        """Each wrong key is one line with the file, the request, the key and the fix."""
        assert f"pyproject.toml [[tool.slipway.requests]] `make`: {says}" in problem(**changes)

    @pytest.mark.parametrize("key", ["body", "readback", "remove", "then"])
    def test_refuses_on_a_read_what_belongs_to_a_write(self, key: str) -> None:
        """A GET has no body and leaves nothing to read back."""
        with pytest.raises(UsageError, match="take it out"):
            parse_requests([{**LIST, key: MAKE_AND_MARK[key]}])

    def test_takes_steps_that_use_the_answer_of_the_write(self) -> None:
        """Each has a name, a method, a path, and what it expects; they survive a record."""
        (write,) = parse_requests([MAKE_AND_MARK])
        assert [(step.name, step.method, step.status) for step in write.then] == [
            ("mark", "PATCH", 200),
            ("see", "GET", 200),
        ]
        assert parse_requests([write.table()]) == (write,)

    def test_keeps_a_table_without_steps_as_older_pipelines_read_it(self) -> None:
        """A checkout of before must be able to go back to what this one recorded."""
        assert "then" not in parse_requests([MAKE])[0].table()

    def test_takes_a_command_for_what_no_request_removes(self) -> None:
        """A service need not have a DELETE for the sake of the proof."""
        (write,) = parse_requests([{**MAKE, "remove": "command"}])
        assert write.remove == "command"
        assert parse_requests([write.table()]) == (write,)

    def test_reads_the_example_of_the_page(self) -> None:
        """What a team copies from docs/2 is right as it stands there."""
        page = Path(__file__).parents[3] / "docs/2-your-own-service.md"
        (block,) = re.findall(r"```toml\n(\[\[tool\.slipway\.requests.*?)```", page.read_text("utf-8"), re.DOTALL)
        specs = parse_requests(tomllib.loads(block)["tool"]["slipway"]["requests"])
        assert [[spec.name, *(step.name for step in spec.then)] for spec in specs] == [
            ["list notes"],
            ["write a note", "share it", "find it"],
        ]

    @pytest.mark.parametrize("value", [True, 0, "no"])
    def test_refuses_a_read_that_writes(self, value: object) -> None:
        """It may say that it does not, as the releases on record do."""
        assert not parse_requests([{**LIST, "writes": False}])[0].writes
        with pytest.raises(UsageError, match="`writes` is for POST, PUT, PATCH: take it out"):
            parse_requests([{**LIST, "writes": value}])

    def test_tells_all_problems_at_once(self) -> None:
        """Whoever mends a table wants to mend it once."""
        with pytest.raises(UsageError) as caught:
            parse_requests([{**LIST, "weight": 0}, {**LIST, "status": 1}])
        assert len(caught.value.problems) == 3  # and the name is used twice

    def test_wants_a_list_of_tables(self) -> None:
        """`[tool.slipway.requests]` with one pair of brackets is an easy slip."""
        with pytest.raises(UsageError, match=r"write `\[\[tool.slipway.requests\]\]`"):
            parse_requests({"name": "a"})


class TestCommon:
    def test_keeps_what_both_releases_declare_alike(self) -> None:
        """During a rollout the old release answers too, so it is asked only what it knows."""
        new = parse_requests([LIST, MAKE])
        old = parse_requests([{**MAKE, "status": 200}, LIST])
        assert [spec.name for spec in common(new, old)] == ["list"]

    def test_takes_of_a_write_the_steps_that_both_begin_with(self) -> None:
        """Other steps make the write no other; and what follows a step may rest on it."""
        (old,) = parse_requests([MAKE_AND_MARK])
        for steps, both in (
            ([], []),
            ([MARK], ["mark"]),
            ([SEE, MARK], []),
            ([MARK, {**SEE, "status": 204}], ["mark"]),
        ):
            (shared,) = common(parse_requests([{**MAKE, "then": steps}]), [old])
            assert [step.name for step in shared.then] == both

    def test_knows_one_by_another_name(self) -> None:
        """It sends and expects the same: both releases are asked, under its new name, and the report says so."""
        old, new = parse_requests([LIST]), parse_requests([{**LIST, "name": "all of them"}])
        assert [spec.name for spec in common(new, old)] == ["all of them"]
        assert renamed(new, old) == [("list", "all of them")]
        assert renamed(old, old) == []

    def test_takes_the_one_of_the_same_name_where_two_are_alike(self) -> None:
        """Nothing was renamed there."""
        both = parse_requests([LIST, {**LIST, "name": "all of them"}])
        assert [spec.name for spec in common(both, both)] == ["list", "all of them"]
        assert renamed(both, both) == []

    def test_does_not_look_at_weights(self) -> None:
        """Another mix is no other request: the rollout must not go unwatched for it."""
        new = parse_requests([{**LIST, "weight": 7}, MAKE])
        assert [spec.weight for spec in common(new, parse_requests([LIST]))] == [7]
