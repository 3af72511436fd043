"""A deploy that listens: a real Prometheus scrapes the replicas, and its alert brings the release before back."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from pipeline.config.project import load_project
from pipeline.deploy.healing import JOURNAL, WATCH
from pipeline.releases.records import Records
from pipeline.system.progress import Progress
from pipeline.targets import open_target
from tests.deploy.breaking import fail_later
from tests.deploy.checkout import Checkout
from tests.deploy.machine import free_port, wait_until
from tests.tools import need

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.needs("prometheus"),
    # Of a replica that is gone, the client of HTTP leaves a socket that it could not connect to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
LATER, SOON = 120, 40  # seconds after a replica's first request: the proof is over by then
LONGEST = 240  # seconds, from the first failure until the release before serves again
RATE = 100  # of the proof: ten a second are left for the watch
CONFIG = """
global: {{scrape_interval: 5s, evaluation_interval: 5s}}
rule_files: ["{rules}/*.yaml"]
scrape_configs:
  - job_name: backend
    file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]
"""


@contextmanager
def beside(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` again and again while the block runs."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(1):
            work()

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def prometheus(checkout: Checkout, folder: Path) -> Iterator[str]:
    """Run one that scrapes the replicas of `checkout`, whichever they are; yield its address."""
    targets, config, address = folder / "targets.json", folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
    config.write_text(CONFIG.format(rules=ROOT / "monitoring/rules", targets=targets))
    project = load_project(checkout.root)
    target = open_target(project, project.environment(checkout.environment), Progress())

    def find() -> None:
        found = [one.metrics or "" for one in target.fleet.running().replicas]
        written = folder / "new.json"
        written.write_text(json.dumps([{"targets": [one.split("/")[2] for one in found]}]))
        written.rename(targets)

    find()
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([need("prometheus"), *options], stdout=log, stderr=log)
    try:
        wait_until(lambda: _ready(address), (folder / "prometheus.log").read_text())
        with beside(find):
            yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _ready(address: str) -> bool:
    try:
        return httpx2.get(f"http://{address}/-/ready", trust_env=False).status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False


@pytest.fixture(name="watched")
def _watched(make_checkout: Callable[..., Checkout], tmp_path: Path) -> Iterator[Checkout]:
    """Yield a clone whose first release serves, and which watches the next ones for ten minutes."""
    one = make_checkout(rate=RATE)
    one.proved()
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with prometheus(one, folder) as address:
        one.configure(watch_minutes=10, prometheus=f'"{address}"')
        yield one


def test_a_release_that_fails_later_is_taken_back(watched: Checkout) -> None:
    """One request in a hundred, at ten a second, from two minutes after its start on."""
    [old] = watched.answering()
    fail_later(watched, LATER, each=100)
    began = time.monotonic()
    outcome = watched.start("deploy").finish(LATER + LONGEST + 120)
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert outcome.reason.startswith("ReleaseFailing fired"), str(outcome)
    assert watched.answering() == {old}
    assert time.monotonic() - began - LATER < LONGEST, str(outcome)
    watch, back = outcome.report["watch"], outcome.report["rollback"]
    assert (watch["outcome"], watch["alert"], back["release"], back["verdict"]) == (
        *("fired", "ReleaseFailing", old, "proved"),
    )
    assert outcome.report["traffic"]["failed"] == 0, "it was right in the proof"
    assert watched.synthetic_rows() == 0
    assert [one.verdict for one in Records(watched.records).all()] == ["proved", "rolled_back", "proved"]
    assert watched.untidy() == []


def test_a_release_that_fails_seldom_stays(watched: Checkout) -> None:
    """One request in a thousand is within the budget."""
    watched.configure(watch_minutes=5)
    fail_later(watched, SOON, each=1000)
    outcome = watched.start("deploy").finish(600)
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert outcome.report["watch"]["outcome"] == "quiet", str(outcome)
    assert outcome.report["watch"]["requests"] > 1000, str(outcome)
    assert watched.answering() == {outcome.release}
    assert watched.synthetic_rows() == 0


def test_without_the_watch_it_stays(watched: Checkout) -> None:
    """And `watch`, asked later, watches it; killed, it leaves nothing that the next deploy does not remove."""
    watched.configure(watch_minutes=0)
    fail_later(watched, SOON, each=20)
    outcome = watched.proved()
    assert outcome.report["watch"] is None
    watched.configure(watch_minutes=10)
    watching = watched.start("watch")
    journal = watched.newest_record() / JOURNAL.format(WATCH)
    watching.wait_for(lambda: watched.synthetic_rows() > 0, "a write of the watch")  # it removes them as it goes
    assert watched.status()["lock"] is None
    watching.kill()
    # What sends its traffic notices that, and removes what it wrote; where it cannot, the journal has it.
    assert watched.synthetic_rows() == 0 or journal.exists()
    watched.configure(watch_minutes=0)
    watched.restore()
    sound = watched.deploy()
    assert (sound.code, sound.verdict) == (0, "proved"), str(sound)
    assert not journal.exists()
    assert watched.synthetic_rows() == 0
