"""`kill -9` of a deploy at any moment: users keep being served, and the next deploy repairs what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.deploy.breaking import IN_SERVICE, add_migration, wrap_service
from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.runs import Deploy
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

TABLE = "kill -9 of the deploy"


def _nothing(_: Checkout) -> None: ...


@dataclass(frozen=True)
class Moment:
    """A moment to kill a deploy: `reached` tells that it has come, `prepare` makes it come."""

    reached: Callable[[Checkout, Deploy], object]
    prepare: Callable[[Checkout], object] = _nothing


def stage(name: str) -> Callable[[Checkout, Deploy], object]:
    """Return a condition: stage `name` began."""
    return lambda _, deploy: deploy.stage() == name


def new_replicas(count: int) -> Callable[[Checkout, Deploy], object]:
    """Return a condition: `count` replicas of the new release were started."""

    def reached(checkout: Checkout, deploy: Deploy) -> bool:
        found = [_text(path) for path in checkout.home.glob("programs/replica-*.conf")]
        return deploy.stage() == "roll out" and sum(f'"{deploy.release()}"' in text for text in found) == count

    return reached


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # an old replica's, removed since its name was read
        return ""


def _rehearses(_: Checkout, deploy: Deploy) -> bool:
    return deploy.stage() == "check" and any(_command(process)[-2:] == ["-m", "backend"] for process in deploy.family())


def _migrates(checkout: Checkout, deploy: Deploy) -> bool:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    return deploy.stage() == "migrate" and bool(checkout.sql(sleeping))


def _tries(_: Checkout, deploy: Deploy) -> bool:
    return deploy.stage() == "check" and "trying the release" in deploy.said()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


MOMENTS = {
    "build": Moment(stage("build")),
    "check": Moment(stage("check")),
    "check, rehearsal": Moment(
        _rehearses, lambda one: add_migration(one, "a", "ALTER TABLE testing_notes ADD COLUMN a text")),
    "check, trial": Moment(_tries, lambda one: one.append(
        "backend/app.py", f"if not ({IN_SERVICE}):\n    __import__('time').sleep(3)\n")),
    "migrate, baseline": Moment(stage("migrate")),
    "migrate, in SQL": Moment(_migrates, lambda one: add_migration(
        one, "b", "ALTER TABLE testing_notes ADD COLUMN b text", "SELECT pg_sleep(1)")),
    "roll out, first replica": Moment(new_replicas(1)),
    "roll out, second replica": Moment(new_replicas(2)),
    "prove": Moment(stage("prove")),
    "record": Moment(lambda _, deploy: "\nrecord" in deploy.said()),
}  # fmt: skip


@pytest.mark.parametrize("moment", in_gate(MOMENTS, "roll out, first replica"))
def test_a_killed_deploy_is_healed_by_the_next(moment: str, deployed: Checkout, add_row: AddRow) -> None:
    """Whatever it was doing, people are served; then the next one is proved, and nothing of the dead one is left."""
    case, old = MOMENTS[moment], deployed.answering()
    deployed.change(f"killed in {moment}")
    case.prepare(deployed)
    deploy = deployed.start("deploy")
    deploy.wait_for(lambda: case.reached(deployed, deploy), moment)
    new = deploy.release()
    deploy.kill()
    served = deployed.answering()
    assert served <= old | {new}
    assert deployed.status()["lock"] is None

    # A deploy killed after its report was written had proved its release; there is nothing left to do.
    recorded = moment == "record" and (deployed.newest_record() / "report.json").exists()
    healed = deployed.deploy() if recorded else deployed.proved()
    dead = deployed.report(healed.report["number"] - 1)
    assert (dead["verdict"], healed.verdict) == (("proved", "unchanged") if recorded else ("interrupted", "proved"))
    if not recorded:
        known = moment.partition(",")[0].replace("record", "prove")  # the last stage that its record could name
        assert f"died in stage `{known}`" in dead["reason"]
    assert deployed.answering() == {healed.release}
    assert deployed.untidy() == []
    deployed.commit()
    by = "both" if len(served) > 1 else "old" if served == old else "new"
    add_row(TABLE, f"{moment:25} served by {by:5} next deploy {healed.verdict} in {healed.seconds:4.1f} s")


def test_a_killed_roll_back_is_healed_by_the_next_deploy(deployed: Checkout, add_row: AddRow) -> None:
    """Until the mended one replaces it, the broken release may answer, or the edge where it broke all replicas."""
    deployed.change("killed in roll back")
    wrap_service(deployed, "if self.asked >= 50:\n    status = 500")
    deploy = deployed.start("deploy")
    deploy.wait_for_stage("roll back")
    broken = deploy.release()
    deploy.kill()
    served = deployed.request("GET", "/health").status_code  # 503 if the broken release had replaced all
    deployed.restore()
    deployed.change("mended")
    healed = deployed.deploy()
    assert (healed.code, healed.verdict) == (0, "proved"), str(healed)
    by_release = healed.traffic["by_release"]
    assert by_release[healed.release]["failed"] == 0
    assert {name for name, share in by_release.items() if share["failed"]} <= {broken}
    assert "died in stage `roll back`" in deployed.report(healed.report["number"] - 1)["reason"]
    assert deployed.answering() == {healed.release}
    assert deployed.untidy() == []
    add_row(TABLE, f"{'roll back':25} /health {served}     next deploy {healed.verdict} in {healed.seconds:4.1f} s")


def test_a_killed_deploy_is_undone_without_another(deployed: Checkout) -> None:
    """What a pipeline runs after each deploy that did not end well: undone where it was killed, else nothing."""
    old = deployed.answering()
    deployed.change("killed, and undone")
    deploy = deployed.start("deploy")
    deploy.wait_for(lambda: new_replicas(1)(deployed, deploy), "a new replica")
    deploy.kill()
    undone = deployed.run("rollback", "--unfinished")
    assert (undone.code, undone.verdict, {undone.release}) == (0, "proved", old), str(undone)
    assert (deployed.answering(), deployed.untidy()) == (old, [])
    again = deployed.run("rollback", "--unfinished")
    assert (again.code, again.report) == (0, {"environment": "local", "unfinished": False}), str(again)
    assert "no deploy is unfinished" in again.stderr
    deployed.restore()


def test_a_first_deploy_killed_while_its_database_is_made_is_healed(checkout: Checkout) -> None:
    """Half a data folder is no database: the next deploy makes a whole one."""
    deploy = checkout.start("deploy")
    deploy.wait_for(lambda: any(checkout.data.parent.glob("postgres.part/*")), "data folder")
    deploy.kill()
    checkout.proved()
    assert checkout.untidy() == []
