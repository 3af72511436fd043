"""Whether PostgreSQL's claim is the one that was in use, and whether the overlay's image can read the data in it.

A deploy does not enter a pod: the StatefulSet that runs, or that ran when a release was proved, tells what the claim
holds; and the claim's own annotations, where the data moved to another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.targets.common.data import no_database, other_major, upgrade_command
from pipeline.targets.kubernetes.moves import LEFT, POD_NAME, Stores, pod_of
from pipeline.targets.kubernetes.store import NAME, AskMajor, Store, find_store

__all__ = ["copy_problems", "find_data_problems", "judge_data", "new_store", "service_problems"]


def judge_data(
    env: str, wanted: Object, before: Object | None, there: Stores, ask: AskMajor, *, expected: bool
) -> list[str]:
    """Return what speaks against the StatefulSet `wanted`.

    `before`: the one that used the data. `there`: what the namespace has. `ask` returns the major of an image.
    `expected`: whether there must be data.
    """
    new, old = Store.of(wanted), Store.of(before) if before else None
    moving = [*there.unfinished()]  # which is healed first: only then each claim is what it will stay
    problems = [] if moving else _moved_problems(env, wanted, there)
    if moving or problems or (old and new.claim and there.moved_to(old.claim) == new.claim):
        return problems
    back = f"put {old.claim} back" if old and old.claim in there.claims and old.claim != new.claim else None
    if new.claim and new.claim not in there.claims:
        what = f"{_named(wanted)}: there is no PersistentVolumeClaim {new.claim}"
        newer = _newer(new, old, ask) if old and back else None
        if expected and newer:
            way = f"{upgrade_command(env)} moves it to PostgreSQL {newer[1]}"
            return [f"{what}, and the data of PostgreSQL {newer[0]} is in another one: {back}, or {way}"]
        return [no_database(env, what, back or "restore the claim")] if expected else []
    if old is None:
        return []
    if old.claim != new.claim:
        was, now = (f"PersistentVolumeClaim {one}" if one else "no claim" for one in (old.claim, new.claim))
        what = f"{_named(wanted)}: its data was in {was}, and would be in {now}"
        return [no_database(env, what, back or "restore the claim")] if expected else []
    return _image_problems(env, wanted, new, old, ask) or _folder_problems(wanted, new, old)


def _moved_problems(env: str, wanted: Object, there: Stores) -> list[str]:
    """Return what speaks against a claim whose data was moved to another one, or that was only moved to."""
    claim = Store.of(wanted).claim
    moved = there.moved_to(claim)
    if not moved:
        return copy_problems(env, wanted, there)
    what = f"its data moved from PersistentVolumeClaim {claim} to {moved}, and is served from there"
    return [f"{_named(wanted)}: {what}: put the StatefulSet and the image back that go with {moved}"]


def copy_problems(env: str, wanted: Object, there: Stores) -> list[str]:
    """Refuse to serve from a copy of the data that was not switched to, or was switched back from."""
    claim = Store.of(wanted).claim
    if claim is None or not there.is_copy(claim):
        return []
    what = f"PersistentVolumeClaim {claim} has a copy of the data, and what was written since is not in it"
    first = f"`kubectl delete pvc {claim}`, then " if LEFT in there.claims[claim] else ""
    return [f"{_named(wanted)}: {what}: {first}{upgrade_command(env)} copies it anew"]


def service_problems(objects: Iterable[Object]) -> list[str]:
    """Return what is wrong where the Service among `objects` leads to another server than the one that they have."""
    objects = list(objects)
    wanted = find_store(objects)
    services = [one for one in objects if (one["kind"], name_of(one)) == ("Service", NAME)]
    leads = [one["spec"].get("selector", {}).get(POD_NAME) for one in services]
    if wanted is None or set(leads) <= {None, pod_of(wanted)}:
        return []
    return [
        f"Service {NAME}: leads to {leads[0]}, and {_named(wanted)} has {pod_of(wanted)}: put that into its selector"
    ]


def new_store(env: str, major: str) -> str:
    """Return how the overlay gets a server of the new `major` with a claim, and the command that moves the data."""
    name = f"{NAME}-{major}"
    return f"name it `{name}`, and `{name}-0` in the Service's selector, and {upgrade_command(env)} moves it"


def _newer(new: Store, old: Store, ask: AskMajor) -> tuple[str, str] | None:
    """Return the majors of the data and of the image that would run, where that is the newer one."""
    data, server = ask(old.image), ask(new.image)
    return (data, server) if data and server and int(data) < int(server) else None


def _image_problems(env: str, wanted: Object, new: Store, old: Store, ask: AskMajor) -> list[str]:
    if new.image == old.image or new.claim is None:
        return []
    server, data = ask(new.image), ask(old.image)
    if server is None or data is None:
        unknown = " and of ".join(one for one, major in ((new.image, server), (old.image, data)) if major is None)
        what = f"the PostgreSQL major of {unknown} cannot be determined, and the data needs the one that made it"
        fix = f"use a tag that names it ({NAME}:18…), or deploy where Docker can run the image"
        return [f"{_named(wanted)}: {what}: {fix}"]
    if server == data:
        return []
    place = f"PersistentVolumeClaim {new.claim}"
    image = f"PostgreSQL {server} of image {new.image}"
    return [
        f"{_named(wanted)}: {other_major(place, data, image, f'put image {old.image} back', new_store(env, server))}"
    ]


def _folder_problems(wanted: Object, new: Store, old: Store) -> list[str]:
    known = new.folder is not None and old.folder is not None
    was, now = (old.folder, new.folder) if known else (old.mount, new.mount)
    if new.claim is None or was == now:
        return []
    what = f"its data is in {_words(was)} of PersistentVolumeClaim {new.claim}, and would be in {_words(now)}"
    fix = "put PGDATA, mountPath and subPath back, or use another claim for an empty database"
    return [f"{_named(wanted)}: {what}: {fix}"]


def _words(place: str | None) -> str:
    return {"": "a folder outside it", ".": "the root"}.get(place or "", f"`{place}`")


def _named(one: Object) -> str:
    return f"StatefulSet {name_of(one)}"


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
    objects = list(objects)
    wanted = find_store(objects)
    if wanted is None:
        return []
    if problems := service_problems(objects):
        return problems
    there = Stores.read(kubectl)
    live = there.serving
    # A StatefulSet that does not run may be the very fault that this deploy fixes: the proved one tells more.
    before = live if live and _serves(live) else find_store(proved())
    return judge_data(env, wanted, before, there, ask, expected=expected)


def _serves(one: Object) -> bool:
    status = one.get("status", {})
    return bool(status.get("readyReplicas") and status.get("updatedReplicas"))
