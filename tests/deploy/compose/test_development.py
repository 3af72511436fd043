"""`docker compose … up --watch` with the development override: a change on the disk is what runs, seconds later."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e

FILES = ("-f", "docker-compose.yml", "-f", "docker-compose.dev.yml")


def test_a_change_reaches_what_runs(checkout: ComposeCheckout) -> None:
    """The service reloads with the new code, and the page is the one on the disk; no image is built again."""
    assert checkout.run("init").code == 0
    environ = {**os.environ, **checkout.environ}
    log = checkout.root.with_name("watch.log")
    with log.open("wb") as out:
        watching = subprocess.Popen(
            ["docker", "compose", *FILES, "up", "--build", "--watch"],
            cwd=checkout.root, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            wait_until(lambda: "Watch enabled" in log.read_text() or watching.poll() is not None, "it watches", 180)
            wait_until(checkout.serves, "nothing serves", 60)
            images = {docker("inspect", "--format", "{{.Image}}", name) for name in checkout.containers()}
            checkout.append("backend/app.py", "print('this is the changed code', flush=True)")
            checkout.patch("docker/frontend/index.html", "<title>", "<title>Changed: ")
            [backend] = checkout.containers("backend")
            wait_until(lambda: "this is the changed code" in docker("logs", backend), "the old code runs", 30)
            wait_until(lambda: "<title>Changed: " in checkout.request("GET", "/").text, "the old page is there", 30)
            wait_until(checkout.serves, "nothing serves after the change", 30)
            assert {docker("inspect", "--format", "{{.Image}}", name) for name in checkout.containers()} == images
        finally:
            os.killpg(watching.pid, signal.SIGINT)
            watching.wait(60)
            for name in ("backend", "frontend"):
                docker("rm", "--force", *checkout.containers(name))
                docker("rmi", "--force", f"{checkout.project}-{name}:development")
            docker("rm", "--force", *checkout.containers("migrate"))
            docker("rmi", "--force", f"{checkout.project}-migrate:dev")
