"""The production image, built and run as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2

from pipeline.engines.docker import docker_problems, run_docker
from pipeline.images.build import Images
from pipeline.system.progress import Progress
from pipeline.system.run import CommandFailed
from tests.backend.process import free_port, wait_until

__all__ = ["ROOT", "build_image", "docker", "have_image", "pull_image", "running_image", "say"]

ROOT = Path(__file__).parent.parent
# As docker-compose.yml runs it: what works here needs no privileges.
CLOSED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def docker(*arguments: str, check: bool = True) -> str:
    """Return the output of a docker command, or its error output if it fails without `check`."""
    try:
        return run_docker(*arguments, timeout=600).strip()
    except CommandFailed as error:
        if check:
            raise AssertionError(f"docker {' '.join(arguments)}: {error.output}") from error
        return error.output


def build_image() -> str:
    """Build the images of this tree; return the ID of the service's. Raise `SystemExit` where there is no Docker."""
    problems = docker_problems(compose=False)
    if problems:
        raise SystemExit(problems[0])
    Progress().show_log()
    return Images(ROOT, "slipway-test").build().backend


def pull_image(reference: str) -> str:
    """Pull an image by its digest; return `reference`. Raise `SystemExit` where it cannot be pulled."""
    say(f"$ docker pull {reference}")
    done = subprocess.run(["docker", "pull", "--quiet", reference], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"docker pull {reference}: {done.stderr.strip()}")
    return reference


def have_image(name: str) -> str:
    """Return `name`, pulled if this machine does not have it."""
    # BuildKit keeps a base image where nobody else sees it.
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
        docker("pull", "--quiet", name)
    return name


def say(line: str) -> None:
    """Write `line` to standard error."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def running_image(image: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Run `image` in this machine's network until the block ends; yield its base address once it is ready."""
    port, metrics = free_port(), free_port()
    own = {"BACKEND_HOST": "127.0.0.1", "BACKEND_PORT": str(port), "METRICS_PORT": str(metrics)}
    given = [word for name, value in {**environ, **own}.items() for word in ("--env", f"{name}={value}")]
    ident = docker("run", "--detach", "--network", "host", *CLOSED, *given, image)

    def ready() -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/ready").status_code == httpx2.codes.OK
        except httpx2.TransportError:
            assert docker("inspect", "--format", "{{.State.Running}}", ident) == "true", docker("logs", ident)
            return False

    try:
        wait_until(ready, "the container did not get ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        docker("rm", "--force", "--volumes", ident)
