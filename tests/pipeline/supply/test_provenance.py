"""Where a release says that it came from, by SLSA's provenance 1.0."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config.policy import Policy
from pipeline.images.build import PushedImages
from pipeline.supply.provenance import provenance, provenance_problems
from pipeline.system.git import Source

IMAGES = PushedImages("ghcr.io/owner/board", *(f"sha256:{digit * 64}" for digit in "1234"))
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "owner/board",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_WORKFLOW_REF": "owner/board/.github/workflows/cd.yml@refs/heads/main",
    "GITHUB_RUN_ID": "42",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_EVENT_NAME": "push",
    "RUNNER_ENVIRONMENT": "github-hosted",
}
COMMIT = "c" * 40
ON_GITHUB = provenance(IMAGES, Source(COMMIT, dirty=False), "https://elsewhere.example/x", GITHUB)
HERE = provenance(IMAGES, Source(COMMIT, dirty=True), "https://github.com/owner/board", {})


def problems(predicate: dict[str, object], source: str | None) -> list[str]:
    return provenance_problems(predicate, IMAGES, Policy(key="k", source=source))


class TestProvenance:
    def test_of_a_workflow_names_run_repository_and_commit(self) -> None:
        """By GitHub's variables, whatever the checkout's remote is."""
        definition, run = ON_GITHUB["buildDefinition"], ON_GITHUB["runDetails"]
        assert definition["externalParameters"]["workflow"] == {
            "ref": "refs/heads/main",
            "repository": "https://github.com/owner/board",
            "path": ".github/workflows/cd.yml",
        }
        assert definition["resolvedDependencies"] == [
            {"uri": "git+https://github.com/owner/board@refs/heads/main", "digest": {"gitCommit": COMMIT}}
        ]
        assert run["builder"]["id"] == "https://github.com/actions/runner/github-hosted"
        assert run["metadata"]["invocationId"] == "https://github.com/owner/board/actions/runs/42/attempts/2"

    def test_of_a_laptop_claims_no_more_than_its_user(self) -> None:
        """And that the files were not what is committed."""
        assert HERE["runDetails"]["builder"]["id"].startswith("urn:slipway:user:")
        [source] = HERE["buildDefinition"]["resolvedDependencies"]
        assert source["annotations"] == {"dirty": True}
        nowhere = provenance(IMAGES, Source(None, dirty=False), None, {})
        assert nowhere["buildDefinition"]["resolvedDependencies"] == [{"uri": "urn:slipway:no-repository"}]

    def test_names_the_images_that_were_built_together(self) -> None:
        """One for the release."""
        assert ON_GITHUB["runDetails"]["byproducts"] == [
            {"name": "migrate", "digest": {"sha256": "2" * 64}},
            {"name": "frontend", "digest": {"sha256": "3" * 64}},
            {"name": "backup", "digest": {"sha256": "4" * 64}},
        ]


class TestProblems:
    def test_there_are_none_where_the_source_is_the_policys(self) -> None:
        """The repository; its branch, or the commit."""
        for source in (None, *(f"https://github.com/owner/board{at}" for at in ("", "@refs/heads/main", f"@{COMMIT}"))):
            assert problems(ON_GITHUB, source) == []

    def test_nor_where_a_release_of_before_has_no_image_of_backups(self) -> None:
        """It was pushed, and signed, without one."""
        images = replace(IMAGES, backup=None)
        made = provenance(images, Source(COMMIT, dirty=False), None, GITHUB)
        assert provenance_problems(made, images, Policy(key="cosign.pub")) == []
        [line] = provenance_problems(made, IMAGES, Policy(key="cosign.pub"))
        assert line.startswith(f"its provenance names another backup image, none, than {IMAGES.backup}")

    def test_another_branch_is_another_source(self) -> None:
        """What was found, and what was wanted."""
        [line] = problems(ON_GITHUB, "https://github.com/owner/board@refs/heads/next")
        assert line.startswith(
            f"built from https://github.com/owner/board@refs/heads/main ({COMMIT}) and not from http"
        )

    def test_what_is_not_ours_is_said(self) -> None:
        """Another tool's provenance does not say what belongs together."""
        assert problems({"buildDefinition": {}}, None) == [
            "its provenance was not made by slipway: `nox -s sign` makes one"
        ]
