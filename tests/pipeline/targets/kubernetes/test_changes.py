"""What a dry run says, in words."""

from __future__ import annotations

from typing import Any

from pipeline.targets.kubernetes.changes import changes, conflicts, strangers

# kubectl 1.37 on a Deployment whose image somebody had set by `kubectl edit`.
CONFLICT = """\
error: Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.template.spec.containers[name="backend"].image
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
"""  # noqa: E501 - as kubectl says it


def deployment(image: str, **metadata: Any) -> dict[str, Any]:
    """A Deployment of IMAGE."""
    containers = [{"name": "sidecar", "image": "s"}, {"name": "backend", "image": image}]
    return {
        "kind": "Deployment",
        "metadata": {"name": "backend", **metadata},
        "spec": {"template": {"spec": {"containers": containers}}},
        "status": {"replicas": len(image)},
    }


class TestChanges:
    def test_name_the_field_and_both_values(self) -> None:
        """A list's element is called by its own name."""
        [line] = changes([deployment("a")], [deployment("b")])
        assert line == "Deployment backend: spec.template.spec.containers[backend].image: a → b"

    def test_are_none_where_only_the_servers_own_fields_differ(self) -> None:
        """Status, generation and who manages what are no change."""
        before, after = deployment("a", resourceVersion="1", generation=1), deployment("a", resourceVersion="2")
        assert changes([before], [after]) == []

    def test_tell_what_is_new(self) -> None:
        """An object that is not there yet is one line."""
        assert changes([], [deployment("a")]) == ["Deployment backend: new"]

    def test_never_show_a_secret(self) -> None:
        """The key, and no value."""
        before, after = (
            {"kind": "Secret", "metadata": {"name": "s"}, "data": {"TOKEN": value, "SAME": "x"}}
            for value in ("b2xk", "bmV3")
        )
        [line] = changes([before], [after])
        assert line == "Secret s: a different value for TOKEN"

    def test_shorten_what_is_long(self) -> None:
        """A certificate is no line."""
        [line] = changes([deployment("a")], [deployment("b" * 1000)])
        assert len(line) < 200


class TestConflicts:
    def test_name_who_set_what(self) -> None:
        """A hand-edited object is said in the plan."""
        [line] = conflicts(CONFLICT)
        assert "`kubectl-edit`" in line
        assert '.spec.template.spec.containers[name="backend"].image' in line

    def test_are_none_in_another_error(self) -> None:
        """A refusal is no conflict."""
        assert conflicts('Error from server (Forbidden): deployments.apps "backend" is forbidden') == []


class TestStrangers:
    def test_are_named_with_the_variables_that_they_set(self) -> None:
        """`kubectl set env` adds one beside the overlay's settings, and no later apply takes it out."""
        added: dict[str, Any] = {"f:env": {".": {}, 'k:{"name":"LOG_LEVEL"}': {"f:name": {}, "f:value": {}}}}
        containers = {"f:containers": {'k:{"name":"backend"}': added}}
        fields: dict[str, Any] = {"f:spec": {"f:template": {"f:spec": containers}}}
        entry = {"manager": "kubectl-set", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}
        [line] = strangers([deployment("a", managedFields=[entry])])
        assert line == (
            "Deployment backend was also changed by `kubectl-set` (2026-01-01T00:00:00Z): its LOG_LEVEL wins over the"
            " overlay's for good: `kubectl set env deployment/backend LOG_LEVEL-`"
        )

    def test_are_named_whatever_they_did(self) -> None:
        """A label or a sidecar is theirs, and stays."""
        entry = {"manager": "kubectl-label", "fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}}}
        [line] = strangers([deployment("a", managedFields=[entry])])
        assert "was also changed by `kubectl-label` (at an unknown time): whatever it added stays" in line
