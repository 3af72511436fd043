"""Stores that others manage: where they are, what a container gets of them, and what it could not use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.managed import CERTIFICATES, managed_stores
from pipeline.errors import UsageError

POSTGRES = "postgresql://shop:canary@h1:5433,h2.example.org/board?sslmode=verify-full"
REDIS = "rediss://app:canary@cache.example.org:6380/3"


class TestManaged:
    def test_are_those_whose_url_is_set(self, tmp_path: Path) -> None:
        """In a file, too; an empty value is none."""
        file = tmp_path / "url"
        file.write_text(f"{REDIS}\n")
        managed = managed_stores({"DATABASE_URL": " ", "REDIS_URL_FILE": str(file)})
        assert (managed.database, managed.redis, managed.urls) == (False, True, {"REDIS_URL": REDIS})
        with pytest.raises(UsageError, match="REDIS_URL_FILE: its file cannot be read"):
            managed_stores({"REDIS_URL_FILE": str(tmp_path / "nothing")})

    def test_who_migrates_counts_only_beside_the_service(self) -> None:
        """Else it would migrate another database than the one that is used."""
        only = managed_stores({"MIGRATION_DATABASE_URL": POSTGRES})
        assert (only.names, only.of_migrations(), only.files()) == ([], {}, {})
        both = managed_stores({"MIGRATION_DATABASE_URL": POSTGRES, "DATABASE_URL": POSTGRES, "REDIS_URL": REDIS})
        assert sorted(both.of_migrations()) == ["DATABASE_URL", "MIGRATION_DATABASE_URL"]
        assert sorted(both.of_service()) == ["DATABASE_URL", "REDIS_URL"]

    @pytest.mark.parametrize(
        ("url", "other"),
        [
            (POSTGRES, "postgresql://shop:canary@h1:5433,h2.example.org/new?sslmode=verify-full"),
            ("postgresql:///board?host=/run/pg", "postgresql:///new?host=/run/pg"),
            ("postgresql://shop@db?dbname=board&user=x", "postgresql://shop@db/new?user=x"),
        ],
    )
    def test_lead_to_another_database_of_the_same_server(self, url: str, other: str) -> None:
        """However its name was given; nothing leads anywhere else."""
        managed = managed_stores({"DATABASE_URL": url, "REDIS_URL": REDIS})
        assert managed.beside("new") == {"DATABASE_URL": other}
        assert managed_stores({"REDIS_URL": REDIS}).beside("new") == {}

    @pytest.mark.parametrize(
        ("name", "url", "place"),
        [
            ("DATABASE_URL", POSTGRES, "database is board on h1:5433,h2.example.org"),
            ("DATABASE_URL", "postgresql://shop:canary@/board?host=/run/pg&password=canary", "board on /run/pg"),
            ("REDIS_URL", REDIS, "Redis is 3 on cache.example.org:6380"),
            ("REDIS_URL", "unix:///run/redis.sock?db=3&password=canary", "Redis is /run/redis.sock"),
        ],
    )
    def test_are_described_without_anything_secret(self, name: str, url: str, place: str) -> None:
        """For the plan: the host and the name of the database."""
        [line] = managed_stores({name: url}).described()
        assert place in line
        assert "canary" not in line


class TestContainers:
    def test_get_the_authorities_in_a_file_of_their_own(self, tmp_path: Path) -> None:
        """The URLs name its place there; without any there is no such file."""
        first, second = tmp_path / "a b.pem", tmp_path / "c.pem"
        first.write_text("first")
        second.write_text("second")
        urls = {
            "DATABASE_URL": f"{POSTGRES}&sslrootcert={str(first).replace(' ', '%20')}&connect_timeout=3",
            "REDIS_URL": f"{REDIS}?ssl_ca_certs={second}",
        }
        files = managed_stores(urls).files()
        inside = f"/run/secrets/{CERTIFICATES}"
        assert files == {
            "DATABASE_URL": f"{POSTGRES}&sslrootcert={inside}&connect_timeout=3",
            "REDIS_URL": f"{REDIS}?ssl_ca_certs={inside}",
            CERTIFICATES: "first\nsecond",
        }
        assert managed_stores({"REDIS_URL": REDIS}).files() == {"REDIS_URL": REDIS}

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("postgresql://shop:canary@localhost:5432/board", "leads to this machine"),
            ("postgresql://shop:canary@db.example.org,127.0.0.1:5433/board", "leads to this machine"),
            ("postgresql://shop:canary@/board?host=/run/pg", "leads to this machine"),
            ("postgresql://db.example.org/board?sslcert=/a.pem&sslkey=/b.pem", "parameter sslcert"),
        ],
    )
    def test_cannot_use_what_is_only_here(self, url: str, words: str) -> None:
        """One line, with the name and never the value."""
        [line] = managed_stores({"DATABASE_URL": url}).container_problems()
        assert line.startswith("DATABASE_URL: ")
        assert words in line
        assert "canary" not in line
        assert managed_stores({"DATABASE_URL": POSTGRES, "REDIS_URL": REDIS}).container_problems() == []
