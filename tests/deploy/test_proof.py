"""What a team's API really does is proved: parcels that are changed after a write, have no DELETE, and stay hidden."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.deploy.breaking import IN_SERVICE
from tests.deploy.checkout import Checkout
from tests.deploy.parcels import DOMAIN, REQUESTS, SYNTHETIC, replace_the_domain
from tests.notes import replace_requests

pytestmark = pytest.mark.e2e


@pytest.fixture(name="parcels")
def _parcels(own: Checkout) -> Checkout:
    """A clone whose service of parcels is deployed."""
    replace_the_domain(own)
    own.commit()
    own.proved()
    return own


def test_a_write_is_followed_by_its_steps_and_removed_by_a_command(parcels: Checkout) -> None:
    """An update under traffic: the steps are answered by both releases, and no synthetic row is left."""
    own = parcels.request("POST", "/parcels", token=True, json={"number": "AB123456789CD"}).json()
    parcels.patch(DOMAIN, '"""List parcels, newest first."""', '"""List the parcels, newest first."""')
    outcome = parcels.proved()
    assert len(outcome.traffic["by_release"]) == 2
    assert outcome.traffic["writes_acknowledged"] > 10
    assert (outcome.report["remarks"], outcome.report["unremoved"]) == ([], None)
    assert re.search(r"removed [1-9]\d* synthetic rows", outcome.stderr)
    assert parcels.sql(SYNTHETIC) == 0
    assert parcels.request("GET", "/parcels").json()["items"] == [own]
    assert not list(parcels.home.rglob("*writes.jsonl"))


def test_a_step_that_fails_is_named_and_found_in_the_log(parcels: Checkout) -> None:
    """The release is undone, one number says what it cost, and the command in the report finds the request."""
    broken = f'    if {IN_SERVICE}:\n        raise RuntimeError("no way")\n'
    parcels.patch(DOMAIN, '    query = "UPDATE parcels', f'{broken}    query = "UPDATE parcels')
    outcome = parcels.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    toll = outcome.report["rollback"]["until_undone"]
    assert outcome.reason.startswith(f"{toll['failed']} of {toll['sent']} requests failed until it was undone: ")
    assert "(first: PATCH /parcels/" in outcome.reason
    failure = outcome.traffic["failures"]["5xx"]["examples"][0]
    assert failure["request"] == "send it on its way"
    command = outcome.report["log"].replace("REQUEST_ID", failure["request_id"])
    assert command in (parcels.newest_record() / "report.md").read_text(encoding="utf-8")
    found = subprocess.run(["sh", "-c", command], cwd=parcels.root, capture_output=True, text=True, check=True)
    assert "no way" in found.stdout or failure["request_id"] in found.stdout
    assert parcels.sql(SYNTHETIC) == 0


def test_a_list_that_shows_synthetic_rows_is_refused(parcels: Checkout) -> None:
    """All answers are right, and people would see the proof's parcels."""
    parcels.patch(DOMAIN, "WHERE NOT synthetic OR $1 ORDER", "WHERE $1 OR NOT $1 ORDER")
    outcome = parcels.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert outcome.reason.startswith(
        "GET /parcels?limit=5 and GET /parcels?limit=1000 show people what the proof wrote: "
    )
    assert parcels.sql(SYNTHETIC) == 0


def test_a_command_that_fails_is_a_remark_until_it_works(parcels: Checkout) -> None:
    """The verdict stays, `doctor` says it, and the next deploy removes what was left."""
    parcels.patch(DOMAIN, '"DELETE FROM parcels WHERE', '"DELETE FROM nowhere WHERE')
    outcome = parcels.proved()
    why = 'synthetic rows were not removed: relation "nowhere" does not exist'
    assert why in outcome.report["unremoved"]
    assert parcels.sql(SYNTHETIC) > 0
    assert why in parcels.run("doctor").stderr
    parcels.restore()
    outcome = parcels.proved()
    assert outcome.report["unremoved"] is None
    assert parcels.sql(SYNTHETIC) == 0
    assert parcels.run("doctor").code == 0


def test_a_command_that_hangs_is_given_up(parcels: Checkout) -> None:
    """After a minute."""
    parcels.patch(
        "backend/synthetic.py", "    given = _parser()", "    import time; time.sleep(600)\n    given = _parser()"
    )
    outcome = parcels.deploy()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert "did not end within 60 s" in outcome.report["unremoved"]


def test_what_a_killed_deploy_wrote_is_removed_by_the_next(parcels: Checkout) -> None:
    """Nobody knows the ids any more."""
    parcels.change("to be killed")
    deploy = parcels.start("deploy")
    deploy.wait_for_stage("roll out", "prove")
    deploy.kill()
    outcome = parcels.deploy()
    assert (outcome.verdict, outcome.report["unremoved"]) == ("proved", None), str(outcome)
    assert parcels.sql(SYNTHETIC) == 0


def test_a_rollout_that_shares_nothing_is_watched_by_health(parcels: Checkout) -> None:
    """It is said in the report and in the last line which requests did not watch it."""
    table = REQUESTS.read_text(encoding="utf-8")
    replace_requests(
        parcels.root, table.replace("limit=5", "limit=6").replace('path = "/parcels"', 'path = "/parcels?"')
    )
    parcels.change("with other requests")
    outcome = parcels.proved()
    line = "the rollout was watched by /health alone, not by `list parcels`, `hand in a parcel`"
    assert [remark.partition(":")[0] for remark in outcome.report["remarks"]] == [line]
    text = (parcels.newest_record() / "report.md").read_text(encoding="utf-8")
    assert line in text.splitlines()[0].replace("\\", "")
