"""PostgreSQL and Redis of the overlay are changed like a release: tried first, and put back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

TABLE = "kind: a change of the stores"
POSTGRES, REDIS = (f"k8s/components/{name}/{name}.yaml" for name in ("postgres", "redis"))
REFUSED = {
    "postgres, a bad argument": (POSTGRES, "shared_buffers=128MB", "shared_buffers=12bananas", "12bananas"),
    "redis, a bad argument": (REDIS, "args: [redis-server, ", "args: [redis-server, --bogus, '1', ", "loadmodule"),
    "postgres, a field that cannot change": (
        POSTGRES,
        "  serviceName: postgres\n",
        "  serviceName: postgres\n  podManagementPolicy: Parallel\n",
        "podManagementPolicy",
    ),
}


def store_pods() -> dict[str, str]:
    """The pods of the stores, each with its uid."""
    found = json.loads(
        kubectl("get", "pods", "--selector=app.kubernetes.io/component in (postgres, redis)", "--output=json")
    )
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found["items"]}


def arguments(store: str) -> list[str]:
    """What a store's pod runs."""
    path = "--output=jsonpath={.spec.containers[0].args}"
    words: list[str] = json.loads(kubectl("get", "pod", f"{store}-0", path))
    return words


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_run_is_refused_before_anything_is_touched(
    name: str, sound: KindCheckout, add_row: AddRow
) -> None:
    """A pod beside shows it; the ones that serve stay, and no visitor is turned away."""
    path, text, other, says = REFUSED[name]
    sound.patch(path, text, other)
    before, old = store_pods(), sound.answering()
    with Visitors(sound.url, f"{NOTES}?limit=1") as seen:
        outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert says in outcome.reason, str(outcome)
    assert (store_pods(), sound.answering()) == (before, old)
    assert [visit.status for visit in seen.visits if visit.status != 200] == []
    assert sound.untidy() == []
    assert kubectl("get", "jobs", "--output=name") == ""
    add_row(TABLE, f"{name:38} refused in {outcome.seconds:4.1f} s, 0 of {len(seen.visits)} visits failed")


def test_what_fails_with_its_data_is_put_back(sound: KindCheckout, add_row: AddRow) -> None:
    """Its broken pod is deleted, which Kubernetes would wait for, and what served before serves again."""
    old, before = sound.answering(), arguments("redis")
    sound.patch(
        REDIS,
        "args: [redis-server, ",
        "args: [sh, -c, 'test ! -e /data/appendonlydir && exec \"$@\"', sh, redis-server, ",
    )
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "StatefulSet redis crashed 3 times" in outcome.reason, str(outcome)
    assert outcome.report["rollback"]["verdict"] == "proved", str(outcome)
    assert (arguments("redis"), sound.answering()) == (before, old)
    assert sound.untidy() == []
    add_row(TABLE, f"{'redis, fails with its data':38} put back in {outcome.seconds:4.1f} s")


def test_a_broken_pod_of_another_revision_is_replaced_by_a_deploy(sound: KindCheckout, add_row: AddRow) -> None:
    """Somebody's hand broke it, and the file is right: a deploy mends it, though Kubernetes alone would not."""
    before = arguments("redis")
    path = "/spec/template/spec/containers/0/args/0"
    patch: list[dict[str, Any]] = [{"op": "replace", "path": path, "value": "/nonexistent"}]
    kubectl("patch", "statefulset", "redis", "--type=json", f"--patch={json.dumps(patch)}")
    wait_until(lambda: arguments("redis")[0] == "/nonexistent", "the pod is not replaced", 60)
    outcome = sound.deploy()
    assert outcome.code == 0, str(outcome)
    assert arguments("redis") == before
    assert sound.untidy() == []
    add_row(TABLE, f"{'redis, broken by hand':38} mended in {outcome.seconds:4.1f} s")


def test_a_redis_that_cannot_read_its_log_stops_no_deploy(sound: KindCheckout, add_row: AddRow) -> None:
    """It is a cache: the service does without, the deploy says so and how to start it empty, and that helps."""
    spoil = "for one in /data/appendonlydir/*.incr.aof; do echo rubbish >>$one; done"
    kubectl("exec", "redis-0", "--", "sh", "-c", spoil)
    kubectl("delete", "pod", "redis-0")
    sound.change("without a cache")
    outcome = sound.proved()
    assert "Nothing is cached until it runs. If its data is broken, start it empty: `kubectl" in outcome.stderr
    kubectl("delete", "pvc,pod", "-l", "app.kubernetes.io/name=redis")
    wait_until(lambda: kubectl("get", "pod", "redis-0", "--ignore-not-found", "--output=name"), "no new pod", 60)
    again = sound.deploy()
    assert (again.code, "Nothing is cached" in again.stderr) == (0, False), str(again)
    add_row(TABLE, f"{'redis, a log that it cannot read':38} proved in {outcome.seconds:4.1f} s, without a cache")
