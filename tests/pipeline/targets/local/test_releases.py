"""The releases of a local environment: what is asked of the engines before anything is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.config.project import LocalEnvironment, Project
from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.git import Source
from pipeline.targets.local.artifacts import ENGINES_LOCK
from pipeline.targets.local.releases import LocalReleases
from pipeline.targets.local.site import Site
from tests.edge import CADDYFILE

NEW = Artifact("a" * 12, Source(None, dirty=False), None, ())


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Site:
    """An environment that never ran, whose engines are those of the tests."""
    root = tmp_path / "project"
    for name, text in {ENGINES_LOCK: "# none\n", "docker/edge/Caddyfile": CADDYFILE.read_text()}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    env = LocalEnvironment(name="local", url="http://localhost:1")
    site = Site(Project(root=root, name="shop", environments={"local": env}, requests=()), env)
    site.layout.make()
    site.artifacts._venv(root / ENGINES_LOCK).symlink_to(sys.prefix)
    return site


class TestObjections:
    def test_leave_the_choice_of_engines_to_what_starts_them(self, site: Site) -> None:
        """A dry run keeps none: by the next deploy the lock may name others."""
        assert LocalReleases(site).objections(NEW) == []
        assert not site.engines_venv().exists()
        assert site.engines().caddy.is_relative_to(site.engines_venv())

    def test_come_from_engines_whose_python_is_gone(self, site: Site) -> None:
        """They are made anew from the lock that they were made from: `local` has no other platform then."""
        venv = site.engines().caddy.parents[1]
        assert site.broken_pythons() == []
        site.engines_venv().unlink()  # the tests' own, which is left alone
        (venv.parent / venv.name / "bin").mkdir(parents=True)
        assert site.broken_pythons() == [site.engines_venv()]
        with pytest.raises(SlipwayError, match="no postgres in"):  # the lock of the tests names nothing
            site.engines()
        assert site.broken_pythons() == []

    def test_are_what_caddy_has_against_the_caddyfile(self, site: Site) -> None:
        """One line, before anything runs."""
        site.caddyfile.write_text("nonsense {")
        [line] = LocalReleases(site).objections(NEW)
        assert "Caddy does not accept" in line
