"""`.env` taken back from what runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.project import LocalEnvironment, Project
from pipeline.config.settings import service_secrets
from pipeline.engines.docker import Docker
from pipeline.engines.occupant import HOME
from pipeline.errors import SlipwayError
from pipeline.targets.compose.problems import taken_problems
from pipeline.targets.compose.stack import Stack
from pipeline.targets.recovery import recovered
from tests.pipeline.targets.compose.test_stack import facts

SECRET = service_secrets()[0].name

# A `docker` that has the containers of a file, each with the secrets in its own.
DOCKER = """#!{python}
import json, sys
from pathlib import Path
there, words = json.loads(Path({file!r}).read_text()), sys.argv[1:]
if words[0] == "ps":
    wanted = [word.removeprefix("label=com.docker.compose.project=") for word in words if "project=" in word]
    label = "com.docker.compose.project"
    print(*(one["Id"] for one in there if not wanted or one["Config"]["Labels"][label] in wanted))
elif words[:2] == ["container", "inspect"]:
    print(json.dumps([one for one in there if one["Id"] in words]))
elif words[0] == "exec":
    [one] = [one for one in there if one["Id"] == words[1]]
    text = one["secrets"].get(Path(words[-1]).name)
    sys.exit("no such file") if text is None else print(text)
"""


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Project:
    root = tmp_path / "clone"
    root.mkdir()
    env = LocalEnvironment(name="local", url="http://localhost:1")
    return Project(root=root, name="shop", environments={"local": env}, requests=())


def container(root: Path, ident: str, service: str, *, project: str = "board", **secrets: str) -> dict[str, Any]:
    """Return what `docker inspect` says of a container that was started from `root`, and its secrets."""
    one = {**facts(), "Id": ident, "secrets": secrets}
    one["Config"]["Labels"] |= {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        "com.docker.compose.project.working_dir": str(root),
    }
    one["Config"]["Env"] = ["POSTGRES_USER=board-other", "LOG_LEVEL=DEBUG", "LOG_FORMAT=json", "POSTGRES_HOST=postgres"]
    return one


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lets containers run."""
    file, program = tmp_path / "containers.json", tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(DOCKER.format(python=sys.executable, file=str(file)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    file.write_text("[]")
    return lambda *containers: file.write_text(json.dumps(containers))


class TestRecovered:
    def test_has_what_the_containers_were_started_with(self, project: Project, run: Any, tmp_path: Path) -> None:
        """Secrets, names, the port, settings that are not the default; nothing of another folder's stack."""
        edge = container(project.root, "f1", "frontend")
        edge["NetworkSettings"]["Ports"]["10443/tcp"] = [{"HostIp": "0.0.0.0", "HostPort": "443"}]
        replica = container(project.root, "b1", "backend", **{SECRET: "the-old-one"})
        replica["Config"]["Env"].append("EDGE_DOMAIN=board.example.org")
        run(
            replica,
            container(project.root, "p1", "postgres", POSTGRES_SUPERUSER_PASSWORD="root-of-it"),
            edge,
            container(tmp_path, "x1", "backend", project="other", **{SECRET: "of-somebody-else"}),
        )
        assert recovered(project) == {
            SECRET: "the-old-one",
            "POSTGRES_SUPERUSER_PASSWORD": "root-of-it",
            "POSTGRES_USER": "board-other",
            "LOG_LEVEL": "DEBUG",
            "EDGE_PORT": "8080",
            "EDGE_DOMAIN": "board.example.org",
            "PROJECT_NAME": "board",
        }

    def test_has_the_secrets_of_running_processes(self, project: Project, run: Any, tmp_path: Path) -> None:
        """Where their files are still there: `.env` alone was lost."""
        run()
        (tmp_path / SECRET).write_text("the-old-one")
        variables = {HOME: str(project.state("local")), f"{SECRET}_FILE": str(tmp_path / SECRET), "POSTGRES_DB": "shop"}
        command = [sys.executable, "-c", "print(flush=True); input()"]
        with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
            assert one.stdout
            one.stdout.readline()
            assert recovered(project) == {SECRET: "the-old-one", "POSTGRES_DB": "shop"}
            (tmp_path / SECRET).unlink()
            with pytest.raises(SlipwayError, match="nothing that was deployed from this folder runs here"):
                recovered(project)
            one.communicate("\n")

    def test_does_not_choose_between_two_projects(self, project: Project, run: Any) -> None:
        """Their secrets differ."""
        run(container(project.root, "b1", "backend"), container(project.root, "b2", "backend", project="other"))
        with pytest.raises(SlipwayError, match="more than one compose project runs from this folder: board, other"):
            recovered(project)


def test_a_stack_that_runs_under_another_name_is_named(project: Project, run: Any) -> None:
    """A fresh `.env` has the usual name: the deploy would start a second, empty stack beside it."""
    run(container(project.root, "b1", "backend"))
    [line] = taken_problems(Stack(project.root, "shop", Docker(project.root)), "compose")
    assert line.startswith("PROJECT_NAME: this folder's service runs as compose project `board`")
    assert "`nox -s init -- --recover` takes the name and the secrets back" in line
    assert taken_problems(Stack(project.root, "board", Docker(project.root)), "compose") == []
