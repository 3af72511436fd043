"""What is asked of Docker, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engines.docker import Docker, docker_problems, essence, ignored_variables, remote_problem
from pipeline.errors import SlipwayError
from pipeline.images.build import Images, build_command, image_repository, push_references, repository_problem
from pipeline.registry.image import tagged_digest
from pipeline.targets.common.container import refused_login
from tests.logs import logged
from tests.registries import played, push_image

ROOT = Path(__file__).parents[3]
# What BuildKit says of a step that fails.
FULL = """#5 [2/2] RUN dd
#5 0.104 dd: error writing '/x': No space left on device
#5 0.104 1048576 bytes copied
#5 ERROR: process "/bin/sh -c dd" did not complete successfully: exit code: 1
------
 > [2/2] RUN dd:
0.104 dd: error writing '/x': No space left on device
0.104 1048576 bytes copied
------
Dockerfile:2
--------------------
   2 | >>> RUN dd
--------------------
ERROR: failed to solve: process "/bin/sh -c dd" did not complete successfully: exit code: 1
"""


@pytest.fixture(name="engine")
def _engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `docker` that says what a test lets it say: engines of other ages are not to be had on one machine."""
    program = tmp_path / "docker"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def says(program: Path, *cases: str) -> None:
    """Let it answer each case of a shell's `case "$*"`."""
    program.write_text('#!/bin/sh\ncase "$*" in\n' + "\n".join(cases) + "\nesac\n")
    program.chmod(0o755)


class TestEngineOfAnotherMachine:
    @pytest.mark.parametrize("host", ["ssh://deploy@shop.example.com", "tcp://192.0.2.1:2376"])
    def test_is_refused(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Secrets are files of this machine, and the proof asks this machine's address."""
        monkeypatch.setenv("DOCKER_HOST", host)
        assert (remote_problem() or "").startswith(f"DOCKER_HOST: {host} is another machine's engine")

    @pytest.mark.parametrize("host", ["unix:///run/user/1000/docker.sock", "tcp://127.0.0.1:2375"])
    def test_is_not_what_answers_here(self, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rootless, or through a port of this machine."""
        monkeypatch.setenv("DOCKER_HOST", host)
        assert remote_problem() is None


class TestVariables:
    def test_that_would_choose_other_files_are_ignored_and_said(
        self, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One of them would remove the containers of all other services."""
        monkeypatch.setenv("COMPOSE_FILE", "other.yml")
        monkeypatch.setenv("COMPOSE_REMOVE_ORPHANS", "1")
        says(engine, "*) env ;;")
        assert [
            line for line in Docker(tmp_path).ask("compose", "up").splitlines() if line.startswith("COMPOSE_")
        ] == []
        assert ignored_variables() == [
            "COMPOSE_FILE is ignored: a deploy names its own files and project",
            "COMPOSE_REMOVE_ORPHANS is ignored: a deploy names its own files and project",
        ]


class TestDockerProblems:
    def test_nothing_is_wrong_with_a_new_one(self, engine: Path) -> None:
        """An engine and a compose that are new enough."""
        says(engine, "version*) echo 29.1.0 ;;", "compose*) echo v2.40.1 ;;")
        assert docker_problems(compose=True) == []

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where to get it."""
        monkeypatch.setenv("PATH", "/nonexistent")
        assert docker_problems(compose=False) == [
            "docker: not installed (or not on the PATH): https://docs.docker.com/engine/install"
        ]

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            ("permission denied while trying to connect to the Docker daemon socket", "docker: no permission for"),
            ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "docker: no engine answers at"),
        ],
    )
    def test_no_answer(self, answer: str, problem: str, engine: Path) -> None:
        """Whether it is a matter of rights or of a daemon that is not there, with the fix."""
        says(engine, f"*) echo '{answer}' >&2; exit 1 ;;")
        [said] = docker_problems(compose=False)
        assert said.startswith(problem)
        assert "sudo" in said

    @pytest.mark.parametrize(("name", "value"), [("DOCKER_HOST", "tcp://127.0.0.1:1"), ("DOCKER_CONTEXT", "there")])
    def test_no_answer_names_what_chose_the_engine(
        self, name: str, value: str, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A variable, or a context, with its address."""
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setenv(name, value)
        says(engine, "context*) echo there tcp://127.0.0.1:1 ;;", "*) echo 'Cannot connect' >&2; exit 1 ;;")
        [said] = docker_problems(compose=False)
        assert "no engine answers at tcp://127.0.0.1:1: " in said
        assert said.endswith(f"or fix {name}")

    def test_no_context_of_that_name(self, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not the socket that is wrong."""
        monkeypatch.setenv("DOCKER_CONTEXT", "nosuch")
        says(
            engine, "*) echo 'unable to resolve docker endpoint: context \"nosuch\": context not found' >&2; exit 1 ;;"
        )
        [said] = docker_problems(compose=False)
        assert 'context "nosuch": context not found: fix DOCKER_CONTEXT' in said

    def test_too_old(self, engine: Path) -> None:
        """Which is there, and which is needed."""
        says(engine, "version*) echo 24.0.7 ;;")
        assert docker_problems(compose=False) == ["Docker Engine 24.0.7 is too old, 25.0 is needed: update it"]
        says(engine, "version*) echo 26.1.5+dfsg1 ;;", "compose*) echo 2.23.3 ;;")
        assert docker_problems(compose=True) == ["Docker Compose 2.23.3 is too old, 2.24 is needed: update it"]

    def test_no_compose(self, engine: Path) -> None:
        """The plugin is named, and only where it is needed."""
        says(engine, "version*) echo 27.0.0 ;;", "compose*) echo \"'compose' is not a docker command\" >&2; exit 1 ;;")
        assert docker_problems(compose=False) == []
        assert docker_problems(compose=True)[0].startswith("docker compose: the plugin is not installed")


class TestEssence:
    @pytest.mark.parametrize(
        ("said", "line"),
        [
            ("Error response from daemon: No such image: x:1", "No such image: x:1"),
            (FULL, "dd: error writing '/x': No space left on device"),
            (FULL.replace("error writing", "writing"), "1048576 bytes copied"),
            ("ERROR: failed to solve: python:3.13: failed to resolve source metadata", "failed to solve: python:3.13"),
            ("", "it said nothing"),
        ],
    )
    def test_is_the_line_that_says_why(self, said: str, line: str) -> None:
        """One line, without the words before it."""
        assert line in essence(said)
        assert "\n" not in essence(said)


class TestDocker:
    @pytest.mark.parametrize(
        ("arguments", "complaint", "fix"),
        [
            (
                ("push", "ghcr.io/o/n:1"),
                "denied: denied",
                "`docker login ghcr.io` as somebody who may push ghcr.io/o/n:1",
            ),
            (("pull", "--quiet", "o/n:1"), "unauthorized: {}", "`docker login` as somebody who may pull o/n:1"),
            (("push", "localhost:5000/n:1"), "no basic auth credentials", "`docker login localhost:5000` as somebody"),
        ],
    )
    def test_a_registry_wants_a_login(
        self, arguments: tuple[str, ...], complaint: str, fix: str, engine: Path, tmp_path: Path
    ) -> None:
        """Which, and for what."""
        says(engine, f"*) echo '{complaint}' >&2; exit 1 ;;")
        with pytest.raises(SlipwayError) as caught:
            Docker(tmp_path).do(*arguments)
        assert caught.value.problems[0].startswith(f"docker {arguments[0]}: {complaint}: {fix}")

    @pytest.mark.parametrize("complaint", ["connection refused", "permission denied while trying to connect"])
    def test_another_complaint_is_no_matter_of_a_login(self, complaint: str, engine: Path, tmp_path: Path) -> None:
        """A registry that is away, an engine that is not ours."""
        says(engine, f"*) echo '{complaint}' >&2; exit 1 ;;")
        with pytest.raises(SlipwayError) as caught:
            Docker(tmp_path).do("push", "ghcr.io/o/n:1")
        assert "login" not in caught.value.problems[0]

    @pytest.mark.parametrize(
        ("answer", "refusal"),
        [
            ("cat >/dev/null; echo 1", None),
            (
                "echo 'psql: error: FATAL:  password authentication failed for user \"a\"' >&2; exit 2",
                'password authentication failed for user "a"',
            ),
            ("echo 'psql: error: FATAL:  database \"b\" does not exist' >&2; exit 2", 'database "b" does not exist'),
            ("echo 'psql: error: FATAL:  the database system is starting up' >&2; exit 2", None),
            ("echo 'OCI runtime exec failed: procReady not received: unknown'; exit 126", None),
            ("exit 137", None),
        ],
    )
    def test_a_login_is_refused_by_postgresql_alone(
        self, answer: str, refusal: str | None, engine: Path, tmp_path: Path
    ) -> None:
        """What else ends the asking is no word about a password: nobody is told to change a right one."""
        says(engine, f"exec*) {answer} ;;")
        assert refused_login(Docker(tmp_path), "one", "a", "b", "secret") == refusal

    @pytest.mark.parametrize("verb", ["do", "ask"])
    def test_a_process_that_the_engine_could_not_begin_is_begun_once_more(
        self, verb: str, engine: Path, tmp_path: Path
    ) -> None:
        """A runtime that stumbles undoes no deploy; one that stumbles twice does."""
        stumbles = "runc create failed: waiting for init preliminary setup: read init-p: connection reset by peer"
        says(
            engine,
            f"*) echo $1 >>calls; test $(wc -l <calls) = 2 && echo done && exit; echo '{stumbles}' >&2; exit 1 ;;",
        )
        ask = getattr(Docker(tmp_path), verb)
        assert ask("run", "x").strip() == "done"
        with pytest.raises(SlipwayError, match="init-p"):
            ask("run", "x")
        assert (tmp_path / "calls").read_text().split() == ["run"] * 4

    def test_what_cannot_begin_in_a_container_is_said(self, engine: Path, tmp_path: Path) -> None:
        """The engine says it on standard output."""
        says(engine, "exec*) echo 'OCI runtime exec failed: procReady not received: unknown'; exit 126 ;;")
        with pytest.raises(SlipwayError) as caught:
            Docker(tmp_path).ask("exec", "one", "true")
        assert caught.value.problems[0] == "docker exec: OCI runtime exec failed: procReady not received: unknown"

    def test_forgets_what_it_can(self, engine: Path, tmp_path: Path) -> None:
        """Every name of a repository; one that a container of somebody's runs stays, and is said."""
        says(
            engine,
            "*'images --format'*) echo shop-backend:1; echo shop-backend:dev; echo 'shop-backend:<none>' ;;",
            "*rmi*:dev) echo 'Error response from daemon: conflict: container f00d is using it' >&2; exit 1 ;;",
            f'*rmi*) echo "$*" >>{tmp_path}/removed ;;',
        )
        docker = Docker(tmp_path)
        names = docker.names("shop-backend")
        assert names == ["shop-backend:1", "shop-backend:dev"]
        with logged() as warnings:
            docker.forget(*names)
        assert (tmp_path / "removed").read_text() == "rmi --no-prune shop-backend:1\n"
        assert warnings == ["image shop-backend:dev stays: docker rmi: conflict: container f00d is using it"]


class TestImages:
    def test_builds_a_target_with_its_arguments_in_order(self) -> None:
        """The same arguments give the same command."""
        command = build_command("docker/Dockerfile.backend", "production", {"B": "2", "A": "1"}, Path("/tmp/id"))
        assert command == [
            "docker", "build", "--progress", "plain", "--iidfile", "/tmp/id",
            "--file", "docker/Dockerfile.backend", "--target", "production",
            "--build-arg", "A=1", "--build-arg", "B=2", ".",
        ]  # fmt: skip

    def test_a_builder_pushes_what_no_engine_keeps(self) -> None:
        """For several platforms: by the builder that is chosen, which says what it pushed."""
        platforms = ["--platform", "linux/amd64"]
        command = build_command("docker/Dockerfile.frontend", None, {}, Path("/tmp/id"), platforms, pushed=True)
        assert command == [
            "docker", "buildx", "build", "--progress", "plain", "--metadata-file", "/tmp/id",
            "--platform", "linux/amd64", "--file", "docker/Dockerfile.frontend", ".",
        ]  # fmt: skip

    def test_passes_on_stage_version_mirror_proxy_and_index(
        self, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By what leaves no trace: a proxy without its value on the command line, the index as a secret file."""
        monkeypatch.setattr("pipeline.config.settings.env_file", lambda _: tmp_path / "none")  # a checkout may have one
        monkeypatch.setenv("BUILD_TARGET", "lean")
        monkeypatch.setenv("PYTHON_VERSION", "3.12")
        monkeypatch.setenv("PYTHON_IMAGE", "mirror.example.org/python:3.13")
        monkeypatch.setenv("CADDY_IMAGE", "mirror.example.org/caddy:2")
        monkeypatch.setenv("POSTGRES_IMAGE", "mirror.example.org/postgres:18")
        monkeypatch.setenv("HTTPS_PROXY", "http://me:hidden@proxy:3128")
        monkeypatch.setenv("PIP_INDEX_URL", "https://me:hidden@index.example.org/simple")
        says(
            engine,
            f'build*) echo "$*" >>{tmp_path}/asked; echo sha256:1 >"$5";'
            f' cat $(echo "$*" | grep -o "src=[^ ]*" | cut -c5-) >>{tmp_path}/given ;;',
            "*) ;;",
        )
        images = Images(ROOT, "shop")
        images.build()
        images.build_frontend()
        service, migrate, backup, edge = (tmp_path / "asked").read_text().splitlines()
        assert " --target lean " in service
        assert " --target migrate " in migrate
        assert " --target backup " in backup
        assert "--build-arg POSTGRES_IMAGE=mirror.example.org/postgres:18" in backup
        assert "POSTGRES_IMAGE" not in service + migrate
        assert f"--iidfile {ROOT / '.slipway'}/" in service  # a snap's /tmp is another one
        for asked in (service, migrate, backup):
            assert "--build-arg PYTHON_VERSION=3.12" in asked
            assert "--build-arg PYTHON_IMAGE=mirror.example.org/python:3.13" in asked
        assert "--build-arg CADDY_IMAGE=mirror.example.org/caddy:2" in edge
        for asked in (service, migrate, backup, edge):
            assert "--build-arg HTTPS_PROXY " in asked
            assert "--secret id=pip,src=" in asked
            assert "hidden" not in asked
        given = (tmp_path / "given").read_text()
        assert "index-url = https://me:hidden@index.example.org/simple\n" in given
        assert 'url = "https://me:hidden@index.example.org/simple"\ndefault = true\n' in given

    @pytest.mark.parametrize(
        ("platforms", "line"),
        [
            ("amd64", "IMAGE_PLATFORMS: `amd64` is not a list of platforms: for example linux/amd64,linux/arm64"),
            ("linux/amd64,linux/arm64", "docker/Dockerfile.backend: not for this driver (IMAGE_PLATFORMS needs a"),
        ],
    )
    def test_a_builder_that_cannot_is_said(
        self, platforms: str, line: str, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the builder says, and which one can."""
        says(engine, "*buildx*) echo 'ERROR: not for this driver' >&2; exit 1 ;;", "*) echo 27.0.0 ;;")
        monkeypatch.setenv("IMAGE_PLATFORMS", platforms)
        (engine.parent / "pyproject.toml").write_text("", encoding="utf-8")
        with pytest.raises(SlipwayError) as caught:
            Images(engine.parent, "slipway").push("ghcr.io/o/n")
        assert caught.value.problems[0].startswith(line)

    def test_tags_what_a_builder_pushed(self, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the first digits of the service's digest, as an engine's push does, so that they are found again."""
        monkeypatch.setenv("IMAGE_PLATFORMS", "linux/amd64,linux/arm64")
        (engine.parent / "pyproject.toml").write_text("", encoding="utf-8")
        with played() as registry:
            repository = f"{registry.address}/team/board"
            digests = {part: push_image(repository, part) for part in ("production", "migrate", "frontend", "backup")}
            builder = "*buildx*) built=$*; while [ $1 != --metadata-file ]; do shift; done; case $built in\n"
            for part, digest in digests.items():
                builder += f"""*{part}*) echo '{{"containerimage.digest": "{digest}"}}' >"$2" ;;\n"""
            says(engine, f"{builder}esac ;;")
            pushed = Images(engine.parent, "slipway").push(repository)
            assert pushed.backend == digests["production"]
            short = pushed.backend[7:19]
            tags = (short, f"migrate-{short}", f"frontend-{short}", f"backup-{short}")
            assert [tagged_digest(f"{repository}:{tag}") for tag in tags] == list(digests.values())

    def test_a_repository_is_in_lower_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """GitHub's owners need not be."""
        monkeypatch.setenv("IMAGE_REPOSITORY", "ghcr.io/Owner/Name")
        assert image_repository() == "ghcr.io/owner/name"

    def test_finds_the_other_images_from_the_digest(self) -> None:
        """What belongs to a backend's digest has a tag that is made of it."""
        references = push_references("ghcr.io/o/n", f"sha256:{'a' * 64}", ["migrate", "frontend"])
        assert references == {
            "migrate": "ghcr.io/o/n:migrate-aaaaaaaaaaaa",
            "frontend": "ghcr.io/o/n:frontend-aaaaaaaaaaaa",
        }

    @pytest.mark.parametrize("good", ["ghcr.io/owner/name", "localhost:5000/a/b", "registry.example.org/team/app_1"])
    def test_takes_names_of_repositories(self, good: str) -> None:
        """With a host, with a port, of several parts."""
        assert repository_problem(good) is None

    @pytest.mark.parametrize(
        "bad", ["", "ghcr.io/Owner/name", "name:latest", "https://ghcr.io/o/n", "ghcr.io/o/n@sha256:1"]
    )
    def test_refuses_what_is_none(self, bad: str) -> None:
        """With the fix, or an example."""
        assert "IMAGE_REPOSITORY" in (repository_problem(bad) or "")
