"""The backups of a Kubernetes environment: Jobs made of the templates of component `backup`'s CronJobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.engines.kubectl import Object, Refused, name_of
from pipeline.errors import DeployFailed, SlipwayError, UsageError
from pipeline.monitoring.cluster import BACKUP_FACTS
from pipeline.releases.model import Artifact
from pipeline.system.protection import best_effort
from pipeline.system.text import answer_in, now
from pipeline.targets.common import roles
from pipeline.targets.common.backups import IDENTITY, SUPERUSER, Needs, answer_of, needs_of
from pipeline.targets.common.migrating import Limits
from pipeline.targets.kubernetes.drill import DRILL, newest_drill, run_drill
from pipeline.targets.kubernetes.followed import FollowedJob
from pipeline.targets.kubernetes.job import GIVEN, NAME_LABEL, Ended, add_secret, job_from, pointed_at
from pipeline.targets.kubernetes.records import facts_object
from pipeline.targets.kubernetes.release import Release
from pipeline.targets.kubernetes.site import Site
from pipeline.targets.kubernetes.store import find_store

__all__ = ["BACKUP", "KubernetesBackups", "backup_job"]

BACKUP = "backup"  # its CronJob
SPARE_SECONDS = 120  # the pipeline gives up first, and says why
KEPT_SECONDS = 3600  # an ended Job that nobody removed, because whoever made it was killed
STDIN = f'exec "$0" "$@" < /run/{GIVEN}/{GIVEN}'


class KubernetesBackups(roles.Backups):
    """See `pipeline.targets.common.roles.Backups`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def run(
        self,
        verb: str,
        *arguments: str,
        told: Callable[[str], None],
        given: Mapping[str, Any] | None = None,
        seconds: float = roles.LONGEST,
        server: str | None = None,
    ) -> dict[str, Any]:
        """Run it as a Job, with the image, the claim and the network of the scheduled backup.

        Another `server` than the one that serves has the superuser's password of that one.
        """
        release = self.release()
        cron, name = self._cronjob(release, BACKUP), f"{BACKUP}-{verb}-{token_hex(3)}"
        needs = needs_of(verb)
        needs = replace(needs, superuser=needs.superuser or server is not None)
        if find_store(release.manifests) is None:  # a database outside: nobody has its superuser's password
            needs = replace(needs, superuser=False)
        job = backup_job(cron, name, (verb, *arguments), seconds, needs, given=given is not None)
        if server:
            pointed_at(job["spec"]["template"]["spec"]["containers"][0], server)
        followed = FollowedJob(self.site.kubectl, job, told, f"the Job {name}", Limits({}, seconds))
        began = now()
        try:
            said, code = followed.do(job, verb, None if given is None else json.dumps(given)), 0
        except Ended as error:
            said, code = error.output, error.code
        except Refused as error:
            raise self._refusal(error) from error
        if verb == BACKUP:  # its Job is gone; those of the clock stay, and say it themselves
            self._leave_facts(began, answer_in(said, BACKUP) if code == 0 else None)
        return answer_of(code, said, said)

    def _leave_facts(self, started: str, made: Mapping[str, Any] | None) -> None:
        """Tell the exporter how a backup on demand ended: `made`, or None where it failed."""
        with best_effort():
            found = {name: made[name] for name in ("snapshot", "bytes")} if made is not None else None
            ended = {"finished": now(), "verdict": "failed" if made is None else "done", "backup": found}
            self.site.kubectl.apply([facts_object(BACKUP_FACTS, {"kind": BACKUP, "started": started, **ended})])

    def fetch(self, name: str, folder: Path, told: Callable[[str], None]) -> None:
        """Refuse, and say how to get them: a deployer enters no pod, and what a pod logs is kept by others."""
        del folder
        found = [one for one in self.run("list", told=told)["backups"] if one["name"] == name]
        place = "take them from off the host" if found and found[0].get("away") else "they are only in claim backups"
        raise UsageError(
            f"the files of {name} do not come this way, as a deployer may enter no pod: {place}"
            " (docs/7-kubernetes.md, The files of a backup)"
        )

    def drill(self, name: str, serving: Artifact, told: Callable[[str], None]) -> dict[str, Any]:
        """Run the CronJob's own pod once, for the backup `name`."""
        cron = self._cronjob(self.site.kept.find(serving.name), DRILL)
        try:
            done = run_drill(self.site.kubectl, cron, f"{DRILL}-{token_hex(3)}", name, told)
        except Refused as error:
            raise self._refusal(error) from error
        if done.problem:
            raise DeployFailed(done.problem)
        return done.facts()

    def drilled(self) -> Mapping[str, Any] | None:
        """Return what the status of the newest drill's pod says."""
        found = newest_drill(self.site.kubectl)
        return found.report(self.site.env.name) if found else None

    def hint(self) -> str:
        """Name the schedules of the component, or the component."""
        release = self.release()
        crons = [one for one in release.objects(["CronJob"]) if name_of(one) in (BACKUP, DRILL)]
        if not crons:
            return self._absent(BACKUP)
        when = [f"{name_of(one)} `{one['spec']['schedule']}` ({one['spec'].get('timeZone')})" for one in crons]
        return f"CronJobs of component backup: {', '.join(when)}; {self.site.env.overlay} may patch `schedule`"

    def release(self) -> Release:
        """Return a release that serves, else the one that was proved last. Raise `UsageError` if there is none."""
        site = self.site
        proved = site.records.serving()
        for name in (*site.serving(), (proved.release or "") if proved else ""):
            if site.kept.knows(name):
                return site.kept.find(name)
        raise UsageError(f"no release was proved on {site.env.name} yet: `nox -s deploy -- {site.env.name}`")

    def _cronjob(self, release: Release, name: str) -> Object:
        """Return the CronJob `name` of `release`. Raise `UsageError` where it has none."""
        for one in release.objects(["CronJob"]):
            if name_of(one) == name:
                return one
        raise UsageError(self._absent(name))

    def _absent(self, name: str) -> str:
        overlay, env = self.site.env.overlay, self.site.env.name
        return (
            f"the release that serves {env} has no CronJob {name}: add `../../components/backup` to the components of"
            f" {overlay}/kustomization.yaml, then `nox -s deploy -- {env}`"
        )

    def _refusal(self, error: Refused) -> SlipwayError:
        if " cannot " not in error.said:  # as the API server says who lacks which right
            return error
        return SlipwayError(f"{error.problems[0]}: ask an administrator to apply k8s/bootstrap, once")


def backup_job(
    cron: Object, name: str, arguments: tuple[str, ...], seconds: float, needs: Needs, *, given: bool = False
) -> Object:
    """Return the Job `name` that runs the program of `cron` with other `arguments`, for `seconds` at most.

    `given`: its standard input is the Secret that `given_to` makes.
    """
    job = job_from(cron, name)
    job["spec"] |= {
        "backoffLimit": 0,
        "activeDeadlineSeconds": int(seconds) + SPARE_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
    }
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    container["args"] = list(arguments)
    if needs.superuser:
        add_secret(job, SUPERUSER_PASSWORD, optional=True)
        container["env"].append({"name": "POSTGRES_SUPERUSER", "value": SUPERUSER})
    if needs.identity:
        add_secret(job, IDENTITY, optional=True)
    if needs.redis:
        add_secret(job, "REDIS_PASSWORD", optional=True)
        add_secret(job, "REDIS_URL", optional=True)
        job["spec"]["template"]["metadata"]["labels"][NAME_LABEL] = arguments[0]  # opens the way to Redis
    if given:
        container["args"] = [*container["command"], *arguments]
        container["command"] = ["sh", "-ec", STDIN]
        container["volumeMounts"].append({"name": GIVEN, "mountPath": f"/run/{GIVEN}", "readOnly": True})
        spec["volumes"].append({"name": GIVEN, "secret": {"secretName": name, "defaultMode": 0o440}})
    return job
