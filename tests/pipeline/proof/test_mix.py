from __future__ import annotations

from collections import Counter
from itertools import pairwise

from pipeline.config.requests import parse_requests
from pipeline.proof.exchange import HEALTH, Exchange
from pipeline.proof.mix import Mix, Turn
from pipeline.proof.writes import Write
from tests.pipeline.proof.servers import LIST, MAKE_AND_MARK


def answered(mix: Mix, turn: Turn) -> None:
    """Answer a request at once, and rightly."""
    sent = turn.sent
    if turn.write:
        mix.follow(turn.write, turn.rest)
    elif isinstance(sent, Exchange) and sent.spec.writes:
        mix.follow(Write(sent, "bake", 0.0), sent.steps({"id": "7"}))


class TestMix:
    def test_counts_steps_for_the_weight_of_their_write(self) -> None:
        """With the same weight, half of the requests are the read, and half the write and its two steps."""
        mix = Mix(parse_requests([{**LIST, "weight": 1}, MAKE_AND_MARK]))
        sent: Counter[str] = Counter()
        for _ in range(240):
            turn = mix.next()
            sent[turn.sent.spec.name] += 1
            answered(mix, turn)
        assert sent == {"list": 114, "make": 38, "mark": 38, "see": 38, HEALTH.name: 12}

    def test_sends_steps_in_their_order_each_after_the_answer_before(self) -> None:
        """No slot is kept for a step: until its turn can come, other requests are sent."""
        mix = Mix(parse_requests([MAKE_AND_MARK]))
        first = mix.next()
        assert mix.next().sent.spec.name == "make"
        for name in ("mark", "see", "make"):
            answered(mix, first)
            first = mix.next()
            assert first.sent.spec.name == name

    def test_keeps_steps_for_the_table_of_the_next_phase(self) -> None:
        """They belong to a write that was answered, whatever is sent from now on."""
        before = Mix(parse_requests([MAKE_AND_MARK]))
        answered(before, before.next())
        mix = Mix(parse_requests([LIST]), before)
        assert [mix.next().sent.spec.name for _ in range(2)] == ["mark", "list"]

    def test_alternates_between_fresh_and_kept_connections_for_each_request(self) -> None:
        """Also for each step."""
        mix = Mix(parse_requests([MAKE_AND_MARK]))
        fresh: dict[str, list[bool]] = {}
        for _ in range(60):
            turn = mix.next()
            fresh.setdefault(turn.sent.spec.name, []).append(turn.fresh)
            answered(mix, turn)
        assert all(a is not b for kinds in fresh.values() for a, b in pairwise(kinds))
        assert fresh.keys() == {"make", "mark", "see", HEALTH.name}

    def test_asks_for_health_alone_where_there_is_nothing_else(self) -> None:
        """No rollout goes unwatched."""
        mix = Mix(())
        assert [mix.next().sent.spec for _ in range(3)] == [HEALTH, HEALTH, HEALTH]
