"""The secrets as files: who can read them, and when they change."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.config.redis_users import digest
from pipeline.config.secrets import (
    REDIS_ADMIN,
    closed_problem,
    delivered_secrets,
    forget_redis_passwords,
    redis_acl,
    redis_hashes,
    redis_monitor_password,
    write_secret_files,
)

SECRETS = {"POSTGRES_PASSWORD": "canary-of-postgres", "REDIS_PASSWORD": "canary-of-redis", "SERVICE_TOKEN": "a token"}


class TestWriteSecretFiles:
    def test_a_closed_folder_holds_files_that_a_container_can_read(self, tmp_path: Path) -> None:
        """0700 and 0444: a container's user reads what is mounted, and nobody gets past the folder."""
        write_secret_files(tmp_path / "secrets", SECRETS)
        assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o444}

    def test_each_secret_is_there_if_only_empty(self, tmp_path: Path) -> None:
        """A secret without a value is a file without text: compose mounts each, and refuses what is not there."""
        write_secret_files(tmp_path, SECRETS)
        texts = {name: (tmp_path / name).read_text() for name in delivered_secrets()}
        assert texts == {**dict.fromkeys(delivered_secrets(), ""), **SECRETS}

    def test_redis_gets_the_hash_of_its_password(self, tmp_path: Path) -> None:
        """The file that its command line names does not tell the password."""
        write_secret_files(tmp_path, SECRETS)
        acl = (tmp_path / "REDIS_ACL").read_text()
        service, admin, monitor = acl.splitlines()
        assert f"user default on #{hashlib.sha256(b'canary-of-redis').hexdigest()} " in service
        assert (" -@all " in service, "+@all" in service) == (True, False)
        assert admin.startswith("user admin on #")
        assert monitor.endswith(" resetkeys resetchannels -@all +info +ping +slowlog|len")
        assert "canary" not in acl
        assert (tmp_path / REDIS_ADMIN).read_text() not in acl

    def test_its_administrator_keeps_his_password(self, tmp_path: Path) -> None:
        """Whatever the service's is."""
        write_secret_files(tmp_path, SECRETS)
        first = (tmp_path / REDIS_ADMIN).read_text()
        write_secret_files(tmp_path, {**SECRETS, "REDIS_PASSWORD": "another"})
        assert (tmp_path / REDIS_ADMIN).read_text() == first
        assert len(first) >= 32

    def test_redis_accepts_the_passwords_of_before_until_they_are_forgotten(self, tmp_path: Path) -> None:
        """Replicas have them until a rollout is over; the one of now is the first."""
        hashes = [digest(word) for word in ("third", "second", "canary-of-redis")]
        write_secret_files(tmp_path, SECRETS)
        for word in ("second", "third", "third"):
            write_secret_files(tmp_path, {**SECRETS, "REDIS_PASSWORD": word})
        assert redis_hashes(tmp_path) == hashes
        forget_redis_passwords(tmp_path)
        assert redis_hashes(tmp_path) == hashes[:1]
        acl = (tmp_path / "REDIS_ACL").read_text()
        assert acl.startswith(redis_acl("third", (tmp_path / REDIS_ADMIN).read_text()))
        assert f"user monitor on {digest(redis_monitor_password(tmp_path))} " in acl
        assert (tmp_path / "REDIS_ACL").stat().st_mode & 0o777 == 0o444

    def test_the_superuser_keeps_the_password_that_its_volume_was_made_with(self, tmp_path: Path) -> None:
        """It is made once, and differs from every other secret."""
        write_secret_files(tmp_path, SECRETS)
        first = (tmp_path / "POSTGRES_SUPERUSER_PASSWORD").read_text()
        write_secret_files(tmp_path, {**SECRETS, "POSTGRES_PASSWORD": "another"})
        assert (tmp_path / "POSTGRES_SUPERUSER_PASSWORD").read_text() == first
        assert len(first) >= 32
        assert first not in SECRETS.values()

    def test_a_file_is_replaced_only_where_its_secret_changed(self, tmp_path: Path) -> None:
        """A container has the file that it started with; a new one gets the new."""
        write_secret_files(tmp_path, SECRETS)
        before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
        with (tmp_path / "SERVICE_TOKEN").open() as held:
            write_secret_files(tmp_path, {**SECRETS, "SERVICE_TOKEN": "a new one"})
            assert held.read() == "a token"
        changed = {path.name for path in tmp_path.iterdir() if path.stat().st_ino != before[path.name]}
        assert changed == {"SERVICE_TOKEN"}

    def test_a_mode_that_somebody_changed_is_mended(self, tmp_path: Path) -> None:
        """Of the files; an open folder is refused before, so that it is not mended unseen."""
        write_secret_files(tmp_path, SECRETS)
        (tmp_path / "SERVICE_TOKEN").chmod(0o666)
        write_secret_files(tmp_path, SECRETS)
        assert (tmp_path / "SERVICE_TOKEN").stat().st_mode & 0o777 == 0o444


class TestClosedProblem:
    def test_an_open_folder_is_named_with_its_fix(self, tmp_path: Path) -> None:
        """The group counts as others do."""
        tmp_path.chmod(0o750)
        problem = closed_problem(tmp_path)
        assert problem is not None
        assert f"`chmod 700 {tmp_path}`" in problem
        assert "750" in problem

    def test_a_closed_or_missing_one_is_fine(self, tmp_path: Path) -> None:
        """The first deploy makes it."""
        tmp_path.chmod(0o700)
        assert closed_problem(tmp_path) is None
        assert closed_problem(tmp_path / "missing") is None
