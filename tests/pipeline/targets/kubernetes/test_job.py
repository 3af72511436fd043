"""The one shot of `doctor`."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.targets.kubernetes.job import command_of, given_to, policies_of, program_of, question_of, superuser_psql
from tests.services import ROOT

MIGRATE = next(one for one in yaml.safe_load_all((ROOT / "k8s/base/migrate.yaml").read_text()) if one["kind"] == "Job")


def labels(policy: dict[str, Any], *path: str | int) -> Any:
    value: Any = policy["spec"]
    for step in path:
        value = value[step]
    return value["podSelector"]["matchLabels"]


class TestQuestionOf:
    def test_is_a_migration_to_the_network(self) -> None:
        """That way leads to the database, also to one outside; and it is restricted like that."""
        job = question_of(MIGRATE, ["-c", "print()", "database"], redis=False)
        template = job["spec"]["template"]
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "migrate"
        assert template["spec"]["containers"][0]["command"] == ["python"]
        assert template["spec"]["containers"][0]["args"] == ["-c", "print()", "database"]
        assert keys_of(job) == keys_of(MIGRATE)
        assert "REDIS_PASSWORD" not in keys_of(job)
        assert template["spec"]["securityContext"] == MIGRATE["spec"]["template"]["spec"]["securityContext"]

    def test_knows_one_password_more_for_redis(self) -> None:
        """And the manifest that it was made of stays what it is."""
        job = question_of(MIGRATE, [], redis=True)
        assert keys_of(job) == [*keys_of(MIGRATE), "REDIS_PASSWORD"]

    def test_knows_it_also_from_the_manifest_of_an_earlier_release(self) -> None:
        """Whose volume is no projected one."""
        earlier = json.loads(json.dumps(MIGRATE))
        items = [{"key": "POSTGRES_PASSWORD", "path": "POSTGRES_PASSWORD"}]
        volume = {"name": "secrets", "secret": {"secretName": "shop-secrets", "items": items}}
        earlier["spec"]["template"]["spec"]["volumes"] = [volume]
        job = question_of(earlier, [], redis=True)
        added = job["spec"]["template"]["spec"]["volumes"][0]["secret"]["items"]
        assert [item["key"] for item in added] == ["POSTGRES_PASSWORD", "REDIS_PASSWORD"]


class TestCommandOf:
    JOB = command_of(MIGRATE, "accounts-1", "backend.accounts", "add", "$(c)")

    def test_is_a_migration_that_is_given_its_input_as_a_file(self, tmp_path: Path) -> None:
        """With the network's rights and the role of a migration; what the manifest was is left alone."""
        spec = self.JOB["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert self.JOB["metadata"]["name"] == "accounts-1"
        assert self.JOB["spec"]["template"]["metadata"] == MIGRATE["spec"]["template"]["metadata"]
        assert spec["securityContext"] == MIGRATE["spec"]["template"]["spec"]["securityContext"]
        assert "given" not in json.dumps(MIGRATE)
        (tmp_path / "given").write_text("a hash\n")
        script = container["command"][2].replace("timeout --kill-after=5 60 python -m backend.accounts", "cat; echo")
        command = [*container["command"][:2], script.replace("/run/given", str(tmp_path))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "a hash\nadd $(c)\n"

    def test_mounts_that_file_for_its_own_user_alone(self) -> None:
        """From a Secret of the Job's own name."""
        spec = self.JOB["spec"]["template"]["spec"]
        mount = spec["containers"][0]["volumeMounts"][-1]
        assert mount == {"name": "given", "mountPath": "/run/given", "readOnly": True}
        assert spec["volumes"][-1] == {"name": "given", "secret": {"secretName": "accounts-1", "defaultMode": 0o440}}

    def test_leaves_nothing_for_long_where_nobody_removes_it(self) -> None:
        """Whoever waited for it may have been killed."""
        spec = self.JOB["spec"]
        assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (180, 60)


class TestGivenTo:
    def test_is_a_secret_that_goes_with_its_job(self) -> None:
        """Kubernetes removes what a removed Job owned."""
        made = {**MIGRATE, "metadata": {**MIGRATE["metadata"], "name": "accounts-1", "uid": "u"}}
        secret = given_to(made, "a hash")
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "accounts-1", "uid": "u"}
        assert secret["metadata"]["ownerReferences"] == [owner]
        assert secret["metadata"]["labels"] == MIGRATE["metadata"]["labels"]
        assert base64.b64decode(secret["data"]["given"]) == b"a hash"


def keys_of(job: dict[str, Any]) -> list[str]:
    """The keys of the Secret that the Job mounts."""
    volumes = job["spec"]["template"]["spec"]["volumes"]
    volume = next(one["projected"] for one in volumes if one["name"] == "secrets")
    return [item["key"] for source in volume["sources"] for item in source["secret"]["items"]]


class TestPoliciesOf:
    def test_opens_the_way_to_redis_for_the_question_alone(self) -> None:
        """Not for every migration: both ends name the Job's own label."""
        out, into = policies_of(question_of(MIGRATE, [], redis=True))
        own = {"app.kubernetes.io/name": "doctor"}
        assert labels(out) == labels(into, "ingress", 0, "from", 0) == own
        assert labels(into) == labels(out, "egress", 0, "to", 0) == {"app.kubernetes.io/component": "redis"}
        assert out["spec"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 6379}]


@pytest.mark.parametrize("owner", [{}, {"POSTGRES_OWNER": "shop"}])
def test_a_program_is_run_by_who_migrates(tmp_path: Path, owner: dict[str, str]) -> None:
    """The owner where the Secret names one, else who serves."""
    job = program_of(MIGRATE, "postgres:18", ["printenv", "PGUSER", "PGPASSWORD"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for name in ("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD"):
        (tmp_path / name).write_text(f"in-{name}")
    shell, option, script = container["command"]
    settings = {"PATH": "/usr/bin:/bin", "POSTGRES_HOST": "db", "POSTGRES_DB": "shop", "POSTGRES_USER": "shop-app-1"}
    command = [shell, option, script.replace("/run/secrets", str(tmp_path)), *container["args"]]
    done = subprocess.run(command, env={**settings, **owner}, capture_output=True, text=True, check=True)
    wanted = ["shop", "in-POSTGRES_OWNER_PASSWORD"] if owner else ["shop-app-1", "in-POSTGRES_PASSWORD"]
    assert done.stdout.split() == wanted


class TestSuperuserPsql:
    JOB = superuser_psql(MIGRATE, "postgres:18-trixie", "rights-1")

    def test_connects_as_the_superuser_by_the_settings_of_the_migrations(self, tmp_path: Path) -> None:
        """With the password from its file, and the SQL as its standard input: neither is in the manifest."""
        (container,) = self.JOB["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "postgres:18-trixie"
        shell, option, script = container["command"]
        (tmp_path / "given").write_text("SELECT 1;\n")
        (tmp_path / "POSTGRES_SUPERUSER_PASSWORD").write_text("of-the-superuser")
        (tmp_path / "psql").write_text("#!/bin/sh\ncat\necho $PGHOST $PGPORT $PGDATABASE $PGUSER $PGPASSWORD $*\n")
        (tmp_path / "psql").chmod(0o755)
        script = script.replace("/run/given", str(tmp_path)).replace("/run/secrets", str(tmp_path))
        settings = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "POSTGRES_HOST": "db",
            "POSTGRES_DB": "shop",
            "POSTGRES_USER": "x",
        }
        done = subprocess.run([shell, option, script], env=settings, capture_output=True, text=True, check=True)
        statement, said = done.stdout.splitlines()
        assert statement == "SELECT 1;"
        assert said.startswith("db 5432 shop postgres of-the-superuser --no-psqlrc")

    def test_mounts_one_more_key_than_a_migration(self) -> None:
        """The superuser's password, which no other Job has."""
        assert set(keys_of(self.JOB)) - set(keys_of(MIGRATE)) == {"POSTGRES_SUPERUSER_PASSWORD"}
