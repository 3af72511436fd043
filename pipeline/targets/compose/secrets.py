"""The secrets of a compose environment; the logins of its database are changed by the superuser, in its container."""

from __future__ import annotations

import secrets as randomness
from pathlib import Path

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.config.settings import SECRET_BYTES
from pipeline.errors import SlipwayError
from pipeline.system.files import write_whole
from pipeline.targets.common.logins import password_sql
from pipeline.targets.common.secrets import SecretsHere
from pipeline.targets.compose.site import Site

__all__ = ["ComposeSecrets"]

# The password, and then the statement, come by standard input.
PSQL = "read -r PGPASSWORD; export PGPASSWORD; exec psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username=postgres"
SUPERUSER = "postgres"


class ComposeSecrets(SecretsHere):
    """See `pipeline.targets.common.roles.Secrets`."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.project, site.env)
        self.site = site

    def objection(self, name: str) -> str | None:
        """Object to what others manage."""
        if name == SUPERUSER_PASSWORD and self.site.variables.managed.database:
            return f"{name}: the database is managed by others (DATABASE_URL): change it there"
        return super().objection(name)

    def set_password(self, role: str, password: str | None) -> None:
        """Run psql as the superuser, in the database's container."""
        self._psql(self._kept.read_text(encoding="utf-8"), password_sql(role, password))

    def change_superuser(self) -> None:
        """Keep the new password beside the old one until PostgreSQL has it, whatever happens in between."""
        new = self._kept.with_name(f".{SUPERUSER_PASSWORD}.new")
        if not new.exists():
            write_whole(new, randomness.token_urlsafe(SECRET_BYTES))
        fresh, old = new.read_text(encoding="utf-8"), self._kept.read_text(encoding="utf-8")
        try:
            self._psql(old, password_sql(SUPERUSER, fresh))
        except SlipwayError:
            self._psql(fresh, "SELECT 1;\n")  # where PostgreSQL had it already; else this says what is wrong
        # In its place, and not by another file: the container sees the file that it mounted.
        self._kept.chmod(0o644)
        self._kept.write_text(fresh, encoding="utf-8")
        self._kept.chmod(0o444)
        new.unlink()

    @property
    def _kept(self) -> Path:
        return self.site.secrets / SUPERUSER_PASSWORD

    def _psql(self, password: str, statement: str) -> None:
        running = [each for each in self.site.stack.containers("postgres") if each.running]
        if not running:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {self.site.env.name}`")
        command = ("exec", "--interactive", running[0].ident, "sh", "-c", PSQL)
        self.site.docker.ask(*command, given=f"{password}\n{statement}")
