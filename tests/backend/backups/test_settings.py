"""The settings of backups: each with its effect, and what is wrong with one in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyrage import x25519

from backend.backups.settings import Address, BackupSettings, load_backup_settings
from backend.setting_fields import SettingsError, section

KEY = "ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIHmbFTkKZ"


def _problems(**environ: str) -> list[str]:
    try:
        load_backup_settings(environ, secrets_dir=Path("/nowhere"))
    except SettingsError as error:
        return error.problems
    return []


class TestSettings:
    def test_need_nothing(self) -> None:
        """Backups are kept for a week and a month, in the folder of the containers, as they are."""
        settings = load_backup_settings({}, secrets_dir=Path("/nowhere"))
        assert (str(settings.backup_folder), str(settings.backup_keep)) == ("/backups", "7d 4w")
        assert (settings.backup_recipients, settings.backup_address) == ((), None)

    def test_are_in_a_section_of_their_own(self) -> None:
        """For `.env.example`."""
        assert {section(BackupSettings, name) for name in BackupSettings.model_fields} == {"backups"}

    def test_secrets_come_from_files_as_the_services_do(self, tmp_path: Path) -> None:
        """By NAME_FILE, or in the folder of the secrets; a key as `age-keygen` writes it."""
        key = str(x25519.Identity.generate())
        (tmp_path / "BACKUP_IDENTITY").write_text(f"# created: now\n# public key: age1\n{key}\n")
        settings = load_backup_settings({}, secrets_dir=tmp_path)
        assert settings.backup_identity is not None
        assert settings.backup_identity.get_secret_value() == key

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("BACKUP_KEEP", "a week"),
            ("BACKUP_RECIPIENTS", "age1short"),
            ("BACKUP_RECIPIENTS", "AGE-SECRET-KEY-1" + "Q" * 58),
            ("BACKUP_IDENTITY", "AGE-SECRET-KEY-1short"),
            ("BACKUP_ADDRESS", "/a/folder"),
            ("BACKUP_ADDRESS", "s3://key:secret@bucket/folder"),
            ("BACKUP_ADDRESS", "s3://bucket/folder?acl=public"),
            ("BACKUP_ADDRESS", "s3://bucket/../other"),
            ("BACKUP_ADDRESS", "sftp://host/folder"),
            ("BACKUP_ADDRESS", f"sftp://user@host?host_key={KEY}"),
            ("BACKUP_ADDRESS", "sftp://user@host/folder"),
            ("BACKUP_ADDRESS", "sftp://user@host:nine/folder"),
        ],
    )
    def test_what_is_wrong_is_one_line_without_the_value(self, name: str, value: str) -> None:
        """With how it must look."""
        secret = {"BACKUP_ADDRESS_SECRET": "a:secret"}
        (problem,) = _problems(**{name: value, **secret})
        assert problem.startswith(f"{name}: ")
        assert value not in problem

    def test_address_and_secret_belong_together(self) -> None:
        """An address without a secret, and a secret that is none for S3."""
        assert [one.partition(":")[0] for one in _problems(BACKUP_ADDRESS="s3://bucket")] == ["BACKUP_ADDRESS_SECRET"]
        (problem,) = _problems(BACKUP_ADDRESS="s3://bucket", BACKUP_ADDRESS_SECRET="no-colon")
        assert problem == "BACKUP_ADDRESS_SECRET: must be KEY_ID:SECRET for S3"

    def test_addresses_are_read(self) -> None:
        """Both kinds, and how they are shown."""
        one = Address("s3://my-bucket/a/b?endpoint=https://s3.example.org&region=eu-1")
        assert (one.folder, one.endpoint, one.region) == ("my-bucket/a/b", "https://s3.example.org", "eu-1")
        other = Address(f"sftp://me@host:2222/a?host_key={KEY}")
        assert (other.user, other.host, other.port, other.folder) == ("me", "host", 2222, "/a")
        assert (str(one), str(other)) == ("s3://my-bucket/a/b", "sftp://me@host/a")
