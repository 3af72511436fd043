"""Whether an image runs on the nodes."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.targets.kubernetes.platforms import foreign, node_platforms

AMD, ARM = "linux/amd64", "linux/arm64"


def node(architecture: str, *, cordoned: bool = False) -> dict[str, Any]:
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": architecture}
    return {"metadata": {"labels": labels}, "spec": {"unschedulable": True} if cordoned else {}}


class TestNodePlatforms:
    def test_are_those_of_nodes_that_take_pods(self) -> None:
        """One that is drained runs nothing new."""
        assert node_platforms([node("amd64"), node("amd64"), node("arm64", cordoned=True)]) == {AMD}


class TestForeign:
    @pytest.mark.parametrize(
        ("image", "nodes", "serving"),
        [
            ({AMD}, {AMD}, set()),
            ({AMD, ARM}, {ARM}, {AMD}),
            ({ARM}, {AMD, ARM}, {AMD}),
            ({ARM}, set(), {AMD, ARM}),  # nobody knows on which of them it runs
            ({ARM}, set(), set()),
            (set(), {AMD}, {AMD}),  # it does not say
        ],
    )
    def test_is_silent_where_a_node_may_run_it(self, image: set[str], nodes: set[str], serving: set[str]) -> None:
        """Or where nobody can know: the rollout will say so."""
        assert foreign(frozenset(image), frozenset(nodes), frozenset(serving)) is None

    def test_names_both_and_the_fix(self) -> None:
        """By the nodes, and where those are not to be known by what serves."""
        said = foreign(frozenset({ARM}), frozenset({AMD}), frozenset())
        assert said is not None
        assert said.startswith("its image is for linux/arm64, and the nodes are linux/amd64: build and push it for")
        said = foreign(frozenset({ARM}), frozenset(), frozenset({AMD}))
        assert said is not None
        assert "and the pods that serve run on linux/amd64" in said
