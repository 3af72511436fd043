"""A rotation from its first step to its last, on an environment without an engine: stopped, killed, gone on with."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.errors import DeployFailed, Interrupted, LockHeld, SlipwayError, UsageError
from pipeline.releases.lock import hold_lock
from pipeline.rotation.state import State
from pipeline.rotation.steps import ROTATIONS
from pipeline.rotation.story import Rotation
from tests.pipeline.deploy.fake_secrets import FakeSecrets
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import World, release

KEY, TOKEN, PASSWORD, REDIS = "JWT_SECRET_KEY", "SERVICE_TOKEN", "POSTGRES_PASSWORD", "REDIS_PASSWORD"
OLD = {KEY: "the-old-key", TOKEN: "the-old-token", PASSWORD: "the-old-password", REDIS: "the-old-redis"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Place:
    """An environment that serves, at a time of the day."""

    world: World
    now: datetime = NOON
    rollouts: list[int] = field(default_factory=list)  # how many deploys each run told

    @property
    def secrets(self) -> FakeSecrets:
        """Those of the environment."""
        return self.world.target.secrets

    @property
    def asked(self) -> list[str]:
        """What was written, changed in the database and rolled out, in order."""
        kinds = ("write", "let in", "end", "roll out", "roll back")
        return [line for line in self.world.target.asked if line.startswith(kinds)]

    @property
    def state(self) -> State | None:
        """How far the rotation is."""
        return State.read(self.world.target.project.state("here"))

    def rotate(self, name: str, *, resume: bool = False) -> None:
        """Rotate a secret, or go on with it."""
        world, target = self.world, self.world.target
        rotation = Rotation(target.project, target.env, world.progress(), name,
                            opened=target.opened, begin=world.begin, clock=lambda: self.now)  # fmt: skip
        rotation.tell(resume=resume)


@pytest.fixture(name="place")
def _place(world: World) -> Place:
    world.target.secrets.kept = dict(OLD)
    world.target.secrets.passwords = {"board": OLD[PASSWORD], "board-other": None}
    world.serve(release("a"))
    world.target.asked.clear()
    return Place(world)


class TestASecret:
    def test_of_the_database_changes_its_login(self, place: Place) -> None:
        """The other role gets a password before anybody is told of it; the old one loses its own at the end."""
        place.rotate(PASSWORD)
        assert place.asked == [
            "let in board-other",
            "write POSTGRES_USER POSTGRES_PASSWORD",
            "let in board-other",
            "roll out a",
            "end board",
        ]
        assert place.secrets.passwords == {"board": None, "board-other": place.secrets.kept[PASSWORD]}
        assert (place.secrets.refused, place.state) == ([], None)
        place.rotate(PASSWORD)
        assert place.secrets.read()["POSTGRES_USER"] == "board"
        assert place.secrets.refused == []

    def test_of_redis_is_one_rollout(self, place: Place) -> None:
        """The target lets Redis accept both passwords until it is over."""
        place.rotate(REDIS)
        assert place.asked == ["write REDIS_PASSWORD", "roll out a"]
        assert place.secrets.kept[REDIS] != OLD[REDIS]

    def test_of_the_callers_waits_for_them(self, place: Place) -> None:
        """Both tokens are accepted until somebody says that the callers have the new one."""
        place.rotate(TOKEN)
        assert place.asked == ["write SERVICE_TOKEN SERVICE_TOKEN_PREVIOUS", "roll out a"]
        assert place.secrets.kept["SERVICE_TOKEN_PREVIOUS"] == OLD[TOKEN]
        assert "give the new SERVICE_TOKEN to whoever calls" in place.world.said
        assert "go on with `nox -s rotate -- here SERVICE_TOKEN --continue`" in place.world.said
        place.rotate(TOKEN, resume=True)
        assert place.asked[2:] == ["write SERVICE_TOKEN_PREVIOUS", "roll out a"]
        assert place.secrets.kept.keys() == OLD.keys()
        assert (place.secrets.refused, place.state) == ([], None)

    def test_of_sessions_signs_nobody_out(self, place: Place) -> None:
        """Each replica knows the new key before one signs with it, and the old one for as long as its tokens live."""
        place.rotate(KEY)
        assert place.asked == ["write JWT_SECRET_KEY_PREVIOUS", "roll out a",
                               "write JWT_SECRET_KEY JWT_SECRET_KEY_PREVIOUS", "roll out a"]  # fmt: skip
        assert place.secrets.kept["JWT_SECRET_KEY_PREVIOUS"] == OLD[KEY]
        assert "is over, at 2026-01-01T12:15:00+00:00: then go on with" in place.world.said
        place.now = NOON + timedelta(minutes=14, seconds=30)
        with pytest.raises(SlipwayError, match=r"valid until 2026-01-01T12:15:00\+00:00: wait for 1 min") as caught:
            place.rotate(KEY, resume=True)
        assert caught.value.exit_code == 1
        assert len(place.asked) == 4
        place.now = NOON + timedelta(minutes=15)
        place.rotate(KEY, resume=True)
        assert place.asked[4:] == ["write JWT_SECRET_KEY_PREVIOUS", "roll out a"]
        assert place.secrets.kept.keys() == OLD.keys()
        assert place.secrets.kept[KEY] != OLD[KEY]
        assert (place.secrets.refused, place.state) == ([], None)

    def test_of_the_owner_is_for_migrations(self, place: Place) -> None:
        """Where the service logs in as somebody else; otherwise there is another secret to rotate."""
        with pytest.raises(UsageError, match="POSTGRES_OWNER is not set: the service logs in as the owner, with POSTG"):
            place.rotate("POSTGRES_OWNER_PASSWORD")
        place.secrets.kept |= {"POSTGRES_OWNER": "owner", "POSTGRES_OWNER_PASSWORD": "the-old-owner"}
        place.rotate("POSTGRES_OWNER_PASSWORD")
        assert place.asked == ["write POSTGRES_OWNER_PASSWORD", "let in owner", "roll out a"]
        assert place.secrets.passwords["owner"] == place.secrets.kept["POSTGRES_OWNER_PASSWORD"] != "the-old-owner"

    def test_of_the_superuser_needs_no_rollout(self, place: Place) -> None:
        """No replica uses it."""
        place.rotate("POSTGRES_SUPERUSER_PASSWORD")
        assert "superuser" in place.world.target.asked
        assert (place.asked, place.state) == ([], None)

    def test_no_two_have_the_same_value(self, place: Place) -> None:
        """Each is random, and long enough for the service."""
        for name in (TOKEN, REDIS, PASSWORD):
            place.rotate(name)
            if place.state:
                place.rotate(name, resume=True)
        values = [place.secrets.kept[name] for name in (TOKEN, REDIS, PASSWORD)]
        assert len({*values, *OLD.values()}) == 7
        assert all(re.fullmatch(r"[\w-]{64}", value) for value in values)


class TestBefore:
    def test_names_the_secrets_there_are(self, place: Place) -> None:
        """Where the name is another one."""
        with pytest.raises(UsageError) as caught:
            place.rotate("JWT_KEY")
        assert str(caught.value) == f"there is no rotation of `JWT_KEY`: there is {', '.join(sorted(ROTATIONS))}"

    def test_refuses_what_is_wrong(self, place: Place) -> None:
        """All of it at once; nothing is touched then."""
        place.world.target.wrong = ["Docker: no engine answers: start it"]
        place.secrets.objections[REDIS] = "REDIS_PASSWORD: nothing to rotate"
        with pytest.raises(UsageError) as caught:
            place.rotate(REDIS)
        assert caught.value.problems == ("Docker: no engine answers: start it", "REDIS_PASSWORD: nothing to rotate")
        assert (place.asked, place.state) == ([], None)

    def test_refuses_where_nothing_serves(self, world: World) -> None:
        """There is nothing to roll out; a first deploy takes what is there."""
        with pytest.raises(UsageError, match="nothing was ever proved in here: `nox -s deploy -- here`"):
            Place(world).rotate(TOKEN)

    def test_refuses_beside_a_rotation_by_hand(self, place: Place) -> None:
        """The value that it keeps is still needed."""
        place.secrets.kept["JWT_SECRET_KEY_PREVIOUS"] = "somebody's"
        with pytest.raises(UsageError, match="JWT_SECRET_KEY_PREVIOUS has a value: a rotation by hand is not over"):
            place.rotate(KEY)

    def test_one_at_a_time(self, place: Place) -> None:
        """Another one is in progress, or unfinished."""
        folder = place.world.target.project.state("here")
        with hold_lock(folder / "rotation.lock"), pytest.raises(LockHeld):
            place.rotate(TOKEN)
        place.rotate(TOKEN)
        command = "`nox -s rotate -- here SERVICE_TOKEN --continue`"
        for name in (TOKEN, REDIS):
            with pytest.raises(UsageError, match=f"the rotation of SERVICE_TOKEN since .* is unfinished: {command}"):
                place.rotate(name)
        with pytest.raises(UsageError, match="no rotation of REDIS_PASSWORD is unfinished in here: that of SERVICE_T"):
            place.rotate(REDIS, resume=True)

    def test_there_is_nothing_to_go_on_with(self, place: Place) -> None:
        """Which may only mean that it is over."""
        with pytest.raises(UsageError, match=r"no rotation of SERVICE_TOKEN is unfinished in here$"):
            place.rotate(TOKEN, resume=True)

    def test_waits_for_no_lock(self, place: Place) -> None:
        """A deploy is in progress: it ends with that exit code, and can be begun again."""
        with place.world.target.lock(), pytest.raises(LockHeld):
            place.rotate(TOKEN)
        assert place.asked == []
        place.rotate(TOKEN)


class TestAPersonChangesIt:
    """Nobody but a person can write where the secret comes from."""

    @pytest.fixture(autouse=True)
    def _vault(self, place: Place) -> None:
        names = [*OLD, "JWT_SECRET_KEY_PREVIOUS", "SERVICE_TOKEN_PREVIOUS", "POSTGRES_USER"]
        place.secrets.places = dict.fromkeys(names, "the vault")

    def stops(self, place: Place, name: str, *, resume: bool = False) -> list[str]:
        """Return what a person is told."""
        with pytest.raises(UsageError) as caught:
            place.rotate(name, resume=resume)
        *lines, last = caught.value.problems
        assert last == f"the rotation goes on with `nox -s rotate -- here {name} --continue`"
        return lines

    def test_says_which_value_to_put_where(self, place: Place) -> None:
        """Before anything; without a value in it; and goes on once it is there."""
        assert self.stops(place, TOKEN) == [
            "put into the vault: SERVICE_TOKEN: a new value, such as `openssl rand -base64 48` prints",
            "put into the vault: SERVICE_TOKEN_PREVIOUS: what SERVICE_TOKEN is now",
        ]
        assert place.asked == []
        place.secrets.kept[TOKEN] = "a-new-token"
        [line] = self.stops(place, TOKEN, resume=True)
        assert line.startswith("put into the vault: SERVICE_TOKEN_PREVIOUS: ")
        place.secrets.kept["SERVICE_TOKEN_PREVIOUS"] = OLD[TOKEN]
        place.rotate(TOKEN, resume=True)
        assert place.asked == ["roll out a"]
        assert self.stops(place, TOKEN, resume=True) == ["put into the vault: SERVICE_TOKEN_PREVIOUS: nothing"]
        del place.secrets.kept["SERVICE_TOKEN_PREVIOUS"]
        place.rotate(TOKEN, resume=True)
        assert (place.asked, place.state) == (["roll out a"] * 2, None)

    def test_checks_that_the_keys_were_swapped(self, place: Place) -> None:
        """A third key would sign people out."""
        self.stops(place, KEY)
        place.secrets.kept["JWT_SECRET_KEY_PREVIOUS"] = "a-new-key"
        assert self.stops(place, KEY, resume=True) == [
            "put into the vault: JWT_SECRET_KEY: what JWT_SECRET_KEY_PREVIOUS is now",
            "put into the vault: JWT_SECRET_KEY_PREVIOUS: what JWT_SECRET_KEY is now",
        ]
        place.secrets.kept |= {KEY: "a-third-key", "JWT_SECRET_KEY_PREVIOUS": OLD[KEY]}
        assert len(self.stops(place, KEY, resume=True)) == 1
        place.secrets.kept[KEY] = "a-new-key"
        place.rotate(KEY, resume=True)
        assert place.secrets.refused == []

    def test_gives_the_login_the_password_that_is_there_then(self, place: Place) -> None:
        """The vault has both; the database gets the value from there."""
        assert self.stops(place, PASSWORD)[0] == "put into the vault: POSTGRES_USER: `board-other`"
        place.secrets.kept |= {"POSTGRES_USER": "board-other", PASSWORD: "of-the-vault"}
        place.rotate(PASSWORD, resume=True)
        assert place.asked == ["let in board-other", "roll out a", "end board"]
        assert place.secrets.passwords == {"board": None, "board-other": "of-the-vault"}
        assert place.secrets.refused == []

    def test_the_vault_is_read_at_once(self, place: Place) -> None:
        """What fills the secrets from there would do so within an hour."""
        self.stops(place, TOKEN)
        place.secrets.changed = {TOKEN: "a-new-token", "SERVICE_TOKEN_PREVIOUS": OLD[TOKEN]}
        place.rotate(TOKEN, resume=True)
        assert place.asked == ["roll out a"]

    def test_nobody_has_to_go_on(self, place: Place) -> None:
        """As long as nothing was changed, a rotation that was asked for is none."""
        self.stops(place, TOKEN)
        place.secrets.places = {}
        place.rotate(REDIS)
        assert place.state is None


class TestItStops:
    @pytest.mark.parametrize("name", sorted(OLD))
    def test_goes_on_after_being_killed_anywhere(self, place: Place, name: str) -> None:
        """At each thing that is done: nobody is refused, and the secret is another one in the end."""
        world, target = place.world, place.world.target
        place.rotate(name)
        while place.state:
            place.now += timedelta(hours=1)
            place.rotate(name, resume=True)
        done = {line.split()[0] for line in target.asked}
        points = ("write", "written", "let in", "end", "problems", "prepare", "roll out", "publish", "heal")
        where = [one for one in points if one.split()[0] in {*done, "written"}]
        assert len(where) > 5
        before = place.secrets.kept[name]
        for one in where:
            target.asked.clear()
            target.fails = {one: Killed()}
            resume = False
            for _ in range(9):
                try:
                    place.rotate(name, resume=resume)
                except Killed:
                    assert one not in target.fails
                resume, place.now = place.state is not None, place.now + timedelta(hours=1)
                if one not in target.fails and not resume and place.secrets.kept[name] != before:
                    break
            assert (place.state, target.fails) == (None, {}), one
            assert place.secrets.kept[name] != before, one
            assert place.secrets.refused == [], one
            assert f"{name}_PREVIOUS" not in place.secrets.kept
            before = place.secrets.kept[name]
        assert world.serving == ["a", "a"]

    def test_a_rollout_that_fails_is_told_and_can_be_repeated(self, place: Place) -> None:
        """With the exit code of the deploy; the release that serves has both tokens, or the old one."""
        place.world.target.fails["roll out"] = DeployFailed("no memory")
        with pytest.raises(SlipwayError) as caught:
            place.rotate(TOKEN)
        assert caught.value.exit_code == 1
        assert caught.value.problems == (
            "the rollout was not proved: fix what it names",
            "the rotation goes on with `nox -s rotate -- here SERVICE_TOKEN --continue`",
        )
        assert place.asked == ["write SERVICE_TOKEN SERVICE_TOKEN_PREVIOUS", "roll out a", "roll back a"]
        place.rotate(TOKEN, resume=True)
        assert place.state
        assert place.state.stopped

    def test_an_interrupted_one_says_how_it_goes_on(self, place: Place) -> None:
        """Whoever pressed Ctrl-C reads it."""
        place.world.target.fails["write"] = Interrupted("stopped by SIGINT")
        with pytest.raises(Interrupted) as caught:
            place.rotate(REDIS)
        assert caught.value.problems == (
            "stopped by SIGINT",
            "the rotation goes on with `nox -s rotate -- here REDIS_PASSWORD --continue`",
        )

    def test_what_is_kept_of_it_reveals_nothing(self, place: Place) -> None:
        """Only its owner can read the file, and no value is in it, nor in what is said."""
        place.rotate(KEY)
        path = place.world.target.project.state("here") / "rotation.json"
        assert path.stat().st_mode & 0o777 == 0o600
        texts = [path.read_text(), place.world.said]
        assert not [value for value in (*OLD.values(), *place.secrets.kept.values()) for one in texts if value in one]
        assert json.loads(path.read_text())["secret"] == KEY
