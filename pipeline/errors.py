"""The errors that a user sees: one line per problem, each with its fix, and the exit code of the contract."""

from __future__ import annotations

__all__ = ["DeployFailed", "Interrupted", "LockHeld", "SlipwayError", "UsageError"]


class SlipwayError(Exception):
    """Something failed (exit code 1). `problems` holds one line each: what, where, the fix."""

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems


class UsageError(SlipwayError):
    """Bad usage or bad configuration (exit code 2): nothing was touched."""

    exit_code = 2


class LockHeld(SlipwayError):
    """Another deploy holds the environment's lock (exit code 75, EX_TEMPFAIL of sysexits.h)."""

    exit_code = 75


class DeployFailed(SlipwayError):
    """A stage failed. The first problem is the one-line reason that the report carries."""


class Interrupted(KeyboardInterrupt):
    """The user or the machine asked to stop (exit code 130, as a shell reports SIGINT).

    No `except SlipwayError` or `except Exception` on the way may take it for a failure that it can deal with.
    """

    exit_code = 130

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems
