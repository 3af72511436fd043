"""Since when a secret has had its value, as deploys note it and `doctor` says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.__main__ import parser
from pipeline.deploy.ages import DAYS
from pipeline.rotation.state import State
from tests.pipeline.deploy.world import World, release

VALUES = {"SERVICE_TOKEN": "a-token", "JWT_SECRET_KEY": "a-key", "JWT_SECRET_KEY_PREVIOUS": "another-key"}


def noted(world: World) -> dict[str, Any]:
    """Return what the newest deploy noted."""
    found: dict[str, Any] = world.file(len(world.records), "begun.json")["secrets"]
    return found


def found(world: World, *, days: float = 0) -> list[str]:
    """Return what `doctor` finds about secrets, so many days from now."""
    options = parser("doctor").parse_args(["doctor", "here", "--json"])
    now = datetime.now(UTC) + timedelta(days=days)
    _, document = options.run(
        world.target.project, options, world.progress(), opened=world.target.opened, clock=lambda: now
    )
    return [line for line in document["findings"] if "nox -s rotate" in line or "in use" in line]


@pytest.fixture(name="deployed")
def _deployed(world: World) -> World:
    world.target.secrets.kept = dict(VALUES)
    world.deploy(release("a"))
    return world


def test_a_deploy_notes_no_value(deployed: World) -> None:
    """Part of a hash of each secret in use, and the time."""
    ages = noted(deployed)
    assert sorted(ages) == ["JWT_SECRET_KEY", "SERVICE_TOKEN"]
    assert not [value for value in VALUES.values() if value in str(ages)]


def test_a_secret_keeps_its_time_until_it_changes(deployed: World) -> None:
    """Whatever is deployed meanwhile."""
    before = noted(deployed)
    assert {mark[1] for mark in before.values()} == {deployed.records[0].started}
    path = deployed.records[0].folder / "begun.json"
    path.write_text(path.read_text().replace(before["SERVICE_TOKEN"][1], "2026-01-01T00:00:00+00:00"))
    deployed.target.secrets.kept["SERVICE_TOKEN"] = "a-new-token"
    deployed.deploy(release("b"))
    after = noted(deployed)
    assert after["JWT_SECRET_KEY"][1] == "2026-01-01T00:00:00+00:00"
    assert after["SERVICE_TOKEN"][1] > "2026-01-01T00:00:00+00:00"
    assert after["SERVICE_TOKEN"][0] != before["SERVICE_TOKEN"][0]


def test_doctor_names_what_is_old(deployed: World) -> None:
    """With the command that gives it a new value; from the first day after."""
    assert found(deployed, days=DAYS - 1) == []
    lines = found(deployed, days=DAYS + 1)
    assert sorted(line.split()[0] for line in lines) == ["JWT_SECRET_KEY", "SERVICE_TOKEN"]
    assert lines[0].startswith(f"{lines[0].split()[0]} has been in use for {DAYS + 1} days, since ")
    assert lines[0].endswith(f"or longer: `nox -s rotate -- here {lines[0].split()[0]}`")


def test_an_unknown_age_is_said_once_and_is_no_finding(world: World) -> None:
    """Of what an older version deployed."""
    world.serve(release("a"))
    assert found(world, days=1000) == []
    assert world.said.count("since when the secrets have been in use is not known") == 1


def test_doctor_names_an_unfinished_rotation(deployed: World) -> None:
    """But not while it waits for the time to pass."""
    state = State("JWT_SECRET_KEY", "2026-01-01T00:00:00+00:00")
    state.keep(deployed.target.project.state("here"))
    [line] = found(deployed)
    assert line.startswith("the rotation of JWT_SECRET_KEY since 2026-01-01T00:00:00+00:00 is unfinished: ")
    assert line.endswith("`nox -s rotate -- here JWT_SECRET_KEY --continue`")
    state.not_before = (datetime.now(UTC) + timedelta(minutes=9)).isoformat()
    state.keep(deployed.target.project.state("here"))
    assert found(deployed) == []
    assert len(found(deployed, days=1)) == 1
