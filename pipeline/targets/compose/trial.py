"""The trial on Compose: a container of the service that the edge does not know, asked from inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from pipeline.config.managed import NO_REDIS, Managed
from pipeline.engines.docker import run_docker
from pipeline.errors import DeployFailed
from pipeline.proof.packed import pack_smoke
from pipeline.proof.smoke import Smoked, smoke_limit, smoked_of
from pipeline.releases.model import Artifact, short
from pipeline.system.run import CommandFailed
from pipeline.system.waiting import Deadline
from pipeline.targets.common.container import BACKEND_PORT
from pipeline.targets.common.containers import THROWAWAY
from pipeline.targets.common.diagnosis import LOG_LINES, telling_line
from pipeline.targets.compose.replicas import SERVICE
from pipeline.targets.compose.site import Site

__all__ = ["try_container"]

# Only inside of the container: the edge asks the sockets of the volume that they share.
SOCKET = "/tmp/try-backend.sock"  # noqa: S108 - of the container, in memory
TOKEN_FILE = "/run/secrets/SERVICE_TOKEN"  # noqa: S105 - a path
# Its files cannot be written from outside, as its root is read-only; so the archive comes through standard input.
RUN = """
import base64, runpy, sys, tempfile
with tempfile.NamedTemporaryFile(suffix=".pyz") as archive:
    archive.write(base64.b64decode(sys.stdin.read()))
    archive.flush()
    sys.argv = [archive.name]
    runpy.run_path(archive.name, run_name="__main__")
"""


def try_container(
    site: Site,
    new: Artifact,
    watch: Callable[[str], None],
    *,
    journal: Path,
    log: Path,
    tries: int,
    database: str | None = None,
    server: str | None = None,
) -> Smoked:
    """See `pipeline.targets.common.roles.Fleet.trial`. `server`: another one, which has the same database."""
    variables = site.variables.environment(site.artifacts.find(new.name))
    name, label = f"{site.stack.name}-try-backend", f"{THROWAWAY}={site.stack.name}"  # by which `heal` finds it
    with ExitStack() as stack:
        options: Sequence[str] = (
            ("--env", f"REDIS_URL={NO_REDIS}", "--env", f"POSTGRES_HOST={server}") if server else ()
        )
        if database:
            options = stack.enter_context(_beside(site, database))
        stack.callback(_end, site, name, log)
        site.stack.do(
            *("run", "--detach", "--no-deps", "--name", name, "--label", label, *options, SERVICE),
            env={**variables, "BACKEND_SOCKET": SOCKET, "DRAIN_SECONDS": "0"},  # it has nobody to wait for
        )
        site.replicas.wait_ready(new.name, name, partial(watch, "starting it"), Deadline(site.env.timeout))
        watch("asking it")
        archive = pack_smoke(new.requests, f"http://127.0.0.1:{BACKEND_PORT}", [TOKEN_FILE], wait=0, tries=tries)
        complaint = ""
        with journal.open("w", encoding="utf-8") as lines:
            try:
                run_docker(
                    *("exec", "--interactive", name, "python", "-I", "-c", RUN),
                    given=base64.b64encode(archive).decode(),
                    told=partial(print, file=lines, flush=True),
                    timeout=smoke_limit(new.requests, tries),
                )
            except CommandFailed as error:
                complaint = error.output
        smoked = smoked_of(journal)
        if smoked is None:
            why = telling_line(complaint.splitlines())
            raise DeployFailed(f"the trial of release {short(new.name)} broke off: {why}")
        return smoked


def _end(site: Site, name: str, log: Path) -> None:
    site.docker.succeeds("stop", name)  # what it works on beside the requests may end
    if site.docker.inspect(name):
        log.write_text(site.docker.logs(name, LOG_LINES), encoding="utf-8")
    site.docker.succeeds("rm", "--force", "--volumes", name)


@contextmanager
def _beside(site: Site, database: str) -> Iterator[list[str]]:
    """Yield the options by which a replica uses another `database`, and no Redis."""
    options, managed = ["--env", f"REDIS_URL={NO_REDIS}"], site.variables.managed
    if not managed.database:
        yield [*options, "--env", f"POSTGRES_DB={database}"]
        return
    # The file of its authorities is in the container already, by the URL of the service.
    with site.lend(Managed(managed.beside(database)).files()["DATABASE_URL"]) as file:
        inside = f"/run/secrets/{file.name}"
        yield [*options, "--env", f"DATABASE_URL_FILE={inside}", "--volume", f"{file}:{inside}:ro"]
