"""`verify` of an environment: what it may say, and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.policy import GITHUB_ISSUER, Policy, own_policy
from pipeline.config.project import load_project
from pipeline.errors import UsageError

WORKFLOW = "owner/board/.github/workflows/cd.yml@refs/heads/main"
TABLE = """
[project]
name = "board"

[tool.slipway.environments.staging]
target = "{target}"
url = "https://example.com"
{keys}
verify = {verify}
"""
ONE = "verify: must have either `key` or `identity`, which says who must have signed; for example `verify = {"
PLACE = 'overlay = "o"\ncontext = "c"\nnamespace = "n"'


def load(root: Path, verify: str, target: str = "kubernetes") -> Policy | None:
    (root / "backend").mkdir(exist_ok=True)
    text = TABLE.format(target=target, keys=PLACE if target == "kubernetes" else "", verify=verify)
    (root / "pyproject.toml").write_text(text, encoding="utf-8")
    return load_project(root).environment("staging").verify


class TestPolicy:
    def test_is_a_key_of_the_project(self, tmp_path: Path) -> None:
        """A file's name is relative to it; a KMS's address is what it is."""
        assert load(tmp_path, '{ key = "cosign.pub" }') == Policy(key=str(tmp_path / "cosign.pub"))
        assert load(tmp_path, '{ key = "awskms:///alias/x" }', "compose") == Policy(key="awskms:///alias/x")

    def test_or_an_identity(self, tmp_path: Path) -> None:
        """Of GitHub Actions where no other issuer is named."""
        policy = load(tmp_path, f'{{ identity = "https://github.com/{WORKFLOW}", source = "https://github.com/o/b" }}')
        assert policy == Policy(
            identity=f"https://github.com/{WORKFLOW}", issuer=GITHUB_ISSUER, source="https://github.com/o/b"
        )

    @pytest.mark.parametrize(
        ("verify", "says"),
        [
            ('"cosign.pub"', 'verify: must be a table; for example `verify = { key = "cosign.pub" }`'),
            ("{}", "verify: must have either `key` or `identity`"),
            ('{ keys = "a", key = "b" }', "verify: unknown key `keys`: did you mean `key`?"),
            ("{ key = 3 }", "verify: key: must be text"),
            ('{ key = "a", identity = "b" }', ONE),
            ('{ source = "https://a" }', ONE),
            ('{ key = "a", issuer = "b" }', "verify: `issuer` goes with `identity`: take it out"),
            ('{ key = "a", source = "git@x" }', "verify: source: must be an https address"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, tmp_path: Path, verify: str, says: str) -> None:
        """The file, the table, the key, the fix."""
        with pytest.raises(UsageError) as caught:
            load(tmp_path, verify)
        [problem] = caught.value.problems
        assert problem.startswith(f"pyproject.toml [tool.slipway.environments.staging]: {says}")

    def test_is_nothing_for_a_target_without_images(self, tmp_path: Path) -> None:
        """What would not be asked is not promised."""
        with pytest.raises(UsageError, match="`verify` is for images, and `local` runs none: take it out"):
            load(tmp_path, '{ key = "a" }', "local")


class TestOwnPolicy:
    def test_is_the_public_half_of_the_key_that_signs(self) -> None:
        """Beside it."""
        assert own_policy({"COSIGN_KEY": "keys/cosign.key"}) == Policy(key="keys/cosign.pub")
        assert own_policy({"COSIGN_KEY": "awskms:///alias/x"}) == Policy(key="awskms:///alias/x")

    def test_is_this_workflow_on_github(self) -> None:
        """Which signs as itself, of its own repository."""
        found = own_policy({"GITHUB_WORKFLOW_REF": WORKFLOW, "GITHUB_REPOSITORY": "owner/board"})
        assert found == Policy(identity=f"https://github.com/{WORKFLOW}", source="https://github.com/owner/board")

    @pytest.mark.parametrize("variables", [{}, {"COSIGN_KEY": "env://KEY", "GITHUB_WORKFLOW_REF": WORKFLOW}])
    def test_is_nobody_elsewhere(self, variables: dict[str, str]) -> None:
        """One line with both ways; a private key in a variable has no public half beside it."""
        with pytest.raises(UsageError, match=r"`--env ENV` takes that environment's `verify`; .* COSIGN_KEY"):
            own_policy(variables)
