"""A clone that is deployed with Docker, as a compose project of its own."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx2

from pipeline.config.secrets import REDIS_ADMIN, secret_files
from pipeline.registry.reference import PARTS
from tests.containers import docker
from tests.deploy.checkout import Checkout

__all__ = ["AS_SUPERUSER", "ComposeCheckout"]

# The service's own role, and its password, may be rotated by a test.
AS_SUPERUSER = 'PGPASSWORD=$(cat /run/secrets/POSTGRES_SUPERUSER_PASSWORD) psql -U postgres -d "$0" -tAc "$1"'
# A command for each megabyte, as a service writes: what one script writes is no one's to evict until it ends.
FILL = (
    "for i in $(seq {megabytes}); do echo \"eval \\\"redis.call('set', 'x$i', string.rep('x', 1048576))\\\" 0\"; done"
    " | redis-cli --user admin >/dev/null"
)
SERVICES = {"backend": 2, "frontend": 1, "postgres": 1, "redis": 1}


@dataclass
class ComposeCheckout(Checkout):
    """See `Checkout`; its environment is `compose`."""

    environment: ClassVar[str] = "compose"

    @classmethod
    def make(cls, template: Path, root: Path, *, rate: int = 100, bake_seconds: int = 3, own: bool = False) -> Self:
        """Copy TEMPLATE and commit it, under a project's name that nobody has."""
        one = super().make(template, root, rate=rate, bake_seconds=bake_seconds, own=own)
        one.environ["PROJECT_NAME"] = f"slipway-test-{secrets.token_hex(3)}"
        return one

    @property
    def project(self) -> str:
        """The name of its compose project."""
        return self.environ["PROJECT_NAME"]

    def containers(self, service: str | None = None) -> list[str]:
        """The names of its containers, running or not."""
        filters = [f"label=com.docker.compose.project={self.project}"]
        filters += [f"label=com.docker.compose.service={service}"] if service else []
        given = [word for one in filters for word in ("--filter", one)]
        return docker("ps", "--all", "--format", "{{.Names}}", *given).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """What docker knows of a container."""
        facts: dict[str, Any] = json.loads(docker("inspect", container))[0]
        return facts

    def serves(self) -> bool:
        """Whether its edge answers, and the service is ready."""
        try:
            return self.request("GET", "/ready").status_code == httpx2.codes.OK
        except httpx2.TransportError:
            return False

    def sql(self, query: str) -> Any:
        """The first value that QUERY gives, as text."""
        [postgres] = self.containers("postgres")
        return docker("exec", postgres, "sh", "-c", AS_SUPERUSER, self.settings()["POSTGRES_DB"], query)

    def fill_redis(self, megabytes: int) -> None:
        """Write so many keys of a megabyte each, as its administrator."""
        [redis] = self.containers("redis")
        password = (secret_files(self.root) / REDIS_ADMIN).read_text(encoding="utf-8")
        docker("exec", "--env", f"REDISCLI_AUTH={password}", redis, "sh", "-c", FILL.format(megabytes=megabytes))

    def untidy(self) -> list[str]:
        """What a finished deploy must not leave: other containers than should run, a lock, parts, synthetic rows."""
        counts = {service: len(self.containers(service)) for service in [*SERVICES, "migrate"]}
        wrong = [f"{count} × {name}" for name, count in counts.items() if count != SERVICES.get(name, 0)]
        throwaway = f"label=slipway.throwaway={self.project}"
        wrong += docker("ps", "--all", "--quiet", "--filter", throwaway).split()
        wrong += docker("network", "ls", "--quiet", "--filter", throwaway).split()
        files = [path for path in self.home.rglob("*") if ".part" in path.name or path.name.endswith("writes.jsonl")]
        wrong += [str(path) for path in files] + (["lock"] if (self.home / "lock").exists() else [])
        rows = self.synthetic_rows()
        return wrong + ([f"{rows} synthetic rows"] if rows else [])

    def remove(self, scratch: set[Path]) -> None:
        """`down --volumes`: nothing of it may be left."""
        del scratch
        for deploy in self.started:  # a test that failed may have left one that runs
            if deploy.process.poll() is None:
                deploy.kill()
        done = self.run("down", "--volumes")
        left = self.containers()
        for name in left:
            docker("rm", "--force", "--volumes", name)
        assert done.code == 0, done.stderr
        assert not left, left
        label = f"label=com.docker.compose.project={self.project}"
        assert docker("volume", "ls", "--quiet", "--filter", label) == ""
        assert docker("network", "ls", "--quiet", "--filter", label) == ""
        assert not self.home.exists()
        self.forget_images()

    def forget_images(self) -> None:
        """Remove the images of its project, which `down` keeps for the build cache."""
        for part in PARTS:
            for name in docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{self.project}-{part}").split():
                docker("rmi", name)
