"""The database of a Kubernetes environment: the overlay's StatefulSet, or the one that its settings name."""

from __future__ import annotations

from functools import partial
from secrets import token_hex

from pipeline.config.logins import owner_of
from pipeline.engines.docker import docker_problems
from pipeline.engines.kubectl import Object, Refused
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Artifact, short
from pipeline.targets.common import roles
from pipeline.targets.common.migrating import limits
from pipeline.targets.common.program import failure
from pipeline.targets.common.rehearsal import rehearse
from pipeline.targets.common.rights import Throwaway
from pipeline.targets.kubernetes.backups import KubernetesBackups
from pipeline.targets.kubernetes.data import find_data_problems
from pipeline.targets.kubernetes.job import Ended, MigrateJob, command_of, program_of, with_image
from pipeline.targets.kubernetes.moves import Stores, without_moved
from pipeline.targets.kubernetes.rehearsal import store_image, throwaway_stand
from pipeline.targets.kubernetes.release import NOTHING_YET, Release, settings_of
from pipeline.targets.kubernetes.secret import unread_keys
from pipeline.targets.kubernetes.site import Site
from pipeline.targets.kubernetes.store import ask_major, find_store
from pipeline.targets.kubernetes.upgrade import KubernetesUpgrade

__all__ = ["KubernetesDatabase"]


class KubernetesDatabase(roles.Database):
    """See `pipeline.targets.common.roles.Database`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Return what is wrong with PostgreSQL's claim, or with the image of the overlay or of `release`.

        There is nothing to check if the database is outside the overlay.
        """
        site = self.site
        objects = site.kept.find(release).manifests if release else site.artifacts.render(NOTHING_YET)[1]
        if release and find_store(objects):
            there = Stores.read(site.kubectl)
            objects = without_moved(objects, there)
            if not find_store(objects) and not there.serving:
                deploy = f"`nox -s deploy -- {site.env.name}` first"
                return [f"PostgreSQL does not run, and its data was moved since release {short(release)}: {deploy}"]

        def proved() -> list[Object]:
            serving = site.records.serving()
            name = (serving.release or "") if serving else ""
            return site.kept.find(name).manifests if site.kept.knows(name) else []

        ask = partial(ask_major, site.docker, site.stand)
        return find_data_problems(site.env.name, objects, site.kubectl, proved, ask, expected=expected)

    def places(self) -> list[str]:
        """Say where the stores are that the Secret names."""
        return self.site.managed.described()

    def runs(self, new: Artifact) -> bool:
        """Return whether serving pods use the database of `new`, or this deploy has started it."""
        site = self.site
        if site.prepared:
            return True
        serving = site.serving()
        urls = [name for name in ("DATABASE_URL", "MIGRATION_DATABASE_URL") if site.secrets.get(name)]
        # The check asks by a Job of what serves, with the Secret as it is in the cluster.
        if any(site.delivered.get(name) != site.secrets.get(name) for name in ("DATABASE_URL", *urls)):
            return False
        if serving and unread_keys(urls, site.kept.find(serving[0]).objects(["Job"]), site.secret):
            return False
        return bool(serving) and site.kept.find(serving[0]).database == site.kept.find(new.name).database

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of the release's image as a Job, or, without `database`, in a container here."""
        site, kept = self.site, self.site.kept.find(release.name)
        if not database:
            return site.docker.ask("run", "--rm", "--network", "none", kept.images.place("migrate"), *arguments)
        # Until this deploy has brought anything up, only the settings and network policies of what serves exist, and a
        # check applies nothing.
        place = kept if site.prepared else self._serving()
        manifest = with_image(place.objects(["Job"])[0], kept.images.place("migrate"))
        own = limits(site.env, *arguments)
        job = MigrateJob(site.kubectl, manifest, lambda line: site.progress.live("migrate", line), limits=own)
        return job.run(*arguments)

    def run(self, *command: str) -> str:
        """Run the program as a Job, from the image of the overlay's PostgreSQL."""
        if self.site.managed.database:
            raise SlipwayError(f"{command[0]}: the database is managed by others (DATABASE_URL): run it there")
        release = self._serving()
        job = program_of(release.objects(["Job"])[0], store_image(release.manifests, "postgres"), command)
        return MigrateJob(self.site.kubectl, job, lambda _: None, f"{command[0]}'s Job").do(job, command[0])

    def command(self, release: Artifact, module: str, *arguments: str, stdin: str = "") -> str:
        """Run the program as a Job, from the image of the release's migrations."""
        site, kept = self.site, self.site.kept.find(release.name)
        place = kept if site.prepared else self._serving()
        manifest = with_image(place.objects(["Job"])[0], kept.images.place("migrate"))
        job = command_of(manifest, f"{module.rpartition('.')[2]}-{token_hex(3)}", module, *arguments)
        try:
            return MigrateJob(site.kubectl, job, lambda _: None, f"the Job of {module}").do(job, "command", stdin)
        except Ended as error:
            raise failure(module, error.output) from error
        except Refused as error:
            if " cannot " not in error.said:  # as the API server says who lacks which right
                raise
            raise SlipwayError(
                f"{error.problems[0]}: ask an administrator to bind the Role deployer of k8s/bootstrap to you"
            ) from error

    def _serving(self) -> Release:
        """Return a release that serves. Raise `SlipwayError` if none does."""
        serving = self.site.serving()
        if not serving:
            raise SlipwayError(f"no release serves {self.site.env.name}: `nox -s deploy -- {self.site.env.name}`")
        return self.site.kept.find(serving[0])

    def upgrade(self) -> roles.Upgrade:
        """Return what moves the data into a second StatefulSet."""
        return KubernetesUpgrade(self.site, KubernetesBackups(self.site))

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Rehearse in throwaway containers on this machine, without the cluster."""
        site, problems = self.site, docker_problems(compose=False)
        if problems:
            raise DeployFailed(f"new migrations are tried in containers first: {problems[0]}")
        _, objects = site.artifacts.render(NOTHING_YET)
        settings, name = settings_of(objects), site.project.name
        owner = owner_of(site.secrets.get("POSTGRES_OWNER") or settings.get("POSTGRES_USER", name))
        throwaway = Throwaway(site.project.root, owner, settings.get("POSTGRES_DB", name))
        with throwaway_stand(site.stand, site.docker, site.kept, objects, throwaway) as (stand, token):
            rehearse(stand, new, old, token)
