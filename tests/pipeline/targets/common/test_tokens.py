"""Which token the proof authenticates with while replicas have another one than the next will."""

from __future__ import annotations

import pytest

from pipeline.targets.common.tokens import Tokens

OLD, NEW, OTHER = Tokens("old", None), Tokens("new", "old"), Tokens("other", "older")


class TestShared:
    @pytest.mark.parametrize(
        ("running", "shared"),
        [
            ([], ("new", True)),
            ([NEW, NEW], ("new", True)),
            ([OLD, OLD], ("old", True)),  # the rotation begins
            ([OLD, NEW], ("old", True)),  # a deploy was killed in it
            ([Tokens("new", None)], ("new", True)),  # the previous one was set after the rotation
            ([OTHER, OLD], ("new", False)),
            ([Tokens(None, None)], ("new", False)),
        ],
    )
    def test_is_the_newest_that_every_replica_accepts(
        self, running: list[Tokens], shared: tuple[str | None, bool]
    ) -> None:
        """Without such a token, it is the new one, and that is said."""
        assert NEW.shared(each.mark for each in running) == shared

    def test_is_none_where_a_rotation_leaves_the_previous_one_out(self) -> None:
        """As before: replicas of before refuse what the next ones want."""
        assert Tokens("new", None).shared([OLD.mark]) == ("new", False)

    def test_an_end_of_the_previous_one_changes_nothing(self) -> None:
        """The clean-up of a rotation: each replica knows the new one already."""
        assert Tokens("new", None).shared([NEW.mark]) == ("new", True)

    def test_a_replica_without_a_mark_accepts_nothing_that_is_known(self) -> None:
        """It was started by hand, or by an earlier Slipway."""
        assert NEW.shared([""]) == ("new", False)


def test_a_mark_reveals_no_token() -> None:
    """It is on containers and pods, where more people read than may know secrets; each token has its own."""
    assert "old" not in NEW.mark
    assert NEW.mark.split()[1] == OLD.mark


def test_an_empty_token_is_unset() -> None:
    """A Secret and a file of Compose have a key for each secret, set or not."""
    assert Tokens.of({"SERVICE_TOKEN": "new", "SERVICE_TOKEN_PREVIOUS": ""}) == Tokens("new", None)
