"""A person's new password: how it is read, what it must be, and its hash."""

from __future__ import annotations

import io

import pytest
from argon2 import PasswordHasher, Type, extract_parameters

from pipeline.errors import UsageError
from pipeline.system.password import hash_password, read_password

GOOD = "correct horse battery"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def piped(given: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")


@pytest.fixture(name="typed")
def _typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is typed at each prompt; where nothing is left, the end of the input."""
    typed: list[str] = []

    def type_next(_: str) -> str:
        if not typed:
            raise EOFError
        return typed.pop(0)

    monkeypatch.setattr("getpass.getpass", type_next)
    return typed


class TestPiped:
    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nanother line\n"])
    def test_is_the_first_line(self, end: bytes) -> None:
        """As `echo`, a file or a password manager gives it."""
        assert read_password(piped(GOOD.encode() + end)) == GOOD

    @pytest.mark.parametrize(
        ("given", "rule"),
        [
            (b"", "at least 12 characters"),
            ("ä".encode() * 11, "at least 12 characters"),
            (b"x" * 1025, "at most 1024 bytes"),
            (b"x" * 10**6, "at most 1024 bytes"),
            ("ä".encode() * 513, "at most 1024 bytes"),
            (b"\xff" * 20, "not UTF-8 text"),
        ],
    )
    def test_is_refused_by_the_rule_that_it_breaks(self, given: bytes, rule: str) -> None:
        """With exit code 2, and without the password."""
        with pytest.raises(UsageError, match=rule) as refused:
            read_password(piped(given))
        assert len(str(refused.value)) < 100

    @pytest.mark.parametrize("given", ["x" * 12, "ä" * 12, "x" * 1024])
    def test_is_taken_at_both_ends_of_the_rules(self, given: str) -> None:
        """Characters count at the one end, bytes at the other."""
        assert read_password(piped(given.encode())) == given


class TestTyped:
    def test_is_typed_twice(self, typed: list[str]) -> None:
        """Nobody sees it, so a slip would lock somebody out."""
        typed += [GOOD, GOOD]
        assert read_password(Terminal()) == GOOD
        assert typed == []

    def test_is_refused_where_the_two_differ(self, typed: list[str]) -> None:
        """Nothing was changed by then."""
        typed += [GOOD, f"{GOOD}!"]
        with pytest.raises(UsageError, match="the two passwords differ"):
            read_password(Terminal())

    def test_is_judged_before_it_is_typed_again(self, typed: list[str]) -> None:
        """The second prompt would be in vain."""
        typed += ["short", "left"]
        with pytest.raises(UsageError, match="at least 12 characters"):
            read_password(Terminal())
        assert typed == ["left"]

    @pytest.mark.usefixtures("typed")
    def test_may_be_given_up(self) -> None:
        """By Ctrl-D."""
        with pytest.raises(UsageError, match="no password was typed"):
            read_password(Terminal())


@pytest.fixture(name="hashed", scope="module")
def _hashed() -> str:
    return hash_password(GOOD)


class TestHash:
    def test_is_argon2id_as_the_service_expects_it(self, hashed: str) -> None:
        """19 MiB, two passes, one thread."""
        assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert extract_parameters(hashed).type is Type.ID

    def test_is_of_the_password_and_says_nothing_of_it(self, hashed: str) -> None:
        """A second one of the same password has another salt."""
        assert PasswordHasher().verify(hashed, GOOD)
        assert GOOD not in hashed
        assert hash_password(GOOD) != hashed
