"""`[tool.slipway]` in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config.project import load_project
from pipeline.errors import UsageError

GOOD = """
[project]
name = "shop"
[tool.slipway.environments.local]
target = "local"
url = "http://localhost:8080"
"""


def write(root: Path, text: str) -> Path:
    (root / "pyproject.toml").write_text(text, encoding="utf-8")
    (root / "backend").mkdir(exist_ok=True)
    return root


class TestLoadProject:
    def test_fills_in_the_defaults(self, tmp_path: Path) -> None:
        """An environment needs a target and an address; the rest has defaults, no failure allowed among them."""
        env = load_project(write(tmp_path, GOOD)).environment("local")
        assert (env.target, env.rate, env.max_failures, env.verify) == ("local", 50, 0, None)
        assert (env.max_slowdown, env.max_latency_ms, env.inconclusive) == (1.5, None, "undo")

    @pytest.mark.parametrize(
        ("lines", "limit"), [("", 60), ("bake_seconds = 9", 90), ("bake_seconds = 9\nbake_limit_seconds = 12", 12)]
    )
    def test_lets_a_bake_go_on_for_a_while(self, tmp_path: Path, lines: str, limit: float) -> None:
        """Ten times as long, and at least a minute."""
        assert load_project(write(tmp_path, GOOD + lines)).environment("local").bake_limit == limit

    def test_names_the_environments_there_are(self, tmp_path: Path) -> None:
        """A misspelled environment gets the one that was meant."""
        with pytest.raises(UsageError, match="unknown environment `lokal`: did you mean `local`"):
            load_project(write(tmp_path, GOOD)).environment("lokal")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("replica = 3", "unknown key `replica`: did you mean `replicas`"),
            ('replicas = "3"', "replicas: must be a whole number; for example `replicas = 2`"),
            ("replicas = 0", "replicas: must be 1 or more"),
            ("rate = true", "rate: must be a number"),
            ("max_slowdown = 0.5", "max_slowdown: must be 1 or more"),
            ('inconclusive = "maybe"', "inconclusive: must be one of 'undo' or 'keep', not `maybe`"),
            ("max_failures = -1", "max_failures: must be 0 or more"),
            ('overlay = "k8s"', "`overlay` is for kubernetes: take it out"),
            ("rate = nan", "rate: must have no nan or inf"),
            ("rate = 10001", "rate: must be 10000 or less"),
            ('name = "local"', "unknown key `name`: there is `target`, `url`"),
        ],
    )
    def test_refuses_a_wrong_key_with_its_fix(self, tmp_path: Path, line: str, message: str) -> None:
        """Each wrong key gets a line with the table, the key and the fix."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, GOOD + line))
        (problem,) = caught.value.problems
        assert problem.startswith("pyproject.toml [tool.slipway.environments.local]")
        assert message in problem

    @pytest.mark.parametrize("source", [".", "backend", "./backend", "backend/"])
    def test_takes_a_folder_of_the_project_as_source(self, tmp_path: Path, source: str) -> None:
        """The whole project is one, too."""
        table = f'[tool.slipway]\nsource = ["{source}"]\n'
        assert load_project(write(tmp_path, table + GOOD)).source == (source,)

    @pytest.mark.parametrize("source", ["", "/tmp", "..", "backend/..", "nowhere"])
    def test_refuses_any_other_source(self, tmp_path: Path, source: str) -> None:
        """It is named as it is written."""
        table = f'[tool.slipway]\nsource = ["{source}"]\n'
        with pytest.raises(UsageError, match=f"there is no folder `{re.escape(source)}` in the project"):
            load_project(write(tmp_path, table + GOOD))

    def test_reports_every_problem_at_once(self, tmp_path: Path) -> None:
        """Three missing keys, an unknown one and a bad request are five lines of one error."""
        text = '[tool.slipway.environments.x]\nurls = "y"\n[[tool.slipway.requests]]\nname = "a"\nmethod = "GET"\n'
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, text))
        assert len(caught.value.problems) == 5
        assert caught.value.problems[0].startswith("pyproject.toml [project]: missing key `name`")
        assert caught.value.exit_code == 2

    def test_kubernetes_needs_its_own_keys_and_no_replicas(self, tmp_path: Path) -> None:
        """An overlay owns the number of replicas; without overlay, context and namespace there is nothing to apply."""
        text = '[tool.slipway.environments.prod]\ntarget = "kubernetes"\nurl = "https://x"\nreplicas = 2\n'
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, text))
        joined = "\n".join(caught.value.problems)
        assert all(f"missing key `{key}`" in joined for key in ("overlay", "context", "namespace"))
        assert "`replicas` belongs to the overlay" in joined

    def test_a_wrong_target_hides_no_other_problem(self, tmp_path: Path) -> None:
        """But whether a key of only some targets belongs there is not known."""
        text = GOOD.replace('"local"', '"nomad"') + 'overlay = "o"\nreplicas = 2\nrate = 0\n'
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, text))
        target, rate = caught.value.problems
        assert "target: must be one of 'local', 'compose' or 'kubernetes', not `nomad`; for example" in target
        assert "rate: must be 1 or more" in rate

    def test_promotes_from_another_environment_only(self, tmp_path: Path) -> None:
        """`promote_from` names an environment that exists and is not this one."""
        text = (
            '[tool.slipway.environments.prod]\ntarget = "kubernetes"\nurl = "https://x"\noverlay = "o"\n'
            'context = "c"\nnamespace = "n"\npromote_from = "prod"\n'
        )
        with pytest.raises(UsageError, match="`prod` is not another environment: there is none"):
            load_project(write(tmp_path, text))

    @pytest.mark.parametrize("text", ["", "[tool.slipway]\n", "[tool.slipway]\nenvironments = 3\n"])
    def test_wants_an_environment(self, tmp_path: Path, text: str) -> None:
        """Without a table of environments there is nothing to deploy to."""
        with pytest.raises(UsageError, match=r"no \[tool.slipway.environments.NAME\] table"):
            load_project(write(tmp_path, text))

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("localhost:8080", "must be an http or https address"),
            ("http://", "must be an http or https address"),
            ("http://localhost:many", "must be an http or https address"),
            ("http://localhost:{PORT}", "only {EDGE_PORT} is filled in"),
        ],
    )
    def test_refuses_an_address_that_no_request_reaches(self, tmp_path: Path, url: str, message: str) -> None:
        """Found while nothing is touched, and not by a proof whose every request fails."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, GOOD.replace("http://localhost:8080", url)))
        (problem,) = caught.value.problems
        assert problem.startswith("pyproject.toml [tool.slipway.environments.local]: url: ")
        assert message in problem

    @pytest.mark.parametrize("address", ["http://127.0.0.1:9090", "https://metrics.example.com/prometheus/"])
    def test_takes_the_address_of_a_prometheus(self, tmp_path: Path, address: str) -> None:
        """With a path, as some have one."""
        project = load_project(write(tmp_path, f'{GOOD}prometheus = "{address}"\n'))
        assert project.environment("local").prometheus == address

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("127.0.0.1:9090", "must be an http or https address"),
            ("http://h:{EDGE_PORT}", "must be the address alone"),
            ("https://h/graph?g0.expr=up", "must be the address alone"),
            ("https://user:secret@h", "must have no login in it: PROMETHEUS_TOKEN has a token"),
        ],
    )
    def test_refuses_what_is_no_address_of_a_prometheus(self, tmp_path: Path, address: str, message: str) -> None:
        """And says nothing of a password in it."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, f'{GOOD}prometheus = "{address}"\n'))
        (problem,) = caught.value.problems
        assert f"prometheus: {message}" in problem
        assert "secret" not in problem

    def test_knows_for_how_long_a_deploy_listens(self, tmp_path: Path) -> None:
        """It does not by default."""
        address = 'prometheus = "http://127.0.0.1:9090"\n'
        for keys, minutes in (
            ("", 0),
            ("watch_minutes = 0\n", 0),
            (f"{address}watch_minutes = 2\n", 2),
            (f"watch_minutes = 2\n{address}", 2),
        ):
            project = load_project(write(tmp_path, f"{GOOD}{keys}"))
            assert project.environment("local").watch_minutes == minutes

    @pytest.mark.parametrize(
        ("keys", "says"),
        [
            ("watch_minutes = 10\n", "needs the address of a Prometheus beside it, for example `prometheus = "),
            ('watch_minutes = 61\nprometheus = "http://127.0.0.1:9"\n', "must be 60 or less; for example"),
            ('watch_minutes = -1\nprometheus = "http://127.0.0.1:9"\n', "must be 0 or more; for example"),
            ('watch_minutes = "10"\nprometheus = "http://127.0.0.1:9"\n', "must be a number; for example"),
        ],
    )
    def test_refuses_to_listen_to_nothing(self, tmp_path: Path, keys: str, says: str) -> None:
        """By name, before anything ships."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, f"{GOOD}{keys}"))
        (problem,) = caught.value.problems
        assert problem.startswith(f"pyproject.toml [tool.slipway.environments.local]: watch_minutes: {says}")

    def test_names_a_wrong_prometheus_once(self, tmp_path: Path) -> None:
        """There is one, so none is missing."""
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, f'{GOOD}watch_minutes = 10\nprometheus = "h:9090"\n'))
        (problem,) = caught.value.problems
        assert "prometheus: must be an http or https address" in problem

    @pytest.mark.parametrize(
        "address", ["http://prometheus.monitoring:9090", "https://metrics.example.com", "http://127.0.0.1:9090"]
    )
    def test_on_a_cluster_listens_to_any_address(self, tmp_path: Path, address: str) -> None:
        """One of the cluster is asked from there."""
        text = (
            f'{GOOD}[tool.slipway.environments.prod]\ntarget = "kubernetes"\nurl = "https://x"\noverlay = "o"\n'
            'context = "c"\nnamespace = "n"\nrepository = "r.example.com/x"\n'
            f'prometheus = "{address}"\nwatch_minutes = 10\n'
        )
        assert load_project(write(tmp_path, text)).environment("prod").watch_minutes == 10

    def test_refuses_a_name_that_leads_out_of_its_folder(self, tmp_path: Path) -> None:
        """An environment's name is the name of its folder below `.slipway/`."""
        with pytest.raises(UsageError, match="a name is letters, digits, - and _"):
            load_project(write(tmp_path, GOOD.replace("environments.local", 'environments."../x"')))

    @pytest.mark.parametrize("text", ["tool = 3\n", "[tool]\nslipway = 3\n"])
    def test_names_what_is_no_table(self, tmp_path: Path, text: str) -> None:
        """A value where the table should be gets a line and no traceback."""
        with pytest.raises(UsageError, match=r"\[tool.slipway\] must be a table"):
            load_project(write(tmp_path, text))

    def test_names_a_file_in_another_encoding(self, tmp_path: Path) -> None:
        """An editor's Latin-1 is named with its place."""
        write(tmp_path, GOOD)
        (tmp_path / "pyproject.toml").write_bytes("# für uns\n".encode("latin-1"))
        with pytest.raises(UsageError, match=r"pyproject.toml: not UTF-8 \(byte 3\)"):
            load_project(tmp_path)

    def test_names_a_file_that_is_no_toml(self, tmp_path: Path) -> None:
        """A syntax error names the file and the line."""
        with pytest.raises(UsageError, match=r"pyproject.toml: not valid TOML: .*line 1"):
            load_project(write(tmp_path, "tool = = 1"))

    def test_the_template_itself_is_valid(self) -> None:
        """The pyproject.toml that is shipped loads, with the environment that `nox -s deploy` defaults to."""
        project = load_project(Path(__file__).parents[3])
        assert project.environment("local").target == "local"
        assert any(request.writes for request in project.requests)


class TestBench:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('"lists" = 0.1', "no request has the name `lists`: did you mean `list`?"),
            ('"search" = 0.1', "`search` is neither a GET nor a write that is read back by one"),
            ('"list" = 0', "must be 0.001 or more"),
        ],
    )
    def test_refuses_what_cannot_be_measured(self, tmp_path: Path, line: str, message: str) -> None:
        """A ratio belongs to a request of the table that a GET can ask again."""
        requests = """
            [[tool.slipway.requests]]
            name = "list"
            method = "GET"
            path = "/things"
            [[tool.slipway.requests]]
            name = "search"
            method = "POST"
            path = "/search"
            writes = false
            [tool.slipway.bench]
        """
        with pytest.raises(UsageError) as caught:
            load_project(write(tmp_path, f"{GOOD}\n{requests}\n{line}\n"))
        (problem,) = caught.value.problems
        assert problem.startswith("pyproject.toml [tool.slipway]: bench: ")
        assert message in problem

    def test_a_request_of_the_table_may_have_a_ratio(self, tmp_path: Path) -> None:
        """By its name."""
        text = '[[tool.slipway.requests]]\nname = "list"\nmethod = "GET"\npath = "/things"\n'
        project = load_project(write(tmp_path, f'{GOOD}\n{text}[tool.slipway.bench]\n"list" = 0.2\n'))
        assert project.bench == {"list": 0.2}
