"""The one shot of `doctor`."""

from __future__ import annotations

import subprocess
from typing import Any

import yaml

from pipeline.targets.kubernetes.job import policies_of, question_of, synthetic_of
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
        assert [item["key"] for item in secret_of(job)["items"]] == ["POSTGRES_PASSWORD"]
        assert template["spec"]["securityContext"] == MIGRATE["spec"]["template"]["spec"]["securityContext"]

    def test_knows_one_password_more_for_redis(self) -> None:
        """And the manifest that it was made of stays what it is."""
        job = question_of(MIGRATE, [], redis=True)
        assert [item["key"] for item in secret_of(job)["items"]] == ["POSTGRES_PASSWORD", "REDIS_PASSWORD"]
        assert len(secret_of(MIGRATE)["items"]) == 1


class TestSyntheticOf:
    def test_is_a_migration_that_is_given_ids(self) -> None:
        """With the network's rights and the role of a migration; the shell makes the standard input of them."""
        job = synthetic_of(MIGRATE, ["remove", "--before", "2027-01-15T08:00:00+00:00"], ["a b", "$(c)"])
        container = job["spec"]["template"]["spec"]["containers"][0]
        assert job["metadata"]["name"] == "synthetic"
        assert job["spec"]["template"]["metadata"] == MIGRATE["spec"]["template"]["metadata"]
        assert container["args"] == ["synthetic", "a b", "$(c)"]
        assert "command" not in MIGRATE["spec"]["template"]["spec"]["containers"][0]
        shown = container["command"][2].replace("timeout --kill-after=5 60 python -m backend.synthetic", "cat; echo")
        done = subprocess.run(
            [*container["command"][:2], shown, *container["args"]], capture_output=True, text=True, check=True
        )
        assert done.stdout == "a b\n$(c)\nremove --before 2027-01-15T08:00:00+00:00\n"


def secret_of(job: dict[str, Any]) -> Any:
    return next(one["secret"] for one in job["spec"]["template"]["spec"]["volumes"] if one["name"] == "secrets")


class TestPoliciesOf:
    def test_opens_the_way_to_redis_for_the_question_alone(self) -> None:
        """Not for every migration: both ends name the Job's own label."""
        out, into = policies_of(question_of(MIGRATE, [], redis=True))
        own = {"app.kubernetes.io/name": "doctor"}
        assert labels(out) == labels(into, "ingress", 0, "from", 0) == own
        assert labels(into) == labels(out, "egress", 0, "to", 0) == {"app.kubernetes.io/component": "redis"}
        assert out["spec"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 6379}]
