"""The errors that a user sees: one line per problem, each with its fix, and the exit code of the contract."""

from __future__ import annotations

__all__ = [
    "DeployFailed",
    "Inconclusive",
    "Interrupted",
    "LockHeld",
    "NotReady",
    "ProgramFailed",
    "SlipwayError",
    "UsageError",
]


class SlipwayError(Exception):
    """A failure that the user sees (exit code 1).

    `problems` has one line each: what is wrong, where, and the fix.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems


class UsageError(SlipwayError):
    """Bad usage or bad configuration (exit code 2); nothing was touched."""

    exit_code = 2


class LockHeld(SlipwayError):
    """Another deploy holds the environment's lock (exit code 75, EX_TEMPFAIL of sysexits.h)."""

    exit_code = 75


class DeployFailed(SlipwayError):
    """A failed stage; the first problem is the one-line reason that the report carries."""


class ProgramFailed(SlipwayError):
    """A program of a release, `python -m MODULE`, that failed; `said` is the last telling line of its output."""

    def __init__(self, module: str, said: str) -> None:
        super().__init__(f"python -m {module}: {said}")
        self.said = said


class NotReady(DeployFailed):
    """A replica that ended, or did not get ready in time; `why` says so without the name of its release."""

    def __init__(self, release: str, why: str) -> None:
        super().__init__(f"release {release} {why}")
        self.why = why


class Inconclusive(DeployFailed):
    """The traffic says too little for a verdict (exit code 3): nothing is known against the release."""

    exit_code = 3


class Interrupted(KeyboardInterrupt):
    """The user or the machine asked to stop (exit code 130, as a shell reports SIGINT).

    A KeyboardInterrupt, so that no `except SlipwayError` or `except Exception` on the way can swallow it.
    """

    exit_code = 130

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems
