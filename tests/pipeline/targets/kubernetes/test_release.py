"""Rendered releases: their names, their digests, what is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engines.kubectl import Object
from pipeline.errors import UsageError
from pipeline.images.build import PushedImages
from pipeline.system.git import Source
from pipeline.targets.kubernetes.release import RELEASE_ANNOTATION, KeptReleases, Release, render

KUSTOMIZATION = """\
resources: [deployment.yaml]
configMapGenerator:
  - name: settings
    literals: [LOG_LEVEL=INFO]
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: backend}
spec:
  selector: {matchLabels: {app: backend}}
  template:
    metadata: {labels: {app: backend}}
    spec:
      containers:
        - name: backend
          image: backend
          envFrom: [{configMapRef: {name: settings}}]
"""
CRONJOB = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup}
spec:
  schedule: "0 2 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: backup, image: backup}]}}}}
"""
IMAGES = PushedImages("registry.example.com/shop", *(f"sha256:{digit * 64}" for digit in "abc"))

pytestmark = pytest.mark.needs("kubectl")  # renders


@pytest.fixture(name="overlay")
def _overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(KUSTOMIZATION)
    (folder / "deployment.yaml").write_text(DEPLOYMENT)
    return folder


@pytest.fixture(name="releases")
def _releases(tmp_path: Path) -> KeptReleases:
    return KeptReleases(tmp_path / "artifacts", retain=5)


def kept(name: str, objects: list[Object]) -> Release:
    """A release with these manifests."""
    return Release(name, IMAGES, Source("c", dirty=False), "0001", [], {}, objects)


class TestRender:
    def test_names_images_by_digest_alone(self, overlay: Path, releases: KeptReleases) -> None:
        """No tag can move under a release."""
        _, objects = render(overlay, "shop", IMAGES, releases)
        [deployment] = [one for one in objects if one["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.example.com/shop@{IMAGES.backend}"
        assert {one["metadata"]["namespace"] for one in objects} == {"shop"}

    def test_tells_the_release_its_name(self, overlay: Path, releases: KeptReleases) -> None:
        """In its settings, which cannot be changed in place, and on its pods."""
        name, objects = render(overlay, "shop", IMAGES, releases)
        [settings] = [one for one in objects if one["kind"] == "ConfigMap"]
        [deployment] = [one for one in objects if one["kind"] == "Deployment"]
        assert name == IMAGES.backend
        assert settings["data"] == {"LOG_LEVEL": "INFO", "RELEASE": name}
        assert settings["immutable"]
        assert deployment["spec"]["template"]["metadata"]["annotations"][RELEASE_ANNOTATION] == name
        assert kept(name, objects).config == settings["data"]

    def test_gives_other_settings_another_name(self, overlay: Path, releases: KeptReleases) -> None:
        """The digest alone is the first release of an image; the same again is the same."""
        name, objects = render(overlay, "shop", IMAGES, releases)
        releases.keep(kept(name, objects))
        assert render(overlay, "shop", IMAGES, releases)[0] == name
        (overlay / "kustomization.yaml").write_text(KUSTOMIZATION.replace("INFO", "DEBUG"))
        other, objects = render(overlay, "shop", IMAGES, releases)
        assert other.startswith(f"{name}+")
        releases.keep(kept(other, objects))
        assert render(overlay, "shop", IMAGES, releases)[0] == other

    def test_refuses_an_image_that_was_pushed_without_its_backups(self, overlay: Path, releases: KeptReleases) -> None:
        """A registry elsewhere would be asked for `backup`."""
        (overlay / "deployment.yaml").write_text(f"{DEPLOYMENT}---\n{CRONJOB}")
        with pytest.raises(
            UsageError, match=r"was pushed without the image `backup`, which overlay runs: push its com"
        ):
            render(overlay, "shop", IMAGES, releases)
        _, objects = render(overlay, "shop", replace(IMAGES, backup=f"sha256:{'d' * 64}"), releases)
        [cron] = [one for one in objects if one["kind"] == "CronJob"]
        [container] = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.example.com/shop@sha256:{'d' * 64}"

    def test_says_how_long_backups_are_kept(self, overlay: Path, releases: KeptReleases) -> None:
        """By the rule of the environment's table: another rule is another release."""
        (overlay / "deployment.yaml").write_text(f"{DEPLOYMENT}---\n{CRONJOB}")
        images = replace(IMAGES, backup=f"sha256:{'d' * 64}")
        name, objects = render(overlay, "shop", images, releases, keep="7d 4w")
        [cron] = [one for one in objects if one["kind"] == "CronJob"]
        [container] = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["env"] == [{"name": "BACKUP_KEEP", "value": "7d 4w"}]
        releases.keep(kept(name, objects))
        assert render(overlay, "shop", images, releases, keep="7d 4w")[0] == name
        assert render(overlay, "shop", images, releases, keep="1d")[0] != name

    def test_says_what_kustomize_has_against_an_overlay(self, overlay: Path, releases: KeptReleases) -> None:
        """One line, and no traceback."""
        (overlay / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
        with pytest.raises(UsageError, match=r"overlay: kustomize: .*missing\.yaml"):
            render(overlay, "shop", IMAGES, releases)


class TestReleases:
    def test_keep_a_release_whole(self, overlay: Path, releases: KeptReleases) -> None:
        """What is read is what was written."""
        name, objects = render(overlay, "shop", IMAGES, releases)
        releases.keep(kept(name, objects))
        assert releases.find(name) == kept(name, objects)
        assert releases.pullable(name).images.migrate == f"registry.example.com/shop@{IMAGES.migrate}"

    def test_name_the_fix_for_one_that_is_gone(self, releases: KeptReleases) -> None:
        """Exit code 2: nothing was touched."""
        with pytest.raises(UsageError, match="is not recorded in the cluster"):
            releases.find("sha256:0")


class TestRelease:
    def test_that_an_older_pipeline_recorded_says_nothing_of_secrets(self) -> None:
        """It is shipped as it was."""
        value = {**kept("sha256:1", []).dump(), "needs": ["SERVICE_TOKEN"]}
        assert Release.load(value).artifact.needs == ("SERVICE_TOKEN",)
        del value["needs"]
        assert Release.load(value).artifact.needs == ()

    def test_says_where_its_database_is(self) -> None:
        """By its own settings: a release that names another one must not be compared with that of another release."""
        settings = {"POSTGRES_HOST": "db", "POSTGRES_PORT": "5432", "POSTGRES_DB": "board", "LOG_LEVEL": "INFO"}
        one = {"kind": "ConfigMap", "metadata": {"name": "settings-abc"}, "data": settings}
        assert kept("sha256:1", [one]).database == ("db", "5432", "board")
        moved = {**one, "data": {**settings, "POSTGRES_HOST": "elsewhere"}}
        assert kept("sha256:2", [moved]).database != kept("sha256:1", [one]).database
