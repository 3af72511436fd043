"""The PostgreSQL that an overlay defines, or that runs: of which major it is, and where it keeps its data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.engines.docker import Docker, docker_problems
from pipeline.engines.kubectl import Object, name_of
from pipeline.errors import SlipwayError
from pipeline.registry.reference import parse_reference
from pipeline.targets.common.containers import THROWAWAY
from pipeline.targets.common.data import major_of

__all__ = ["NAME", "AskMajor", "Store", "ask_major", "find_store", "major_of_tag"]

NAME = "postgres"  # of its Service, its container, and its StatefulSet, to which another major adds its number
SET = re.compile(rf"{NAME}(-\d+)?")
PULL_SECONDS = 300
OFFICIAL = ("postgres", "postgresql")  # their tags begin with PostgreSQL's version; the tags of other images need not
FOLDERS_SINCE = 18  # from this major on, the official image keeps its data in a folder of its version
AskMajor = Callable[[str], str | None]


@dataclass(frozen=True)
class Store:
    """Where a StatefulSet keeps its data.

    `claim`: None for a volume that ends with its pod. `folder`: PGDATA within the claim; None where only the image
    knows it, empty where it is outside the claim. `mount`: which part of the claim is mounted where.
    """

    image: str
    claim: str | None
    folder: str | None
    mount: str = ""

    @classmethod
    def of(cls, one: Object) -> Store:
        """Read the store from the StatefulSet `one`."""
        spec = one["spec"]["template"]["spec"]
        container = next((each for each in spec["containers"] if each["name"] == NAME), spec["containers"][0])
        claims = {
            name_of(each): f"{name_of(each)}-{name_of(one)}-0" for each in one["spec"].get("volumeClaimTemplates") or ()
        }
        for volume in spec.get("volumes") or ():
            if volume.get("persistentVolumeClaim"):
                claims[volume["name"]] = volume["persistentVolumeClaim"]["claimName"]
        pgdata = next((each.get("value") for each in container.get("env") or () if each["name"] == "PGDATA"), None)
        pgdata = pgdata or _usual_pgdata(container["image"])
        mounts = [each for each in container.get("volumeMounts") or () if each["name"] in claims]
        inside = [each for each in mounts if pgdata and PurePosixPath(pgdata).is_relative_to(each["mountPath"])]
        mount = max(inside or mounts[:1], key=lambda each: len(each["mountPath"]), default=None)
        if mount is None:
            return cls(container["image"], None, None)
        folder = None if pgdata is None else ""
        if inside:
            within = PurePosixPath(str(pgdata)).relative_to(mount["mountPath"])
            folder = str(PurePosixPath(mount.get("subPath") or ".") / within)
        place = f"{mount.get('subPath') or '.'} at {mount['mountPath']}"
        return cls(container["image"], claims[mount["name"]], folder, place)


def find_store(objects: Iterable[Object]) -> Object | None:
    """Return the StatefulSet of PostgreSQL among `objects`; None where the database is outside the overlay."""
    return next((one for one in objects if one["kind"] == "StatefulSet" and SET.fullmatch(name_of(one))), None)


def major_of_tag(image: str) -> str | None:
    """Return the PostgreSQL major that the tag of `image` names; None where it names none."""
    reference = parse_reference(image)
    if reference.path.rpartition("/")[2] not in OFFICIAL or not (reference.tag or "")[:1].isdigit():
        return None
    return major_of(str(reference.tag))


def _usual_pgdata(image: str) -> str | None:
    major = major_of_tag(image)
    if major is None or parse_reference(image).path.rpartition("/")[2] != NAME:
        return None
    return f"/var/lib/postgresql/{major}/docker" if int(major) >= FOLDERS_SINCE else "/var/lib/postgresql/data"


def ask_major(docker: Docker, project: str, image: str) -> str | None:
    """Return the PostgreSQL major of `image`, from its tag or by running its program here; None where neither tells."""
    major = major_of_tag(image)
    if major or docker_problems(compose=False):
        return major
    start = ["run", "--rm", "--label", f"{THROWAWAY}={project}", "--network", "none", "--entrypoint", "postgres"]
    try:
        return major_of(docker.do(*start, image, "--version", timeout=PULL_SECONDS))
    except SlipwayError:
        return None
