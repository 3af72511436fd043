"""Whether the database that docker-compose.yml mounts now is the one that was in use, and its image can read it.

What no container says is asked of the volumes, by a throwaway container that mounts them read-only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.targets.common.containers import THROWAWAY, sweep
from pipeline.targets.common.data import major_of, no_database, other_major
from pipeline.targets.compose.variables import Variables

__all__ = ["Mount", "Seen", "Wanted", "find_data_problems", "judge_data", "read_seen", "unchanged"]

SERVICE = "postgres"
DEFINITION = "com.docker.compose.config-hash"
OTHERS = "/slipway-others"  # where the throwaway container has the volumes that the service does not mount
USUAL = "/var/lib/postgresql"
PULL_SECONDS = 600
# A cluster's own folders are left out: each of its databases has a PG_VERSION, and there may be a million files.
SCRIPT = r"""
echo "server $(postgres --version 2>/dev/null)"
echo "promised ${PG_MAJOR:-}"
echo "pgdata ${PGDATA:-}"
for place in ${PGDATA:+"$PGDATA"} "$@"; do
    [ ! -e "$place" ] || find "$place" -maxdepth 5 \
        \( -name base -o -name pg_wal -o -name pg_tblspc -o -name 'PG_[0-9]*' \) -prune -o -name PG_VERSION -print 2>&1
done | while read -r line; do
    case "$line" in /*) echo "data $(cat "$line") $line" ;; *) echo "closed $line" ;; esac
done
"""


@dataclass(frozen=True)
class Mount:
    """A volume, or with `bind` a folder of the host, at `target`. `source` is empty for a volume without a name."""

    source: str
    target: str
    bind: bool = False
    subpath: str = ""

    def __str__(self) -> str:
        return f"{'folder' if self.bind else 'volume'} {self.source or '(without a name)'}"

    def holds(self, path: str) -> bool:
        """Whether PATH is the target, or below it."""
        return PurePosixPath(path).is_relative_to(self.target)

    def option(self) -> str:
        """Return what `docker run --mount` takes; nothing may be copied into a volume that is empty."""
        kind = "type=bind" if self.bind else "type=volume,volume-nocopy"
        subpath = f",volume-subpath={self.subpath}" if self.subpath else ""
        return f"{kind},source={self.source},target={self.target},readonly{subpath}"


@dataclass(frozen=True)
class Wanted:
    """What the service would run now. `pgdata` and `user`: None where the image says."""

    image: str
    mounts: tuple[Mount, ...]
    pgdata: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Wanted:
        """Read it from what `docker compose config --format json` says."""
        service, volumes = config["services"][SERVICE], config.get("volumes") or {}
        mounts = []
        for one in service.get("volumes") or ():
            if one["type"] not in ("volume", "bind") or one.get("read_only"):
                continue
            source, bind = one.get("source") or "", one["type"] == "bind"
            name = source if bind else (volumes.get(source) or {}).get("name") or source
            mounts.append(Mount(name, one["target"], bind, (one.get("volume") or {}).get("subpath") or ""))
        return cls(
            image=service.get("image") or f"{config['name']}-{SERVICE}",  # so compose calls what it builds
            mounts=tuple(mounts),
            pgdata=(service.get("environment") or {}).get("PGDATA"),
            user=service.get("user"),
        )

    def home(self, pgdata: str) -> Mount | None:
        """Return the mount that PGDATA is in; where it is in none, the one that is meant for data."""
        inside = [one for one in self.mounts if one.holds(pgdata)]
        usual = [one for one in self.mounts if PurePosixPath(one.target).is_relative_to(USUAL)]
        return max(inside, key=lambda one: len(one.target)) if inside else next(iter([*usual, *self.mounts]), None)

    def named(self, mounts: Iterable[Mount]) -> Wanted:
        """Return it with the names that a container's MOUNTS have for volumes without one: compose keeps those."""
        names = {one.target: one.source for one in mounts}
        given = (one if one.source else replace(one, source=names.get(one.target, "")) for one in self.mounts)
        return replace(self, mounts=tuple(given))


@dataclass(frozen=True)
class Seen:
    """What the throwaway container said. `server`: the major of its program, `promised`: PG_MAJOR, `data`: folder →
    major, `closed`: what its user may not read.
    """

    pgdata: str
    server: str | None = None
    promised: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    closed: tuple[str, ...] = ()


def mounts_of(facts: Mapping[str, Any]) -> list[Mount]:
    """Return the mounts of a container that may hold data, from what `docker inspect` says."""
    return [
        Mount(one.get("Name") or one["Source"], one["Destination"], one["Type"] == "bind")
        for one in facts.get("Mounts") or ()
        if one["Type"] in ("volume", "bind") and one.get("RW", True)
    ]


def unchanged(facts: Mapping[str, Any], wanted: Wanted, definition: str, image: str | None) -> bool:
    """Whether the container of FACTS runs, and `up` would keep it: its DEFINITION, the ID of its IMAGE, its volumes.

    Compose's hash of a definition knows neither what a tag names by now nor a volume's real name.
    """
    same = facts["Config"]["Labels"].get(DEFINITION) == definition and facts["Image"] == image
    has = {(one.source, one.target) for one in mounts_of(facts)}
    return bool(facts["State"]["Running"]) and same and {(one.source, one.target) for one in wanted.mounts} <= has


def read_seen(said: str) -> Seen:
    """Read what `SCRIPT` said."""
    words: dict[str, list[str]] = {}
    for line in said.splitlines():
        name, _, rest = line.partition(" ")
        words.setdefault(name, []).append(rest.strip())
    data = {}
    for one in words.get("data", []):
        major, _, path = one.partition(" ")
        if major_of(major):
            data[str(PurePosixPath(path).parent)] = major
    [server], [promised], [pgdata] = words["server"], words["promised"], words["pgdata"]
    closed = tuple(dict.fromkeys(words.get("closed", [])))
    # `--version` may say `19beta1`; PG_VERSION would say `19`.
    return Seen(pgdata, major_of(server) or promised or None, promised or None, data, closed)


def judge_data(env: str, wanted: Wanted, seen: Seen, others: Sequence[Mount], *, expected: bool) -> list[str]:
    """Return what speaks against the data that a container of WANTED would find, where SEEN is all that there is.
    OTHERS are volumes that the service does not mount (any more).
    """
    own = {path: major for path, major in seen.data.items() if not path.startswith(f"{OTHERS}/")}
    here = own.get(seen.pgdata)
    if own and seen.server is None:
        return [f"{SERVICE}: image {wanted.image} does not say which PostgreSQL it has (`postgres --version`)"]
    if here:
        return [] if here == seen.server else [_other_major(wanted, seen, seen.pgdata, here)]
    if own:
        return [_elsewhere(wanted, seen, own)]
    home = wanted.home(seen.pgdata)
    if seen.closed:
        who = f"user {wanted.user}" if wanted.user else "the user"
        return [f"{SERVICE}: {home} is closed to {who} of image {wanted.image} ({seen.closed[0]}): set `user` back"]
    what = f"{SERVICE}: {home} has no database" if home else f"{SERVICE}: no volume is mounted for its data"
    return [no_database(env, what, _way_back(seen, others))] if expected else []


def _elsewhere(wanted: Wanted, seen: Seen, own: Mapping[str, str]) -> str:
    path, major = max(own.items(), key=lambda one: int(one[1].partition(".")[0]))
    # An image that only calls itself another major is met as one: nobody should move data below its feet.
    if {seen.server, seen.promised or major} != {major}:
        return _other_major(wanted, seen, path, major)
    what = f"{SERVICE}: the data in {wanted.home(path)} is in {path}, and PGDATA is {seen.pgdata} now"
    return f"{what}: set PGDATA back, or mount an empty volume for an empty database"


def _other_major(wanted: Wanted, seen: Seen, path: str, major: str) -> str:
    server = seen.server if seen.server != major else seen.promised
    place = f"{wanted.home(path)} ({path})"
    image = f"PostgreSQL {server} of image {wanted.image}"
    return f"{SERVICE}: {other_major(place, major, image, 'put the image back')}"


def _way_back(seen: Seen, others: Sequence[Mount]) -> str:
    places = [
        f"{one} (PostgreSQL {major}, {PurePosixPath(path).relative_to(one.target)})"
        for one in others
        for path, major in seen.data.items()
        if one.holds(path)
    ]
    if places:
        return f"there is one in {' and in '.join(places)}: mount that again"
    return "mount it again, or restore a dump of it"


def find_data_problems(variables: Variables, *, expected: bool) -> list[str]:
    """Return what speaks against the data that PostgreSQL would find. Changes nothing."""
    stack, docker = variables.stack, variables.stack.docker
    environment = variables.environment(None)
    wanted = Wanted.of(json.loads(docker.ask(*stack.command("config", "--format", "json"), env=environment)))
    facts = docker.inspect(*(one.ident for one in stack.containers(SERVICE)))
    wanted = wanted.named(mount for one in facts for mount in mounts_of(one))
    image = docker.image(wanted.image)
    if facts:
        definition = stack.definitions(environment)[SERVICE]
        if any(unchanged(one, wanted, definition, (image or {}).get("Id")) for one in facts):
            return []
    there = docker.ask("volume", "ls", "--format", "{{.Name}}").split()
    mounted = [one for one in wanted.mounts if _is_there(one, there)]
    others: list[Mount] = []
    if expected:
        label = f"label=com.docker.compose.project={stack.name}"
        kept = docker.ask("volume", "ls", "--format", "{{.Name}}", "--filter", label).split()
        known = [*(Mount(name, "") for name in kept), *(one for each in facts for one in mounts_of(each))]
        others = _others(wanted, [one for one in known if _is_there(one, there)])
    if not mounted and not others:
        return judge_data(variables.env.name, wanted, Seen(wanted.pgdata or USUAL), (), expected=expected)
    try:
        if image is None:
            docker.do("pull", "--quiet", wanted.image, timeout=PULL_SECONDS)
        said = docker.ask(*_look(stack.name, wanted, [*mounted, *others]))
    except SlipwayError as error:
        sweep(docker, stack.name)
        return [f"{SERVICE}: image {wanted.image} cannot be run: {error.problems[0]}"]
    return judge_data(variables.env.name, wanted, read_seen(said), others, expected=expected)


def _is_there(mount: Mount, volumes: Collection[str]) -> bool:
    if not mount.bind:
        return mount.source in volumes
    try:
        Path(mount.source).stat()
    except PermissionError:  # the engine may look where we may not
        return True
    except OSError:
        return False
    return True


def _others(wanted: Wanted, known: Iterable[Mount]) -> list[Mount]:
    """Return the KNOWN mounts that WANTED has not, each once, where the throwaway container has them."""
    mine = {one.source for one in wanted.mounts}
    left = {one.source: one for one in known if one.source not in mine}
    return [replace(one, target=f"{OTHERS}/{number}") for number, one in enumerate(left.values())]


def _look(project: str, wanted: Wanted, mounts: Iterable[Mount]) -> list[str]:
    """Return the arguments of docker that look for clusters in MOUNTS, as who would read them."""
    mounts = list(mounts)
    given = [word for one in mounts for word in ("--mount", one.option())]
    given += ["--user", wanted.user] if wanted.user else []
    given += ["--env", f"PGDATA={wanted.pgdata}"] if wanted.pgdata else []
    closed = ["--network", "none", "--read-only", "--security-opt", "no-new-privileges"]
    start = ["run", "--rm", "--label", f"{THROWAWAY}={project}", *closed, *given, "--entrypoint", "sh", wanted.image]
    return [*start, "-c", SCRIPT, "sh", *(one.target for one in mounts)]
