"""promtool, asked to run the tests of `monitoring/tests` on rules that a test may have changed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.project import PROJECT

__all__ = ["ALERTS", "NOTHING", "TESTS", "moved", "passes", "said"]

RULES, TESTS = PROJECT.root / "monitoring/rules", PROJECT.root / "monitoring/tests"
# Each alert, with the name of its file and its rule.
ALERTS: dict[str, tuple[str, dict[str, Any]]] = {
    rule["alert"]: (path.name, rule)
    for path in sorted(RULES.glob("*.yaml"))
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
# What is compared, or multiplies what is: not 0, which is nothing at all, however it is moved.
NUMBER = re.compile(r"(?:(?<=[<>] )|(?<=[<>]= ))(?!0(?![.\d]))\d+(?:\.\d+)?|\b(?!0 )\d+(?:\.\d+)?(?= \* )")
NOTHING = "nothing"
BRISK = {**os.environ, "GOGC": "400"}  # it lives for less than a second: collecting takes a third of that
RECORDED = re.compile(r"\w+(?::\w+)+")
SECONDS = {"s": 1, "m": 60, "h": 3600}
# Of these alerts the threshold is a number of things: 2.7 and 3 are the same to it.
WHOLE = {"ReplicaRestarting"}


def said(test: Path) -> str:
    """What promtool says about the file TEST; nothing where it passes."""
    done = subprocess.run(["promtool", "test", "rules", test], check=False, capture_output=True, text=True, env=BRISK)
    assert done.returncode in (0, 1), done.stderr
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


def passes(alert: str, rules: str, folder: Path) -> bool:
    """Whether the tests of ALERT pass with RULES, the text of its file, all of it in FOLDER."""
    name, _ = ALERTS[alert]
    (folder / "rules").mkdir(exist_ok=True)
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "rules" / name).write_text(rules, encoding="utf-8")
    test = folder / "tests" / f"{alert}.yaml"
    test.write_text((TESTS / test.name).read_text(encoding="utf-8"), encoding="utf-8")
    return not said(test)


def moved(alert: str) -> Iterator[tuple[str, str]]:
    """Yield what is moved of ALERT, by 10 % in both directions, and the text of its file with that.

    Of one that reads recorded rules, `NOTHING` comes first.
    """
    name, rule = ALERTS[alert]
    text = (RULES / name).read_text(encoding="utf-8")
    rules = [one for group in yaml.safe_load(text)["groups"] for one in group["rules"]]
    [mine] = [one for one in rules if one.get("alert") == alert]
    # What does not concern it takes most of the time.
    document = {"groups": [{"name": "moved", "rules": [*_under(mine, rules), mine]}]}
    if document["groups"][0]["rules"] != [mine]:
        yield NOTHING, yaml.safe_dump(document)
    for match in NUMBER.finditer(rule["expr"]):
        for sign in (-1, 1):
            number = float(match[0])
            value = number + sign * (1 if alert in WHOLE else number / 10)
            mine["expr"] = f"{rule['expr'][: match.start()]}{value:g}{rule['expr'][match.end() :]}"
            yield f"{match[0]} at {match.start()} is {value:g}", yaml.safe_dump(document)
    mine["expr"] = rule["expr"]
    if "for" in rule:
        seconds = int(rule["for"][:-1]) * SECONDS[rule["for"][-1]]
        for factor in (0.9, 1.1):
            mine["for"] = f"{round(seconds * factor)}s"
            yield f"for {rule['for']} is {mine['for']}", yaml.safe_dump(document)


def _under(rule: dict[str, Any], rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of RULES that record what RULE reads, or what one of them reads, in their order."""
    wanted, found = [rule], set[str]()
    while wanted:
        names = {*RECORDED.findall(wanted.pop()["expr"])} - found
        wanted += [one for one in rules if one.get("record") in names]
        found |= names
    return [one for one in rules if one.get("record") in found]
