"""What kingfisher finds, what it leaves alone, and that it asks nobody."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import SlipwayError
from pipeline.supply import kingfisher
from pipeline.supply.kingfisher import Leak, scan_command, scan_commits, scan_folder
from tests.pipeline.commands.clones import commit, git
from tests.secret_values import SECRETS, TOKEN
from tests.tools import need

# What has the place of a secret, and is none.
HARMLESS = {
    "a placeholder": "POSTGRES_PASSWORD=change_this_password\n",
    "a variable": 'DATABASE_URL="postgresql://board:${POSTGRES_PASSWORD}@db.shop.net:5432/board"\n',
    "a reference in Compose": "POSTGRES_PASSWORD_FILE: /run/secrets/POSTGRES_PASSWORD\n",
    "a secret of a workflow": "env: { TOKEN: '${{ secrets.RELEASE_BOARD_TOKEN }}' }\n",
    "what SOPS has encrypted": "POSTGRES_PASSWORD=ENC[AES256_GCM,data:k3vN8qLw2Xr7TfYb5Hs=,tag:1f,type:str]\n",
    "a public key": "BACKUP_RECIPIENTS=age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n",
    "Python": "password = settings.postgres_password.get_secret_value()\n",
}


OTHERS = {
    "a comment": f'service_token = "{TOKEN}"  # kingfisher:ignore gitleaks:allow\n',
    "two rules": f"github_token: {TOKEN}\n",
}


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("kingfisher")


@pytest.fixture(name="found", scope="module")
def _found(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> dict[str, list[Leak]]:
    """What is found in a folder of files, by their names: it is read once."""
    folder = tmp_path_factory.mktemp("files")
    texts = {what: f"first line\n{text}" for what, (text, _) in SECRETS.items()}
    for name, text in {**texts, **HARMLESS, **OTHERS}.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_text(text)
    leaks = scan_folder(folder, compiled)
    assert leaks == sorted(leaks, key=lambda leak: leak.path)
    return {name: [leak for leak in leaks if leak.path == f"in/{name}"] for name in {**texts, **HARMLESS, **OTHERS}}


class TestScanFolder:
    @pytest.mark.parametrize("what", SECRETS)
    def test_finds(self, what: str, found: dict[str, list[Leak]]) -> None:
        """Once, in its line; its value is in nothing that is said of it."""
        [leak] = found[what]
        assert 2 <= leak.line <= 5
        assert SECRETS[what][1] not in str(leak)

    @pytest.mark.parametrize("what", HARMLESS)
    def test_leaves_alone(self, what: str, found: dict[str, list[Leak]]) -> None:
        """A finding that is none costs somebody an entry."""
        assert found[what] == []

    def test_is_silenced_by_no_comment(self, found: dict[str, list[Leak]]) -> None:
        """There is one list of what is no secret, with reasons."""
        assert len(found["a comment"]) == 1

    def test_finds_each_place_of_a_value(self, found: dict[str, list[Leak]]) -> None:
        """By one fingerprint."""
        [one], [other] = found["a token of GitHub"], found["a comment"]
        assert one.fingerprint == other.fingerprint

    def test_names_the_provider_where_two_rules_find_it(self, found: dict[str, list[Leak]]) -> None:
        """One line for one secret."""
        assert [leak.rule for leak in found["two rules"]] == ["betterleaks.github-pat"]


class TestScanCommits:
    @pytest.fixture(name="repository")
    def _repository(self, tmp_path: Path) -> Path:
        git(tmp_path, "init", "--quiet")
        (tmp_path / "kept").write_text("nothing\n")
        commit(tmp_path)
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        commit(tmp_path)
        (tmp_path / "token").unlink()
        commit(tmp_path)
        return tmp_path

    def head(self, root: Path, revision: str = "HEAD") -> str:
        return git(root, "rev-parse", revision).strip()

    def test_finds_what_was_removed_again(self, repository: Path, compiled: Path) -> None:
        """By its commit; also in a worktree, whose `.git` is a file."""
        [found] = scan_commits(repository, self.head(repository), None, compiled)
        assert (found.path, found.line, found.commit) == ("token", 1, self.head(repository, "HEAD~1"))
        git(repository, "worktree", "add", "--quiet", "beside")
        assert scan_commits(repository / "beside", self.head(repository), None, compiled) == [found]

    def test_reads_what_came_since(self, repository: Path, compiled: Path) -> None:
        """And nothing twice."""
        head = self.head(repository)
        assert scan_commits(repository, head, self.head(repository, "HEAD~1"), compiled) == []
        assert len(scan_commits(repository, head, self.head(repository, "HEAD~2"), compiled)) == 1

    def test_is_about_commits_alone(self, repository: Path, compiled: Path) -> None:
        """The address of a remote may have a token: that is in no commit."""
        git(repository, "config", "remote.origin.url", f"https://bot:{TOKEN[::-1]}@github.com/a/b")
        assert len(scan_commits(repository, self.head(repository), None, compiled)) == 1

    def test_fails_where_it_could_not_read_all(self, repository: Path, compiled: Path) -> None:
        """Kingfisher itself ends with 0 then."""
        with pytest.raises(SlipwayError, match=r"kingfisher failed \(0, partial\)"):
            scan_commits(repository, self.head(repository), "1" * 40, compiled)


class TestOffline:
    def asked(self, command: list[str], folder: Path, compiled: Path) -> bool:
        """Return whether COMMAND asks somebody: each request would go through this proxy."""
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            proxy.settimeout(0.1)
            address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
            env = {"HTTPS_PROXY": address, "HTTP_PROXY": address, "KF_RULE_CACHE_DIR": str(compiled)}
            quiet = subprocess.DEVNULL
            with subprocess.Popen(command, cwd=folder, env=env, stdout=quiet, stderr=quiet) as scan:
                while True:
                    over = scan.poll() is not None  # looked at first: what it asked last is still to be accepted
                    with contextlib.suppress(TimeoutError):
                        proxy.accept()[0].close()
                        scan.kill()  # it would ask again, for half a minute
                        return True
                    if over:
                        assert scan.returncode == kingfisher.FOUND
                        return False

    def test_asks_nobody(self, tmp_path: Path, compiled: Path) -> None:
        """Neither the owner of what it finds, nor for a newer version; without the options, it would."""
        (tmp_path / "token").write_text(f"{TOKEN}\n")
        command = scan_command(".")
        assert not self.asked(command, tmp_path, compiled)
        assert self.asked([word for word in command if word not in kingfisher.OFFLINE], tmp_path, compiled)


def test_is_missed_where_its_wheel_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is looked for beside this Python, and nowhere else."""
    assert kingfisher.is_there()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert not kingfisher.is_there()
