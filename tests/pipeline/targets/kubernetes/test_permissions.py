"""What a deploy may do, by the rules that the API server says."""

from __future__ import annotations

import pytest

from pipeline.targets.kubernetes.permissions import missing_access, needed_access, resources_of
from tests.services import ROOT

RESOURCES = resources_of(ROOT)
ADMIN = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]


def rule(group: str, resource: str, *verbs: str) -> dict[str, list[str]]:
    """A rule that allows VERBS."""
    return {"verbs": list(verbs), "apiGroups": [group], "resources": [resource]}


class TestNeededAccess:
    def test_names_no_kind_that_the_overlay_has_not(self) -> None:
        """A team without a Gateway needs no permission for one."""
        assert not [need for need in needed_access(["Deployment"], RESOURCES) if need[2] in ("gateways", "ingresses")]

    def test_applies_what_the_overlay_has(self) -> None:
        """Server-side apply reads, creates and patches; what a release no longer has is deleted."""
        needs = needed_access(["HTTPRoute"], RESOURCES)
        assert {verb for verb, _, resource in needs if resource == "httproutes"} == {"get", "create", "patch", "delete"}


class TestMissingAccess:
    def test_is_nothing_for_an_administrator(self) -> None:
        """A star allows everything."""
        assert missing_access(needed_access(["Deployment", "Secret"], RESOURCES), ADMIN) == []

    @pytest.mark.parametrize(
        "rules",
        [
            [],
            [rule("apps", "deployments", "get", "list")],
            [rule("", "deployments", "*")],
            [rule("apps", "replicasets", "*")],
        ],
    )
    def test_is_what_no_rule_allows(self, rules: list[dict[str, list[str]]]) -> None:
        """Verb, group and resource must be of one rule."""
        assert missing_access([("patch", "apps", "deployments")], rules) == [("patch", "apps", "deployments")]

    def test_may_be_allowed_by_another_rule_each(self) -> None:
        """Rules add up."""
        rules = [rule("apps", "deployments", "get"), rule("apps", "deployments", "patch")]
        assert missing_access([("get", "apps", "deployments"), ("patch", "apps", "deployments")], rules) == []
