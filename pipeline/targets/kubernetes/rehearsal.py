"""The kubernetes target's stand for rehearsals: containers on the deploying machine, from the overlay's own images."""

from __future__ import annotations

import secrets as randomness
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.secrets import delivered_secrets, write_secret_files
from pipeline.config.settings import SECRET_BYTES
from pipeline.engines.docker import Docker
from pipeline.engines.kubectl import Object, name_of
from pipeline.targets.common.containers import ContainerStand
from pipeline.targets.common.rights import Throwaway
from pipeline.targets.kubernetes.release import KeptReleases
from pipeline.targets.kubernetes.store import NAME as POSTGRES
from pipeline.targets.kubernetes.store import find_store

__all__ = ["store_image", "throwaway_stand"]

STORES = {"postgres": "postgres:18-trixie", "redis": "redis:8-trixie"}  # for an overlay whose stores are outside


@contextmanager
def throwaway_stand(
    name: str, docker: Docker, releases: KeptReleases, objects: Sequence[Object], throwaway: Throwaway
) -> Iterator[tuple[ContainerStand, str]]:
    """Yield a stand with the stores of `objects`, and its SERVICE_TOKEN.

    Its secrets are its own, and end with it.
    """
    # Not in /tmp, of which a Docker that came as a snap has one of its own.
    folder = Path(tempfile.mkdtemp(prefix="secrets-", dir=releases.folder))
    try:
        made = {key: randomness.token_urlsafe(SECRET_BYTES) for key in delivered_secrets()}
        write_secret_files(folder, made)
        images = (store_image(objects, "postgres"), store_image(objects, "redis"))
        stand = ContainerStand(name, docker, releases.pullable, images, folder, throwaway)
        yield stand, made["SERVICE_TOKEN"]
    finally:
        shutil.rmtree(folder)


def store_image(objects: Sequence[Object], store: str) -> str:
    """Return the image of a `store` of the overlay, or a usual one where that store is outside."""
    others = (one for one in objects if (one["kind"], name_of(one)) == ("StatefulSet", store))
    found = find_store(objects) if store == POSTGRES else next(others, None)
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"]) if found else STORES[store]
