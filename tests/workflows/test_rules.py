"""The workflows keep their rules, and each rule notices when it is broken."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.workflows.flows import ROOT, Flows, problems, read

USED = {name: f"{name}{rest}" for _, name, rest in read().uses()}
CHECKOUT, LOGIN = USED["actions/checkout"], USED["docker/login-action"]

# file, what is there, what somebody makes of it, what is said
BROKEN = {
    "a test of the workflows in no shard": ("matrix", "tests/workflows/test_ci.py ", "", "test_ci.py is in no shard"),
    "a gate that runs less": ("ci", "session: test,", "session: test, args: -k quick,", "ci.test: not the whole session"),
    "a matrix that something waits for": ("matrix", "  workflow_dispatch:\n", "  workflow_dispatch:\n  workflow_call:\n", "matrix: started by"),
    "a matrix that is red in silence": ("matrix", "needs: [e2e, workflows, image]", "needs: [e2e, image]", "matrix: red, and silent"),
    "a need dropped": ("ci", "needs: [changes, lint, test, workflows, image, e2e]", "needs: [changes, lint, test, image, e2e]",
                       "ci.all-green: does not need workflows"),
    "a gate that is content with less": ("ci", '.result == "success"', '.result != "failure"', "content with less than success"),
    "a gate that lets others be skipped": ("ci", " and IN(.key; $left[])", "", "content with less than success"),
    "a gate that can be skipped": ("ci", "    if: always()\n", "", "ci.all-green: skipped"),
    "a job that can be skipped": ("ci", "    name: lint\n", "    name: lint\n    if: github.actor != 'x'\n", "ci.lint: has a condition"),
    "a job that is left out by another word": ("ci", "left_out), 'e2e')", "left_out), 'image')", "ci.e2e: has a condition"),
    "a first job that can be skipped": ("ci", "    name: what changed\n", "    name: what changed\n    if: github.actor != 'x'\n", "ci.changes: has a condition"),
    "a required check that hangs": ("ci", "  pull_request:\n", "  pull_request:\n    paths: [backend/**]\n", "ci: pull_request by paths"),
    "a session with other words": ("ci", 'args: "${{ needs.changes.outputs.e2e }}"', "args: own", "ci.e2e: not the whole session"),
    "a deploy that is skipped in silence": ("cd", "    if: ${{ !cancelled() && needs.ci.result == 'success' }}\n", "", "cd.push: GitHub skips it"),
    "a night that leaves out": ("matrix", "  image:\n    name: image\n", "  other:\n    name: image\n", "matrix: no image, which ci may leave out"),
    "a judge at no time": ("matrix", 'args: ""', "args: tests/workflows/test_gate.py", "matrix: no judge of the workflows"),
    "a search of one commit": ("ci", "fetch-depth: 0 } # each commit", "fetch-depth: 1 } # each commit", "ci.lint: searches the last commit for secrets"),
    "unpinned": ("ci", CHECKOUT, "actions/checkout@v7", "ci: actions/checkout@v7 is not pinned"),
    "a version that is not the pin's": ("cd", LOGIN, re.sub("# .*", "# v0.0.1", LOGIN), "docker/login-action: more than one version"),
    "a version without its commit": ("cd", LOGIN, "docker/login-action@v4.6.0", "cd: docker/login-action@v4.6.0 is not pinned"),
    "a uv that nobody chose": ("action", "        version-file: requirements/uv.txt\n", "", "a uv that no lock names"),
    "an action that nobody looked at": ("ci", "actions/checkout@", "evil/checkout@", "ci: evil/checkout is no action that"),
    "no timeout": ("matrix", "    timeout-minutes: 30\n", "", "matrix.e2e: no timeout"),
    "a deploy that may not take its time": ("deploy", "timeout-minutes: 80", "timeout-minutes: 30", "deploy.deploy: ends a deploy that is"),
    "a right more": ("ci", "contents: read # check out the code", "contents: write # why not", "ci.changes: may {'contents': 'write'}"),
    "rights at the top": ("cd", "\npermissions: {}\n", "\npermissions: write-all\n", "cd: not `permissions: {}`"),
    "a file in no shard": ("matrix", "tests/deploy/test_killed.py ", "", "matrix: tests/deploy/test_killed.py is in no shard"),
    "half a file in no shard": ("matrix", '-k "not is_undone"', '-k "not undone"', "leave something out"),
    "a file in two shards": ("matrix", "-n 2 tests/deploy/test_bad_input.py", "-n 2 tests/page tests/deploy/test_bad_input.py", "run it twice"),
    "a deploy that is cancelled": ("deploy", "cancel-in-progress: false, queue", "cancel-in-progress: true, queue", "deploy.deploy: two deploys at once, or one that is cancelled"),
    "a rollback that loses its place": ("deploy", "false, queue: max }", "false }", "deploy.deploy: two deploys at once, or one that is cancelled or loses"),
    "two deploys at once": ("deploy", "deploy-${{ inputs.environment }}", "${{ inputs.session }}-${{ inputs.environment }}", "deploy.deploy: two deploys"),
    "a deploy that waits for itself": ("cd", "    name: staging\n", "    name: staging\n    concurrency: deploy-staging\n", "cd.staging: a group around"),
    "a group by the caller's name": ("ci", "group: ci-$", "group: ${{ github.workflow }}-$", "by the caller's name"),
    "a title in a script": ("ci", '        run: jq', "        run: echo ${{ github.event.pull_request.title }}; jq", "an expression in a script"),
    "a branch's name": ("ci", "session: e2e, args: \"${{ needs.changes.outputs.e2e }}", "session: e2e, args: \"${{ github.head_ref }}", "ci: github.head_ref is chosen by"),
    "strangers with secrets": ("ci", "  pull_request:\n", "  pull_request_target:\n", "ci: pull_request_target runs with secrets"),
    "a secret for strangers": ("ci", 'cache: "true" }', 'cache: "true" }\n        env: { X: "${{ secrets.X }}" }', "ci.lint: a pull request reaches a secret"),
    "a pull request that decrypts": ("ci", 'cache: "true" }', 'cache: "true" }\n        env: { SOPS_AGE_KEY: "${{ secrets.SOPS_AGE_KEY }}" }', "ci.lint: a pull request reaches a secret"),
    "a login for strangers": ("image", "      - if: inputs.image != ''\n        uses: docker", "      - uses: docker", "image.image: logs in for a pull request"),
    "all secrets": ("rollback", 'secrets: { KUBECONFIG: "${{ secrets.KUBECONFIG }}", RELEASE_BOARD_TOKEN: "${{ secrets.RELEASE_BOARD_TOKEN }}", SOPS_AGE_KEY: "${{ secrets.SOPS_AGE_KEY }}", PROMETHEUS_TOKEN: "${{ secrets.PROMETHEUS_TOKEN }}" }',
                    "secrets: inherit", "rollback.rollback: hands on other secrets"),
    "a secret that does not arrive": ("cd", ', PROMETHEUS_TOKEN: "${{ secrets.PROMETHEUS_TOKEN }}" }', " }", "cd.staging: hands on other secrets"),
    "a right that is not granted": ("rollback", "packages: write", "packages: read", "rollback.rollback: does not grant packages, which deploy asks for"),
    "an unguarded secret": ("cd", "linux/arm64' }}\" }", "linux/arm64' }}\", X: \"${{ secrets.X }}\" }", "cd.push: a secret without an environment"),
    "a cache where it is published": ("cd", "with: { session: push }", 'with: { session: push, cache: "true" }', "cd.push: a cache"),
    "a token left behind": ("image", "persist-credentials: false", "persist-credentials: true", "leaves its token behind"),
    "a session that is none": ("ci", "session: lint", "session: lynt", "ci.lint: there is no session lynt"),
    "a caller's session that is none": ("rollback", "session: rollback", "session: rolback", "deploy.deploy: there is no session rolback"),
    "no healing": ("deploy", "if: failure() || cancelled()", "if: failure()", "deploy.deploy: nothing undoes"),
    "the wrong one healed": ("deploy", "${{ inputs.environment }} --unfinished", "staging --unfinished", "deploy.deploy: nothing undoes"),
    "a watch that the next deploy waits for": ("deploy", "    needs: [deploy]\n", "    needs: [deploy]\n    concurrency: deploy-x\n", "deploy.watch: holds up the next"),
    "a watch that asks for a second approval": ("deploy", "environment }}-watch\", url", "environment }}\", url", "or asks for a second approval"),
    "a watch that may not take its time": ("deploy", "timeout-minutes: 140", "timeout-minutes: 100", "deploy.watch: ends a deploy that is"),
    "production apart": ("cd", "environment: production", "environment: elsewhere", "staging and production differ"),
    "production first": ("cd", "needs: [push, staging]", "needs: [push, kind]", "cd.production: does not wait for staging"),
    "a script": ("security", "        run: echo", "        run: |\n          true\n          echo", "a script of more than a line"),
}  # fmt: skip


def test_a_pull_request_decrypts_nothing() -> None:
    """The key of SOPS reaches the job that GitHub gives the environment, by those that call it, and no other.

    What a pull request starts, and what that calls, has none of them.
    """
    flows = read()
    holders = {name for name, job in flows.jobs() if "SOPS_AGE_KEY" in json.dumps(job)}
    assert holders == {"deploy.deploy", "deploy.watch", "cd.staging", "cd.production", "rollback.rollback"}
    assert dict(flows.jobs())["deploy.deploy"]["environment"]["name"] == "${{ inputs.environment }}"
    started = {name for name, flow in flows.flows.items() if "pull_request" in flow["on"]}
    assert started
    for _ in flows.flows:  # as deep as a call can be
        started |= {Path(job["uses"]).stem for name, job, _ in flows.calls() if name.partition(".")[0] in started}
    assert not {name.partition(".")[0] for name in holders} & started
    assert not re.search("secrets", json.dumps([flows.flows[name] for name in started]))


def test_keep_their_rules() -> None:
    """None is broken."""
    assert problems(read()) == []


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_is_noticed(what: str) -> None:
    """A check that cannot fail says nothing."""
    name, old, new, says = BROKEN[what]
    texts = dict(read().texts)
    assert old in texts[name]
    texts[name] = texts[name].replace(old, new, 1)
    found = problems(Flows(texts))
    assert any(says in line for line in found), found


def test_each_supported_python_is_tested() -> None:
    """From the one that pyproject.toml asks for, without a gap."""
    lowest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    matrix = read().flows["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    first = int(re.fullmatch(r">=3\.(\d+)", lowest)[1])  # type: ignore[index]
    assert matrix == [f"3.{minor}" for minor in range(first, first + len(matrix))]


def test_the_ruleset_requires_the_gate() -> None:
    """By the name that GitHub shows, and of GitHub Actions alone."""
    ruleset = json.loads((ROOT / ".github/rulesets/main.json").read_text())
    [checks] = [rule["parameters"] for rule in ruleset["rules"] if rule["type"] == "required_status_checks"]
    gate = read().flows["ci"]["jobs"]["all-green"]["name"]
    assert checks["required_status_checks"] == [{"context": gate, "integration_id": 15368}]
    assert ruleset["enforcement"] == "active"
