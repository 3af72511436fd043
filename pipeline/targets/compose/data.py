"""Checks that docker-compose.yml mounts the database that was in use, and that its image can read it.

Where no container answers that, a throwaway container mounts the volumes read-only and looks into them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.targets.common.containers import THROWAWAY, sweep
from pipeline.targets.common.data import major_of, no_database, other_major, upgrade_command
from pipeline.targets.compose.stack import DEFINITION
from pipeline.targets.compose.variables import Variables

__all__ = [
    "OTHERS",
    "Mount",
    "Seen",
    "Wanted",
    "find_data_problems",
    "judge_data",
    "look",
    "mounts_of",
    "new_volume",
    "read_seen",
    "unchanged",
]

SERVICE = "postgres"
OTHERS = "/slipway-others"  # where the throwaway container mounts the volumes that the service does not
USUAL = "/var/lib/postgresql"
PULL_SECONDS = 600
# `find` skips the folders inside of a cluster: each database in it has its own PG_VERSION, and it may have a million
# files.
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
        """Return whether `path` is the target, or below it."""
        return PurePosixPath(path).is_relative_to(self.target)

    def option(self) -> str:
        """Return the value for `docker run --mount`: read-only, and copying nothing into an empty volume."""
        kind = "type=bind" if self.bind else "type=volume,volume-nocopy"
        subpath = f",volume-subpath={self.subpath}" if self.subpath else ""
        return f"{kind},source={self.source},target={self.target},readonly{subpath}"


@dataclass(frozen=True)
class Wanted:
    """The PostgreSQL that the stack would run now. `pgdata` and `user`: None where the image decides."""

    image: str
    mounts: tuple[Mount, ...]
    pgdata: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Wanted:
        """Read it from the output of `docker compose config --format json`."""
        service, volumes = config["services"][SERVICE], config.get("volumes") or {}
        mounts = []
        for volume in service.get("volumes") or ():
            if volume["type"] not in ("volume", "bind") or volume.get("read_only"):
                continue
            source, bind = volume.get("source") or "", volume["type"] == "bind"
            name = source if bind else (volumes.get(source) or {}).get("name") or source
            mounts.append(Mount(name, volume["target"], bind, (volume.get("volume") or {}).get("subpath") or ""))
        return cls(
            image=service.get("image") or f"{config['name']}-{SERVICE}",  # how Compose names an image that it builds
            mounts=tuple(mounts),
            pgdata=(service.get("environment") or {}).get("PGDATA"),
            user=service.get("user"),
        )

    def home(self, pgdata: str) -> Mount | None:
        """Return the mount that holds `pgdata`; where none does, the one that is intended for data."""
        inside = [mount for mount in self.mounts if mount.holds(pgdata)]
        usual = [mount for mount in self.mounts if PurePosixPath(mount.target).is_relative_to(USUAL)]
        return max(inside, key=lambda mount: len(mount.target)) if inside else next(iter([*usual, *self.mounts]), None)

    def named(self, mounts: Iterable[Mount]) -> Wanted:
        """Return it with the names that a container's `mounts` have for anonymous volumes, which Compose keeps."""
        names = {mount.target: mount.source for mount in mounts}
        named = (mount if mount.source else replace(mount, source=names.get(mount.target, "")) for mount in self.mounts)
        return replace(self, mounts=tuple(named))


@dataclass(frozen=True)
class Seen:
    """The report of the throwaway container.

    `server`: the major of its program, `promised`: PG_MAJOR, `data`: folder → major, `closed`: what its user may not
    read.
    """

    pgdata: str
    server: str | None = None
    promised: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    closed: tuple[str, ...] = ()


def mounts_of(facts: Mapping[str, Any]) -> list[Mount]:
    """Return the mounts of a container that may hold data, from the output of `docker inspect`."""
    return [
        Mount(mount.get("Name") or mount["Source"], mount["Destination"], mount["Type"] == "bind")
        for mount in facts.get("Mounts") or ()
        if mount["Type"] in ("volume", "bind") and mount.get("RW", True)
    ]


def unchanged(facts: Mapping[str, Any], wanted: Wanted, definition: str, image: str | None) -> bool:
    """Return whether the container of `facts` runs and `up` would keep it.

    `up` would, where its `definition`, the ID of its `image` and its volumes are the same.
    """
    # Compose's hash of a definition covers neither the image that a tag names by now nor a volume's real name.
    same = facts["Config"]["Labels"].get(DEFINITION) == definition and facts["Image"] == image
    has = {(mount.source, mount.target) for mount in mounts_of(facts)}
    return bool(facts["State"]["Running"]) and same and {(mount.source, mount.target) for mount in wanted.mounts} <= has


def read_seen(said: str) -> Seen:
    """Read the output of `SCRIPT`."""
    words: dict[str, list[str]] = {}
    for line in said.splitlines():
        name, _, rest = line.partition(" ")
        words.setdefault(name, []).append(rest.strip())
    data = {}
    for entry in words.get("data", []):
        major, _, path = entry.partition(" ")
        if major_of(major):
            data[str(PurePosixPath(path).parent)] = major
    [server], [promised], [pgdata] = words["server"], words["promised"], words["pgdata"]
    closed = tuple(dict.fromkeys(words.get("closed", [])))
    # `--version` may say `19beta1`; PG_VERSION would say `19`.
    return Seen(pgdata, major_of(server) or promised or None, promised or None, data, closed)


def judge_data(env: str, wanted: Wanted, seen: Seen, others: Sequence[Mount], *, expected: bool) -> list[str]:
    """List what is wrong with the data that a container of `wanted` would find, given what was `seen`.

    `others` are volumes that the service does not mount (any more). With `expected`, a missing database is a problem.
    """
    own = {path: major for path, major in seen.data.items() if not path.startswith(f"{OTHERS}/")}
    here = own.get(seen.pgdata.rstrip("/"))
    if own and seen.server is None:
        return [f"{SERVICE}: image {wanted.image} does not say which PostgreSQL it has (`postgres --version`)"]
    if here:
        return [] if here == seen.server else [_other_major(env, wanted, seen, seen.pgdata, here)]
    if own:
        return [_elsewhere(env, wanted, seen, own)]
    home = wanted.home(seen.pgdata)
    if seen.closed:
        who = f"user {wanted.user}" if wanted.user else "the user"
        return [f"{SERVICE}: {home} is closed to {who} of image {wanted.image} ({seen.closed[0]}): set `user` back"]
    what = f"{SERVICE}: {home} has no database" if home else f"{SERVICE}: no volume is mounted for its data"
    return [no_database(env, what, _way_back(env, seen, others))] if expected else []


def _elsewhere(env: str, wanted: Wanted, seen: Seen, own: Mapping[str, str]) -> str:
    path, major = max(own.items(), key=lambda one: int(one[1].partition(".")[0]))
    # An image whose PG_MAJOR alone names another major is treated as one, so that nobody moves the data under it.
    if {seen.server, seen.promised or major} != {major}:
        return _other_major(env, wanted, seen, path, major)
    what = f"{SERVICE}: the data in {wanted.home(path)} is in {path}, and PGDATA is {seen.pgdata} now"
    return f"{what}: set PGDATA back, or mount an empty volume for an empty database"


def new_volume(env: str, major: str) -> str:
    """Return how docker-compose.yml gets a volume for the new `major`, and the command that moves the data there."""
    volume = f"{SERVICE}-{major}"
    return f"mount `{volume}:{USUAL}` instead, with `{volume}:` below `volumes:`, and {upgrade_command(env)} moves it"


def _other_major(env: str, wanted: Wanted, seen: Seen, path: str, major: str) -> str:
    server = seen.server if seen.server != major else seen.promised
    place = f"{wanted.home(path)} ({path})"
    image = f"PostgreSQL {server} of image {wanted.image}"
    way = new_volume(env, str(server))
    return f"{SERVICE}: {other_major(place, major, image, 'put the image back', way)}"


def _way_back(env: str, seen: Seen, others: Sequence[Mount]) -> str:
    found = [
        (major, f"{mount} (PostgreSQL {major}, {PurePosixPath(path).relative_to(mount.target)})")
        for mount in others
        for path, major in seen.data.items()
        if mount.holds(path)
    ]
    if found:
        places = f"there is one in {' and in '.join(place for _, place in found)}"
        if seen.server and any(int(major) < int(seen.server) for major, _ in found):
            return f"{places}: {upgrade_command(env)} moves it to PostgreSQL {seen.server}, or mount that again"
        return f"{places}: mount that again"
    return "mount it again, or restore a dump of it"


def find_data_problems(variables: Variables, *, expected: bool) -> list[str]:
    """List what is wrong with the data that PostgreSQL would find. Change nothing."""
    stack, docker = variables.stack, variables.stack.docker
    environment = variables.environment(None)
    wanted = Wanted.of(stack.config(environment))
    facts = docker.inspect(*(container.ident for container in stack.containers(SERVICE)))
    wanted = wanted.named(mount for one in facts for mount in mounts_of(one))
    image = docker.image(wanted.image)
    if facts:
        definition = stack.definitions(environment)[SERVICE]
        if any(unchanged(one, wanted, definition, (image or {}).get("Id")) for one in facts):
            return []
    there = docker.ask("volume", "ls", "--format", "{{.Name}}").split()
    mounted = [mount for mount in wanted.mounts if _is_there(mount, there)]
    others: list[Mount] = []
    if expected:
        label = f"label=com.docker.compose.project={stack.name}"
        kept = docker.ask("volume", "ls", "--format", "{{.Name}}", "--filter", label).split()
        known = [*(Mount(name, "") for name in kept), *(one for each in facts for one in mounts_of(each))]
        others = _others(wanted, [mount for mount in known if _is_there(mount, there)])
    if not mounted and not others:
        return judge_data(variables.env.name, wanted, Seen(wanted.pgdata or USUAL), (), expected=expected)
    try:
        if image is None:
            docker.do("pull", "--quiet", wanted.image, timeout=PULL_SECONDS)
        output = docker.ask(*look(stack.name, wanted, [*mounted, *others]))
    except SlipwayError as error:
        sweep(docker, stack.name)
        return [f"{SERVICE}: image {wanted.image} cannot be run: {error.problems[0]}"]
    return judge_data(variables.env.name, wanted, read_seen(output), others, expected=expected)


def _is_there(mount: Mount, volumes: Collection[str]) -> bool:
    if not mount.bind:
        return mount.source in volumes
    try:
        Path(mount.source).stat()
    except PermissionError:  # the engine may read what we may not
        return True
    except OSError:
        return False
    return True


def _others(wanted: Wanted, known: Iterable[Mount]) -> list[Mount]:
    """Return the `known` mounts that `wanted` lacks, each once, with their targets in the throwaway container."""
    mine = {mount.source for mount in wanted.mounts}
    left = {mount.source: mount for mount in known if mount.source not in mine}
    return [replace(mount, target=f"{OTHERS}/{number}") for number, mount in enumerate(left.values())]


def look(project: str, wanted: Wanted, mounts: Iterable[Mount]) -> list[str]:
    """Return the arguments of `docker` that look for clusters in `mounts`, as the user that would read them."""
    mounts = list(mounts)
    given = [word for mount in mounts for word in ("--mount", mount.option())]
    given += ["--user", wanted.user] if wanted.user else []
    given += ["--env", f"PGDATA={wanted.pgdata}"] if wanted.pgdata else []
    closed = ["--network", "none", "--read-only", "--security-opt", "no-new-privileges"]
    start = ["run", "--rm", "--label", f"{THROWAWAY}={project}", *closed, *given, "--entrypoint", "sh", wanted.image]
    return [*start, "-c", SCRIPT, "sh", *(mount.target for mount in mounts)]
