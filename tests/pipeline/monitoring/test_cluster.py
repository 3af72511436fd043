"""The exporter of a Kubernetes environment: what it asks for, and what it makes of Jobs and their pods."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pipeline.monitoring import cluster
from pipeline.monitoring.cluster import asked, scrape, stories
from pipeline.monitoring.http_exporter import HttpExporter
from tests.certificates import certificates
from tests.played import Answer, serving

BEGAN, ENDED = "2026-11-28T02:17:00Z", "2026-11-28T02:19:30Z"
FACTS = {
    "environment": "kind",
    "deploys": [{"started": "2026-11-28T01:00:00Z", "finished": "2026-11-28T01:02:00Z", "verdict": "proved"}],
    "max_age_seconds": 93600,
}


def job(name: str, kind: str, end: str | None, *args: str) -> dict[str, Any]:
    """A Job of the component KIND, whose condition END is true."""
    conditions = [{"type": "Suspended", "status": "False"}]
    conditions += [{"type": end, "status": "True", "lastTransitionTime": ENDED}] if end else []
    return {
        "metadata": {"name": name, "labels": {cluster.COMPONENT: kind}},
        "spec": {"template": {"spec": {"containers": [{"name": kind, "args": list(args)}]}}},
        "status": {"startTime": BEGAN, "conditions": conditions},
    }


def pod(name: str, **left: str) -> dict[str, Any]:
    """The pod of the Job NAME: what each of its containers LEFT."""
    ended = [{"name": one, "state": {"terminated": {"message": text}}} for one, text in left.items()]
    statuses = {"initContainerStatuses": ended[:-1], "containerStatuses": ended[-1:]}
    return {"metadata": {"labels": {cluster.JOB: name}}, "status": statuses}


class TestStories:
    def test_of_a_backup_is_what_its_pod_left(self) -> None:
        """Its size, and the time of the data that it has."""
        made = {"backup": {"snapshot": "2026-11-28T02:17:05Z", "bytes": 2048}}
        [story] = stories([job("b", "backup", "Complete", "backup")], [pod("b", backup=json.dumps(made))])
        assert story == {
            "kind": "backup", "verdict": "done", "started": BEGAN, "finished": ENDED, "backup": made["backup"]
        }  # fmt: skip

    def test_of_a_backup_whose_pod_is_gone_has_its_time(self) -> None:
        """The Job knows that it was made, and not how large it is."""
        [story] = stories([job("b", "backup", "Complete", "backup")], [])
        assert story["backup"] == {"snapshot": BEGAN}

    def test_of_one_that_failed_has_none(self) -> None:
        """Whatever its container said."""
        [story] = stories([job("b", "backup", "Failed", "backup")], [pod("b", backup="no room")])
        assert (story["verdict"], story["backup"]) == ("failed", None)

    def test_of_a_drill_is_what_was_restored(self) -> None:
        """The restore is an init container of its pod, and the smoke test says something else."""
        restored = json.dumps({"drilled": {"name": "x", "bytes": 2048, "seconds": 7.5}})
        smoke = json.dumps({"sent": 9})
        [story] = stories([job("d", "drill", "Complete")], [pod("d", postgres="", restore=restored, smoke=smoke)])
        assert (story["kind"], story["verdict"], story["rto_seconds"]) == ("drill", "proved", 7.5)
        assert story["backup"]["bytes"] == 2048

    def test_are_not_of_what_runs_or_is_no_backup(self) -> None:
        """The same component lists and restores."""
        running, listing = job("b", "backup", None, "backup"), job("l", "backup", "Complete", "list")
        assert list(stories([running, listing], [])) == []


class TestScrape:
    def told(self, **answers: Any) -> str:
        """The metrics where the API server has ANSWERS, by the end of the path."""
        return scrape(lambda path: next((answers[name] for name in answers if name in path.replace("-", "_")), None))

    def test_is_nothing_before_the_first_deploy(self) -> None:
        """Nobody has said yet which environment this is."""
        assert self.told() == ""

    def test_has_deploys_and_backups_of_both_kinds(self) -> None:
        """The newest whole one counts, whoever made it."""
        by_hand = {
            "kind": "backup", "started": ENDED, "finished": "2026-11-28T03:00:00Z", "verdict": "done",
            "backup": {"snapshot": "2026-11-28T02:59:00Z", "bytes": 4096},
        }  # fmt: skip
        text = self.told(
            deploy_facts={"data": {"facts.json": json.dumps(FACTS)}},
            backup_facts={"data": {"facts.json": json.dumps(by_hand)}},
            jobs={"items": [job("b", "backup", "Complete", "backup")]},
            pods={"items": []},
        )
        samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert samples['slipway_deploy_last_verdict{environment="kind",verdict="proved"}'] == "1"
        assert samples['slipway_backup_max_age_seconds{environment="kind"}'] == "93600"
        assert samples['slipway_backup_last_bytes{environment="kind"}'] == "4096"

    def test_has_the_time_of_a_backup_without_a_size(self) -> None:
        """As of a pod that is gone: its age is what alerts ask for."""
        text = self.told(
            deploy_facts={"data": {"facts.json": json.dumps(FACTS)}},
            jobs={"items": [job("b", "backup", "Complete", "backup")]},
        )
        assert "slipway_backup_last_success_timestamp_seconds" in text
        assert "slipway_backup_last_bytes" not in text


@contextmanager
def exporter(ask: cluster.Ask) -> Iterator[str]:
    """The address of an exporter that asks ASK."""
    server = HttpExporter(partial(scrape, ask), port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestExporter:
    def test_a_cluster_that_does_not_answer_is_an_error(self) -> None:
        """An empty page would look like an environment without deploys."""

        def refused(_: str) -> None:
            raise ConnectionRefusedError("the API server is away")

        with exporter(refused) as url:
            answer = httpx2.get(url)
        assert (answer.status_code, answer.text) == (500, "ConnectionRefusedError: the API server is away\n")

    def test_answers_in_the_format_of_prometheus(self) -> None:
        """And with a 200 before the first deploy."""
        with exporter(lambda _: None) as url:
            answer = httpx2.get(url)
        assert (answer.status_code, answer.text) == (200, "")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


class TestAsked:
    def test_asks_as_its_account_and_trusts_its_cluster_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In its own namespace; what is not there is None, and what is refused an error."""
        seen = []

        def api(_: str, target: str, headers: Any, __: bytes) -> Answer:
            seen.append((target, headers["Authorization"]))
            status = {"absent": 404, "secret": 403}.get(target.rpartition("/")[2], 200)
            return status, {}, b'{"data": {}}'

        authority = certificates(tmp_path, "127.0.0.1")
        for name, text in (("token", "t0"), ("namespace", "shop")):
            (tmp_path / name).write_text(text)
        (tmp_path / "ca.crt").write_bytes(authority.read_bytes())
        monkeypatch.setattr(cluster, "ACCOUNT", tmp_path)
        with serving(api, certificates=tmp_path) as port:
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
            assert asked("api/v1:configmaps/there") == {"data": {}}
            assert asked("api/v1:configmaps/absent") is None
            with pytest.raises(OSError, match="403"):
                asked("api/v1:configmaps/secret")
        assert seen[0] == ("/api/v1/namespaces/shop/configmaps/there", "Bearer t0")
