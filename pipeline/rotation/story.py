"""The story of a rotation: step by step, each noted, so that a rotation that was killed can be gone on with."""

from __future__ import annotations

import logging
import math
import secrets as randomness
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from pipeline.config.logins import other_login
from pipeline.config.project import Environment, Project
from pipeline.config.settings import SECRET_BYTES
from pipeline.config.sources import OWNER, ROLE
from pipeline.deploy.evidence import summary_line
from pipeline.deploy.story import Story
from pipeline.errors import Interrupted, SlipwayError, UsageError
from pipeline.releases.lock import hold_lock
from pipeline.rotation.state import State, marks_of
from pipeline.rotation.steps import (
    FRESH,
    LOGIN,
    ROTATIONS,
    UNSET,
    EndLogin,
    Login,
    Pause,
    Ship,
    Step,
    Superuser,
    Wait,
    Write,
)
from pipeline.system.progress import Progress
from pipeline.targets import Target, open_target

__all__ = ["Rotation"]

log = logging.getLogger(__name__)

PASSWORDS = {ROLE: "POSTGRES_PASSWORD", OWNER: "POSTGRES_OWNER_PASSWORD"}
Opener = Callable[[Project, Environment, Progress], Target]
Begin = Callable[[Project, Environment, Progress], Story]


class Rotation:
    """The rotation of the secret `name` of an environment. `opened`, `begin`, `clock`: for tests."""

    def __init__(
        self,
        project: Project,
        env: Environment,
        progress: Progress,
        name: str,
        *,
        opened: Opener = open_target,
        begin: Begin = Story,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if name not in ROTATIONS:
            raise UsageError(f"there is no rotation of `{name}`: there is {', '.join(sorted(ROTATIONS))}")
        self.project, self.env, self.progress, self.name = project, env, progress, name
        self.folder = project.state(env.name)
        self.command = f"`nox -s rotate -- {env.name} {name} --continue`"
        self._opened, self._begin, self._clock = opened, begin, clock

    def tell(self, *, resume: bool) -> None:
        """Rotate, or with `resume` go on where the rotation stopped.

        Raise `UsageError` where nothing was changed yet, another `SlipwayError` where it stopped in between.
        """
        with hold_lock(self.folder / "rotation.lock"):
            state = self._state(resume=resume)
            try:
                while state.done < len(ROTATIONS[self.name]):
                    if not self._go(ROTATIONS[self.name][state.done], state):
                        return
                    state.next(self.folder)
            except (SlipwayError, Interrupted) as error:
                if State.read(self.folder):
                    error.problems = (*error.problems, f"the rotation goes on with {self.command}")
                raise
            State.forget(self.folder)
        log.info(f"{self.name} of {self.env.name} is rotated")

    def _state(self, *, resume: bool) -> State:
        """Return the state to go on with. Raise `UsageError` where there is none to go on with, or one in the way."""
        known = State.read(self.folder)
        if resume and (known is None or known.secret != self.name):
            other = f": that of {known.secret} is" if known else ""
            raise UsageError(f"no rotation of {self.name} is unfinished in {self.env.name}{other}")
        if known and resume:
            return known
        target = self._open()
        if known and not _untouched(known, target):
            command = f"`nox -s rotate -- {self.env.name} {known.secret} --continue`"
            raise UsageError(f"the rotation of {known.secret} since {known.since} is unfinished: {command}")
        self._refuse(target)
        State.forget(self.folder)
        return State(self.name, self._clock().isoformat(timespec="seconds"))

    def _open(self) -> Target:
        target = self._opened(self.project, self.env, self.progress)
        target.records()  # where others keep them, too, what serves is known from there
        return target

    def _refuse(self, target: Target) -> None:
        """Raise `UsageError` where a rotation must not begin."""
        problems = target.problems()
        if objection := target.secrets.objection(self.name):
            problems.append(objection)
        if not target.records().serving():
            problems.append(f"nothing was ever proved in {self.env.name}: `nox -s deploy -- {self.env.name}`")
        if problems:
            raise UsageError(*problems)
        values, previous = target.secrets.read(), f"{self.name}_PREVIOUS"
        if self.name == PASSWORDS[OWNER] and not values.get(OWNER):
            raise UsageError(
                f"{OWNER} is not set: the service logs in as the owner, with POSTGRES_PASSWORD: rotate that"
            )
        if values.get(previous):
            raise UsageError(f"{previous} has a value: a rotation by hand is not over: unset it, and deploy first")

    # --- the steps ---

    def _go(self, step: Step, state: State) -> bool:
        """Do a step; return False where the rotation stops there until somebody goes on with it."""
        if isinstance(step, Ship):
            self._ship()
        elif isinstance(step, Pause | Wait):
            return self._passed(step, state)
        else:
            target = self._open()
            with self.progress.stage(step.label) as stage, target.lock():
                values = target.secrets.read()
                if isinstance(step, Write):
                    stage.note = self._write(step, state, target, values)
                elif isinstance(step, Login):
                    name = OWNER if step.owner else ROLE
                    target.secrets.set_password(values[name], values[PASSWORDS[name]])
                    stage.note = f"{values[name]} has its new password"
                elif isinstance(step, Superuser):
                    target.secrets.change_superuser()
                elif isinstance(step, EndLogin):
                    old = other_login(values[ROLE])
                    target.secrets.set_password(old, None)
                    stage.note = f"{old} has no password"
        return True

    def _write(
        self, step: Write, state: State, target: Target, values: Mapping[str, str], *, again: bool = False
    ) -> str:
        """Write what `step` wants and is not there yet; return what was done, in words.

        `again`: what a person changes elsewhere was read a second time.
        """
        if not state.marks:
            names = {*step.wants, *step.wants.values()} - {FRESH, LOGIN, UNSET}
            state.marks = marks_of(names, values)
            state.keep(self.folder)
        login = other_login(state.marks[ROLE]) if ROLE in step.wants else ""
        if not (left := _left(step, state.marks, values, login)):
            return f"{', '.join(step.wants)}: as wanted"
        places = {name: place for name in step.wants if (place := target.secrets.elsewhere(name))}
        if places and not again:
            target.secrets.refresh()
            return self._write(step, state, target, target.secrets.read(), again=True)
        if places:
            raise UsageError(*_instructions(step, left, places, login))
        changes = {name: _made(want, values, login) for name, want in step.wants.items()}
        if login:  # before anybody reads it, so that nobody is refused with it
            target.secrets.set_password(login, changes[PASSWORDS[ROLE]])
        target.secrets.write(changes)
        return f"{', '.join(changes)}"

    def _ship(self) -> None:
        self.progress.stages.clear()  # the report of a deploy has its own
        story = self._begin(self.project, self.env, self.progress)
        serving = story.records.serving()
        if serving is None:
            raise SlipwayError(f"nothing is proved in {self.env.name} any more: `nox -s deploy -- {self.env.name}`")
        code, report = story.tell(reference=str(serving.number), dry_run=False)
        log.info(summary_line(report))
        if code:
            error = SlipwayError("the rollout was not proved: fix what it names")
            error.exit_code = code
            raise error

    def _passed(self, step: Pause | Wait, state: State) -> bool:
        """Return whether the rotation may go on behind `step`; say when it may."""
        now = self._clock()
        if not state.stopped:
            state.stopped = True
            if isinstance(step, Wait):
                minutes = self._open().secrets.lifetime_minutes()
                state.not_before = (now + timedelta(minutes=minutes)).isoformat(timespec="seconds")
                ask = f"the old key is accepted until each token of it is over, at {state.not_before}: then"
            else:
                ask = f"{step.ask}, then"
            state.keep(self.folder)
            log.warning(f"{ask} go on with {self.command}")
            return False
        if state.not_before and now < datetime.fromisoformat(state.not_before):
            left = datetime.fromisoformat(state.not_before) - now
            minutes = math.ceil(left.total_seconds() / 60)
            raise SlipwayError(f"tokens of the old key are valid until {state.not_before}: wait for {minutes} min")
        return True


def _untouched(state: State, target: Target) -> bool:
    """Return whether the rotation of `state` has changed nothing yet."""
    return state.done == 0 and marks_of(state.marks, target.secrets.read()) == state.marks


def _left(step: Write, marks: Mapping[str, str], values: Mapping[str, str], login: str) -> list[str]:
    """Return the secrets that are not yet what `step` wants of them."""
    now = marks_of(step.wants, values)
    unset = marks_of([""], {})[""]
    done = {
        name: {FRESH: now[name] not in (marks[name], unset), LOGIN: now[name] == login, UNSET: now[name] == unset}.get(
            want, now[name] == marks.get(want)
        )
        for name, want in step.wants.items()
    }
    return [name for name, good in done.items() if not good]


def _made(want: str, values: Mapping[str, str], login: str) -> str:
    """Return the value that a secret gets."""
    made = {FRESH: randomness.token_urlsafe(SECRET_BYTES), LOGIN: login, UNSET: ""}
    return made[want] if want in made else values[want]


def _instructions(step: Write, left: list[str], places: Mapping[str, str], login: str) -> list[str]:
    """Return a line for each secret that a person has to change."""
    words = {FRESH: "a new value, such as `openssl rand -base64 48` prints", LOGIN: f"`{login}`", UNSET: "nothing"}
    lines = []
    for name in left:
        want = step.wants[name]
        lines.append(f"put into {places.get(name, name)}: {name}: {words.get(want, f'what {want} is now')}")
    return lines
