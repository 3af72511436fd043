"""Whether PostgreSQL's claim is the one that was in use, and whether the overlay's image can read the data in it.

A deploy does not enter a pod: the StatefulSet that runs, or that ran when a release was proved, tells what the claim
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.engines.docker import Docker, docker_problems
from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.errors import SlipwayError
from pipeline.registry.reference import parse_reference
from pipeline.targets.common.containers import THROWAWAY
from pipeline.targets.common.data import major_of, no_database, other_major

__all__ = ["Store", "ask_major", "find_data_problems", "find_store", "judge_data", "major_of_tag"]

NAME = "postgres"
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
    return next((one for one in objects if (one["kind"], name_of(one)) == ("StatefulSet", NAME)), None)


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


def judge_data(
    env: str, wanted: Object, before: Object | None, claims: Collection[str], ask: AskMajor, *, expected: bool
) -> list[str]:
    """Return what speaks against the StatefulSet `wanted`.

    `before`: the one that used the data. `claims`: the claims that exist. `ask` returns the major of an image.
    `expected`: whether there must be data.
    """
    new, old = Store.of(wanted), Store.of(before) if before else None
    back = f"put {old.claim} back" if old and old.claim in claims and old.claim != new.claim else None
    if new.claim and new.claim not in claims:
        what = f"StatefulSet {NAME}: there is no PersistentVolumeClaim {new.claim}"
        return [no_database(env, what, back or "restore the claim")] if expected else []
    if old is None:
        return []
    if old.claim != new.claim:
        was, now = (f"PersistentVolumeClaim {one}" if one else "no claim" for one in (old.claim, new.claim))
        what = f"StatefulSet {NAME}: its data was in {was}, and would be in {now}"
        return [no_database(env, what, back or "restore the claim")] if expected else []
    return _image_problems(new, old, ask) or _folder_problems(new, old)


def _image_problems(new: Store, old: Store, ask: AskMajor) -> list[str]:
    if new.image == old.image or new.claim is None:
        return []
    server, data = ask(new.image), ask(old.image)
    if server is None or data is None:
        unknown = " and of ".join(one for one, major in ((new.image, server), (old.image, data)) if major is None)
        what = f"the PostgreSQL major of {unknown} cannot be determined, and the data needs the one that made it"
        fix = f"use a tag that names it ({NAME}:18…), or deploy where Docker can run the image"
        return [f"StatefulSet {NAME}: {what}: {fix}"]
    if server == data:
        return []
    place = f"PersistentVolumeClaim {new.claim}"
    image = f"PostgreSQL {server} of image {new.image}"
    return [f"StatefulSet {NAME}: {other_major(place, data, image, f'put image {old.image} back')}"]


def _folder_problems(new: Store, old: Store) -> list[str]:
    known = new.folder is not None and old.folder is not None
    was, now = (old.folder, new.folder) if known else (old.mount, new.mount)
    if new.claim is None or was == now:
        return []
    what = f"its data is in {_words(was)} of PersistentVolumeClaim {new.claim}, and would be in {_words(now)}"
    fix = "put PGDATA, mountPath and subPath back, or use another claim for an empty database"
    return [f"StatefulSet {NAME}: {what}: {fix}"]


def _words(place: str | None) -> str:
    return {"": "a folder outside it", ".": "the root"}.get(place or "", f"`{place}`")


def find_data_problems(
    env: str,
    objects: Iterable[Object],
    kubectl: Kubectl,
    proved: Callable[[], Iterable[Object]],
    ask: AskMajor,
    *,
    expected: bool,
) -> list[str]:
    """Return what speaks against the data that PostgreSQL in `objects` would find.

    `proved` returns the objects of the newest proved release.
    """
    wanted = find_store(objects)
    if wanted is None:
        return []
    live = find_store(kubectl.get("statefulset", NAME))
    # A StatefulSet that does not run may be the very fault that this deploy fixes: the proved one tells more.
    before = live if live and _serves(live) else find_store(proved())
    claims = {name_of(one) for one in kubectl.get("persistentvolumeclaims")}
    return judge_data(env, wanted, before, claims, ask, expected=expected)


def _serves(one: Object) -> bool:
    status = one.get("status", {})
    return bool(status.get("readyReplicas") and status.get("updatedReplicas"))
