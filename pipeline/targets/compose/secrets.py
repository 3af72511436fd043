"""The secrets of a compose environment; the logins of its database are changed by the superuser, in its container."""

from __future__ import annotations

from pipeline.errors import SlipwayError
from pipeline.targets.common.logins import password_sql
from pipeline.targets.common.secrets import SecretsHere
from pipeline.targets.compose.site import Site

__all__ = ["ComposeSecrets"]

PSQL = (
    "PGPASSWORD=$(cat /run/secrets/POSTGRES_SUPERUSER_PASSWORD)"
    " exec psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --username=postgres"
)


class ComposeSecrets(SecretsHere):
    """See `pipeline.targets.common.roles.Secrets`."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.project, site.env)
        self.site = site

    def set_password(self, role: str, password: str | None) -> None:
        """Run psql as the superuser, with the statement on its standard input."""
        running = [each for each in self.site.stack.containers("postgres") if each.running]
        if not running:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {self.site.env.name}`")
        command = ("exec", "--interactive", running[0].ident, "sh", "-c", PSQL)
        self.site.docker.do(*command, given=password_sql(role, password))
