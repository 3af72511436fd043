"""What a deploy asks of git: whether it may ship the working tree, and whether that is older than what serves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from tests.pipeline.deploy.world import World, release


class TestForward:
    def commit(self, root: Path) -> str:
        """Commit nothing, and return the commit's name."""
        git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    def test_takes_nobody_back(self, world: World) -> None:
        """A late run of an older commit is refused, one of the same is not; without it, anything goes."""
        root = world.target.project.root
        subprocess.run(["git", "init", "--quiet", root], check=True)
        older, newer = self.commit(root), self.commit(root)
        assert world.deploy(forward=True).code == 0
        assert world.deploy(release("b"), forward=True).code == 0
        subprocess.run(["git", "-C", root, "checkout", "--quiet", older], check=True)
        with pytest.raises(UsageError, match=f"deployed from {newer[:12]}, which is newer than {older[:12]}"):
            world.deploy(release("c"), forward=True)
        assert (world.serving, len(world.records)) == (["b", "b"], 2)
        assert world.deploy(release("c")).code == 0

    def test_refuses_what_it_cannot_compare(self, world: World) -> None:
        """What serves is of a commit that this clone has not."""
        root = world.target.project.root
        subprocess.run(["git", "init", "--quiet", root], check=True)
        self.commit(root)
        assert world.deploy(forward=True).code == 0
        world.target.records().note(world.records[0], commit="f" * 40)
        with pytest.raises(UsageError, match="not in this clone"):
            world.deploy(release("b"), forward=True)

    def test_refuses_where_git_tells_no_commit(self, world: World) -> None:
        """On either side: nobody knows which one is newer."""
        assert world.deploy(forward=True).code == 0  # nothing serves yet, so nothing is older
        with pytest.raises(UsageError, match=r"--forward compares commits, and .* is no git repository; to go back"):
            world.deploy(release("b"), forward=True)
        root = world.target.project.root
        subprocess.run(["git", "init", "--quiet", root], check=True)
        with pytest.raises(UsageError, match=r"--forward compares commits, and .* has none yet"):
            world.deploy(release("b"), forward=True)
        self.commit(root)
        with pytest.raises(UsageError, match="and here was deployed from none"):
            world.deploy(release("b"), forward=True)

    def test_refuses_what_a_shallow_clone_cannot_compare(self, world: World, tmp_path: Path) -> None:
        """Both commits are there, and none of those between them."""
        origin, root = tmp_path / "origin", world.target.project.root
        subprocess.run(["git", "init", "--quiet", origin], check=True)
        older, newer = self.commit(origin), self.commit(origin)
        subprocess.run(["git", "init", "--quiet", root], check=True)
        for commit in (newer, older):
            subprocess.run(
                ["git", "-C", root, "fetch", "--quiet", "--depth", "1", f"file://{origin}", commit], check=True
            )
            subprocess.run(["git", "-C", root, "checkout", "--quiet", commit], check=True)
            if commit == newer:
                assert world.deploy(forward=True).code == 0
        with pytest.raises(UsageError, match="in this shallow clone: `git fetch --unshallow`"):
            world.deploy(release("b"), forward=True)


class TestAWorkingTree:
    def test_without_a_repository_ships_and_says_what_that_means(self, world: World) -> None:
        """No rule leaves out what should not ship."""
        assert world.deploy().code == 0
        assert "is no git repository: all of backend ships but caches and hidden files" in world.said

    def test_that_git_refuses_is_not_shipped(self, served: World) -> None:
        """What it ignores would ship; a recorded release needs no working tree."""
        (served.target.project.root / ".git").write_text("gitdir: /nowhere\n")
        with pytest.raises(UsageError, match=r"git cannot read .* what it ignores would ship"):
            served.deploy(release("b"))
        assert served.deploy(reference="1").code == 0

    def test_with_a_link_that_leads_elsewhere_is_not_shipped(self, served: World) -> None:
        """It would be missing where the release runs."""
        folder = served.target.project.root / "backend"
        folder.mkdir(exist_ok=True)
        (folder / "shared").symlink_to("..")
        with pytest.raises(UsageError, match="backend/shared is a symbolic link"):
            served.deploy(release("b"))
