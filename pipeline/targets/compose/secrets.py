"""The secrets of a compose environment; the logins of its database are changed by the superuser, in its container."""

from __future__ import annotations

import secrets as randomness
from pathlib import Path

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.config.settings import SECRET_BYTES
from pipeline.errors import SlipwayError
from pipeline.system.files import write_whole
from pipeline.targets.common.backups import SUPERUSER
from pipeline.targets.common.rights import password_sql
from pipeline.targets.common.secrets import SecretsHere
from pipeline.targets.compose.problems import superuser_psql
from pipeline.targets.compose.site import Site

__all__ = ["ComposeSecrets"]


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
        variables = self.site.variables
        sql = password_sql(self.project.root, variables.database, variables.logins, role, password)
        superuser_psql(self.site.stack, variables.database, sql)

    def change_superuser(self) -> None:
        """Keep the new password beside the old one until PostgreSQL has it, whatever happens in between."""
        kept = self.site.secrets / SUPERUSER_PASSWORD
        new, old = kept.with_name(f".{SUPERUSER_PASSWORD}.new"), kept.read_text(encoding="utf-8")
        if not new.exists():
            write_whole(new, randomness.token_urlsafe(SECRET_BYTES))
        fresh = new.read_text(encoding="utf-8")
        try:
            self.set_password(SUPERUSER, fresh)
        except SlipwayError:  # of a container that does not run, too
            self._write(kept, fresh)  # PostgreSQL had it already, where this was killed
            try:
                superuser_psql(self.site.stack, "postgres", "SELECT 1;")
            except SlipwayError:
                self._write(kept, old)
                raise
        else:
            self._write(kept, fresh)
        new.unlink()

    @staticmethod
    def _write(kept: Path, password: str) -> None:
        """Write it in its place, and not by another file: the container sees the file that it mounted."""
        kept.chmod(0o644)
        kept.write_text(password, encoding="utf-8")
        kept.chmod(0o444)
