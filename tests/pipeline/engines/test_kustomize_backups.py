"""The rules of component `backup` in k8s/, asked of what kustomize makes of it."""

from __future__ import annotations

import pytest

from pipeline.config.managed import NO_REDIS
from pipeline.engines.kustomize import unfilled
from pipeline.targets.kubernetes.rollout.observation import quantity
from pipeline.targets.kubernetes.trial import selects
from tests.pipeline.engines.rendered import OVERLAYS, bootstrap, component, containers, one, overlay
from tests.project import NAME


@pytest.mark.parametrize("name", ["kind", "staging"])
def test_a_backup_is_given_what_a_migration_is(name: str) -> None:
    """Who logs in as the owner, and with what: whatever a migration gets of that, a backup gets, too."""
    migrate = one(overlay(name), "Job", "migrate")["spec"]["template"]["spec"]
    backup = one(overlay(name), "CronJob", "backup")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (its,), (own,) = migrate["containers"], backup["containers"]
    assert [each for each in its["env"] if each not in own["env"]] == []
    assert its["envFrom"][0] in own["envFrom"]
    mounted = [
        [each["secret"] for volume in spec["volumes"] if volume["name"] == "secrets"
         for each in volume["projected"]["sources"]]
        for spec in (migrate, backup)
    ]  # fmt: skip
    assert [each for each in mounted[0] if each not in mounted[1]] == []
    more = {item["key"] for each in mounted[1] if each not in mounted[0] for item in each["items"]}
    assert more <= {"BACKUP_ADDRESS_SECRET", "POSTGRES_OWNER_PASSWORD"}, "nothing that decrypts, no superuser"


@pytest.mark.parametrize("name", ["backup", "drill"])
def test_what_the_clock_starts_does_not_pile_up(name: str) -> None:
    """Nor is it lost because the control plane was away at the minute."""
    spec = one(overlay("kind"), "CronJob", name)["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
    assert spec["startingDeadlineSeconds"] >= 3600
    assert 1 <= spec["successfulJobsHistoryLimit"] <= 3 <= spec["failedJobsHistoryLimit"]
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] <= 24 * 3600


def test_a_drill_reaches_nothing_that_serves() -> None:
    """No policy but those that forbid; its stores are in its own pod, whatever the Secret names."""
    spec = one(overlay("kind"), "CronJob", "drill")["spec"]["jobTemplate"]["spec"]["template"]
    for policy in (each["spec"] for each in overlay("kind") if each["kind"] == "NetworkPolicy"):
        assert not policy["podSelector"] or not selects(policy["podSelector"], spec["metadata"]["labels"])
    postgres, *ours = containers(spec["spec"])
    assert "listen_addresses=127.0.0.1" in postgres["args"]
    values = {each["name"]: {entry["name"]: entry.get("value") for entry in each.get("env", ())} for each in ours}
    assert values["restore"]["POSTGRES_HOST"] == "127.0.0.1"
    assert values["backend"]["DATABASE_URL"] == "postgresql://$(POSTGRES_USER)@127.0.0.1:5432/$(POSTGRES_DB)"
    assert values["backend"]["REDIS_URL"] == NO_REDIS
    [keys] = [each["projected"]["sources"] for each in spec["spec"]["volumes"] if each["name"] == "keys"]
    assert {item["key"] for each in keys for item in each["secret"]["items"]} == {
        "BACKUP_IDENTITY", "BACKUP_ADDRESS_SECRET",
    }  # fmt: skip
    (migrate,) = one(overlay("kind"), "Job", "migrate")["spec"]["template"]["spec"]["containers"]
    assert {each["name"] for each in migrate["env"]} <= values["restore"].keys(), "who owns the tables"
    service = one(overlay("kind"), "Deployment", "backend")["spec"]["template"]["spec"]
    given = {each["name"]: each["projected"]["sources"] for each in (*service["volumes"], *spec["spec"]["volumes"])
             if "projected" in each}  # fmt: skip
    [theirs] = [each["projected"]["sources"] for each in service["volumes"] if each["name"] == "secrets"]
    assert given["secrets"] == theirs


def test_a_drill_from_off_the_host_needs_no_claim() -> None:
    """The node of the claim may be what is gone."""
    spec = one(component("backup-off-host"), "CronJob", "drill")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert not [each for each in spec["volumes"] if "persistentVolumeClaim" in each]
    here = one(component("backup"), "CronJob", "drill")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert [each["persistentVolumeClaim"] for each in here["volumes"] if "persistentVolumeClaim" in each] == [
        {"claimName": "backups"}
    ]
    policies = [each for each in component("backup-off-host") if each["kind"] == "NetworkPolicy"]
    [out] = [each for each in policies if "ipBlock" in str(each)]
    assert "put your own into the overlay" in "".join(unfilled([out]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_quota_has_room_for_each_claim_and_one_more(name: str) -> None:
    """A new major of PostgreSQL needs a claim beside the old one."""
    documents = overlay(name) if "backup" in str(overlay(name)) else [*overlay(name), *component("backup")]
    hard = one(bootstrap(name), "ResourceQuota", NAME)["spec"]["hard"]
    sets = [each["spec"].get("volumeClaimTemplates", ()) for each in documents if each["kind"] == "StatefulSet"]
    claims = [each["spec"] for each in documents if each["kind"] == "PersistentVolumeClaim"]
    claims += [claim["spec"] for templates in sets for claim in templates]
    stored = [quantity(each["resources"]["requests"]["storage"]) for each in claims]
    assert len(claims) + 1 <= int(hard["persistentvolumeclaims"])
    assert sum(stored) + quantity("10Gi" if name != "kind" else "1Gi") <= quantity(hard["requests.storage"])
    largest = one(bootstrap(name), "LimitRange", NAME)["spec"]["limits"][1]["max"]["storage"]
    assert max(stored) <= quantity(largest)
