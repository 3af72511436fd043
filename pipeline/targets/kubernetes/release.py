"""The releases of the kubernetes target: image digests, and the manifests that a deploy of them applies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.requests import parse_requests
from pipeline.engines.kubectl import Object, name_of
from pipeline.engines.kustomize import SETTINGS, with_release
from pipeline.engines.kustomize import render as render_kustomization
from pipeline.errors import DeployFailed, SlipwayError, UsageError
from pipeline.images.build import PushedImages, ReleaseImages
from pipeline.registry.image import image_ids, is_image
from pipeline.registry.reference import PARTS
from pipeline.releases.model import Artifact
from pipeline.releases.records import read_json, write_json
from pipeline.system.git import Source

__all__ = [
    "NOTHING_YET",
    "RELEASE_ANNOTATION",
    "SERVICE",
    "KeptReleases",
    "Release",
    "must_run",
    "render",
    "runs_image",
    "settings_of",
]

RELEASE_ANNOTATION = "slipway/release"  # of the service, whatever image it runs, and of its workers
SERVICE = "backend"
UNNAMED = "unnamed"  # the name of a release while its real one is being made
NAME_DIGITS = 8
NOTHING_YET = PushedImages("nothing/yet", *["sha256:" + "0" * 64] * len(PARTS))  # to render an overlay before a build


@dataclass(frozen=True)
class Pullable:
    """Where a release's images can be pulled, and its plain settings."""

    images: ReleaseImages
    config: dict[str, str]


@dataclass(frozen=True)
class Release:
    """A release as it is recorded. `files`: name → content hash."""

    name: str
    images: PushedImages
    source: Source
    revision: str | None
    requests: list[dict[str, Any]]
    files: dict[str, str]
    manifests: list[Object]
    needs: list[str] = field(default_factory=list)

    @property
    def artifact(self) -> Artifact:
        """The engine-neutral `Artifact`, which is what the story knows of a release."""
        requests = parse_requests(self.requests, f"release {self.name}")
        return Artifact(self.name, self.source, self.revision, requests, tuple(self.needs))

    @property
    def config(self) -> dict[str, str]:
        """The plain settings of the release."""
        return settings_of(self.manifests)

    @property
    def database(self) -> tuple[str | None, ...]:
        """Where its database is: host, port and name."""
        return tuple(self.config.get(name) for name in ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB"))

    @property
    def pullable(self) -> Pullable:
        """What a container engine needs of the release."""
        return Pullable(self.images.references, self.config)

    def objects(self, kinds: Iterable[str]) -> list[Object]:
        """Return the objects of these `kinds`."""
        kinds = set(kinds)
        return [one for one in self.manifests if one["kind"] in kinds]

    def dump(self) -> dict[str, Any]:
        """Return the release as a dict for JSON, which contains no secrets."""
        return asdict(self)

    @classmethod
    def load(cls, value: dict[str, Any]) -> Release:
        """Return the release of which `dump` made `value`."""
        # Older releases have this key: today the database is asked.
        value = {name: one for name, one in value.items() if name != "migrations"}
        return cls(**{**value, "images": PushedImages(**value["images"]), "source": Source(**value["source"])})


@dataclass(frozen=True)
class KeptReleases:
    """The releases kept below `folder` on this machine: those of the cluster's records, and new ones."""

    folder: Path
    retain: int

    def path(self, name: str) -> Path:
        """Return the file in which the release `name` is kept."""
        return self.folder / name.removeprefix("sha256:").replace("+", "-") / "release.json"

    def keep(self, release: Release) -> None:
        """Write `release` to its file."""
        path = self.path(release.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, release.dump())

    def find(self, name: str) -> Release:
        """Return the release `name`. Raise `UsageError` where it is not kept."""
        value = read_json(self.path(name)) if name else {}
        if not value:
            raise UsageError(
                f"release {name} is not recorded in the cluster: only the last {self.retain} proved ones are (`*` in"
                " `nox -s releases`); ship its image with `--release sha256:…`, or check out its commit and deploy that"
            )
        return Release.load(value)

    def pullable(self, name: str) -> Pullable:
        """Return what a container engine needs of the release `name`."""
        return self.find(name).pullable

    def knows(self, name: str) -> bool:
        """Return whether the release `name` is kept."""
        return bool(name) and self.path(name).exists()

    def name(self, digest: str, content: str) -> str:
        """Return the name of the release with the image `digest` and manifests whose hash is `content`.

        It is the digest alone for the first manifests that it is kept with. Where it was kept with others before, eight
        digits of `content` follow.
        """
        first = read_json(self.path(digest)).get("manifests")
        if first is None or _content(first) == content:
            return digest
        return f"{digest}+{content[:NAME_DIGITS]}"


def settings_of(objects: Iterable[Object]) -> dict[str, str]:
    """Return the plain settings among `objects`; empty where there are none."""
    for one in objects:
        if one["kind"] == "ConfigMap" and name_of(one).startswith(f"{SETTINGS}-"):
            return dict(one["data"])
    return {}


def render(
    overlay: Path, namespace: str, images: PushedImages, releases: KeptReleases, *, keep: str = ""
) -> tuple[str, list[Object]]:
    """Return the name and the objects of a release of `overlay` with `images`; its backups are kept by the rule `keep`.

    Raise `UsageError` with what kustomize says against the overlay.
    """
    content = _content(_keeping(_kustomize(overlay, namespace, images, UNNAMED), keep))
    name = releases.name(images.backend, content)
    objects = _keeping(_kustomize(overlay, namespace, images, name), keep)
    if images.backup is None and any(one["kind"] == "CronJob" and _lacks_backup(one) for one in objects):
        raise UsageError(
            f"{images.backend} was pushed without the image `backup`, which {overlay.name} runs: push its commit again,"
            f" or take components/backup out of {overlay.name}"
        )
    for one in objects:
        if one["kind"] == "Deployment" and (name_of(one) == SERVICE or runs_image(one, images.place("backend"))):
            template = one["spec"]["template"].setdefault("metadata", {})
            template.setdefault("annotations", {})[RELEASE_ANNOTATION] = name
    return name, objects


def release_of(deployment: Mapping[str, Any]) -> str | None:
    """Return the release whose image a Deployment runs, by its mark; None if it is of none."""
    annotations: dict[str, str] = deployment["spec"]["template"].get("metadata", {}).get("annotations") or {}
    return annotations.get(RELEASE_ANNOTATION)


def runs_image(deployment: Object, image: str) -> bool:
    """Return whether a container of `deployment` runs `image`."""
    return any(each.get("image") == image for each in deployment["spec"]["template"]["spec"]["containers"])


def must_run(release: Release, pods: Iterable[Mapping[str, Any]]) -> None:
    """Raise `DeployFailed` unless `pods` run the image of `release`, by their own status."""
    statuses = [one for pod in pods for one in pod["status"]["containerStatuses"] if one["name"] == SERVICE]
    strange = {one["imageID"] for one in statuses if not is_image(one["imageID"], [release.images.backend])}
    # An engine may name it by its platform's manifest, or by its config: the registry knows which digests those are.
    known = image_ids(release.images.place("backend")) if strange else set()
    wrong = sorted(one for one in strange if not is_image(one, known))
    if wrong:
        raise DeployFailed(
            f"a pod runs {', '.join(wrong)} instead of {release.images.backend}: find out what rewrites it"
        )


def _lacks_backup(cron: Object) -> bool:
    """Return whether an image of `cron` is still the name that a release's digest replaces."""
    spec = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return any(one["image"] == "backup" for one in (*spec.get("initContainers", ()), *spec["containers"]))


def _keeping(objects: list[Object], keep: str) -> list[Object]:
    """Return `objects`, whose CronJob of backups was told the rule `keep`."""
    for one in objects:
        if keep and (one["kind"], name_of(one)) == ("CronJob", "backup"):
            container = one["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
            container["env"] = [*container.get("env", ()), {"name": "BACKUP_KEEP", "value": keep}]
    return objects


def _kustomize(overlay: Path, namespace: str, images: PushedImages, release: str) -> list[Object]:
    named = [{"name": part, "newName": images.repository, "digest": digest} for part, digest in images.parts.items()]
    try:
        return render_kustomization({**with_release(overlay, release, named), "namespace": namespace})
    except SlipwayError as error:
        raise UsageError(f"{overlay.name}: {error.problems[0]}") from error


def _content(objects: Sequence[Object]) -> str:
    """Return a hash of `objects` that does not depend on the name of the release."""
    text = json.dumps(objects, sort_keys=True)
    return hashlib.sha256(_without_name(text).encode()).hexdigest()


def _without_name(text: str) -> str:
    """Return the manifests without the release's name, and without the hash that it adds to the settings' name."""
    objects: list[Object] = json.loads(text)
    names = {}
    for one in objects:
        if one["kind"] == "ConfigMap" and name_of(one).startswith(f"{SETTINGS}-"):
            names[name_of(one)] = SETTINGS
            one["data"].pop("RELEASE", None)
        if one["kind"] == "Deployment":
            one["spec"]["template"].get("metadata", {}).get("annotations", {}).pop(RELEASE_ANNOTATION, None)
            if not one["spec"]["template"].get("metadata", {}).get("annotations", True):
                del one["spec"]["template"]["metadata"]["annotations"]
    text = json.dumps(objects, sort_keys=True)
    for hashed, plain in names.items():
        text = text.replace(hashed, plain)
    return text
